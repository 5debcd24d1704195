"""The data of a run: for its training, and for a model that was trained on them."""

import warnings
from dataclasses import replace

import numpy as np

from npvae.app import run_folder, settings
from npvae.core.checks import NpvaeWarning
from npvae.core.ranks import Ranks
from npvae.data import MAPPED_BYTES, Scaling
from npvae.data.rows import Rows


def load_data(arguments, scaling=None, ranks=None):
    """The data of a run; scaling: that of its training, if there was one. Of several ranks the first looks at all rows, and
    the others read of a .npy file those that they train on."""
    from npvae import data

    ranks = Ranks() if ranks is None else ranks
    if ranks.n > 1 and arguments["data"] == "mnist":
        ranks.first(lambda: data.mnist.load(arguments["data_dir"]) and None)  # downloads and verifies them for all
    scale = arguments["scale"] if scaling is None else scaling
    shape = settings.image_shape(arguments)
    return data.load(arguments["data"], arguments["data_dir"], True, scale, shape, arguments["condition"],
                     MAPPED_BYTES if ranks.n == 1 else 0, ranks.is_first)  # fmt: skip


def rows_of(model, dataset, ranks=None):
    """The training and the validation rows of a data set, checked for the model."""
    train = Rows.of(model, dataset.train, "training data", ranks=ranks)
    val = Rows.of(model, dataset.val, "validation data", ranks=ranks)
    return replace(train, numbers=dataset.numbers_train), replace(val, numbers=dataset.numbers_val)


def data_of_run(args, arguments, config):
    """The data of a run, in --data-dir if that is given; a warning if they are not those that it was trained on."""
    if args.data_dir is not None:
        arguments = {**arguments, "data_dir": args.data_dir}
    dataset = load_data(arguments, Scaling.from_json(config["scaling"]))
    if change := run_folder.data_have_changed(args.run_folder, config, dataset):
        warnings.warn(change, NpvaeWarning, stacklevel=2)
    return dataset


def validation_rows(model, dataset, seed, index=None):
    """The validation rows of a dataset, those of an index (B,) or all, as a batch of model input."""
    rows = Rows.of(model, dataset.val, "validation rows")
    return rows.batch(np.arange(len(rows)) if index is None else index, np.random.default_rng(seed))
