"""The command `npvae`: train, evaluate, sample. Errors are one line on stderr and a non-zero exit status."""

import argparse
import json
import math
import os
import sys
from pathlib import Path

from npvae import runs
from npvae.layers import ACTIVATIONS
from npvae.vae import LIKELIHOODS

DEFAULTS = {
    "data": "ising",
    "epochs": 30,
    "batch_size": 128,
    "latent": 2,
    "hidden": [256],
    "activation": "relu",
    "likelihood": "bernoulli",
    "sigma": 0.1,
    "learning_rate": 1e-3,
    "beta": 1.0,
    "seed": 0,
}


def main(argv=None):
    """Run the command; returns the exit status."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except MemoryError:
        return fail("not enough memory for this size of data and model")
    except (ValueError, OSError, FloatingPointError) as error:
        return fail(" ".join(str(error).split()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def fail(message, status=1):
    print(f"npvae: error: {message}", file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def integer(minimum):
    """An argparse type: whole numbers of at least `minimum`."""

    def parse(text):
        if not text.removeprefix("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {minimum}; got {text!r}")
        return int(text)

    return parse


def positive(text):
    """An argparse type: finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0; got {text!r}")
    return value


def not_negative(text):
    """An argparse type: finite numbers of at least 0."""
    return 0.0 if text.strip() in ("0", "0.0") else positive(text)


def build_parser():
    parser = Parser(
        prog="npvae",
        description="A variational autoencoder from scratch in NumPy. Start with: npvae train",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_sample(commands)
    return parser


def _add_train(commands):
    parser = commands.add_parser(
        "train",
        help="train a model and leave a run folder",
        description="Train a variational autoencoder. Without arguments: on lattices of the Ising model, which are simulated "
        "on the spot. Leaves a folder with config.json, metrics.jsonl, checkpoint.npz and pictures.",
        epilog="Examples: npvae train   |   npvae train --data mnist --latent 20 --hidden 400 --epochs 20   |   "
        "npvae train --data spectra.npy --likelihood gaussian --sigma 0.05",
    )
    activations = [name for name in ACTIVATIONS if name != "identity"]

    def add(name, help, **options):
        default = DEFAULTS.get(name.removeprefix("--").replace("-", "_"))
        note = "" if default is None else f" (default: {default[0] if default == DEFAULTS['hidden'] else default})"
        parser.add_argument(name, help=help + note, **options)

    add("--data", "ising, mnist, or the path of a .npy or .npz file", metavar="DATA")
    add("--data-dir", "folder of the MNIST files, or of DATA; without it MNIST is downloaded once", metavar="DIR")
    add("--out", "run folder, new or empty (default: the first free runs/DATA)", metavar="RUN")
    add("--epochs", "passes over the training rows", metavar="N", type=integer(1))
    add("--batch-size", "rows per step", metavar="N", type=integer(1))
    add("--latent", "dimensions of the latent z", metavar="L", type=integer(1))
    add("--hidden", "widths of the encoder's hidden layers, which the decoder mirrors; none for a linear model",
        metavar="H", type=integer(1), nargs="*")  # fmt: skip
    add("--activation", f"of the hidden layers: {', '.join(activations)}", metavar="A", choices=activations)
    add("--likelihood", "bernoulli, for data in [0, 1] (grey levels are binarised afresh for every minibatch), or gaussian, "
        "with fixed --sigma", metavar="K", choices=LIKELIHOODS)  # fmt: skip
    add("--sigma", "standard deviation of the gaussian likelihood, in units of the data", metavar="S", type=positive)
    add("--learning-rate", "Adam's step size", metavar="R", type=positive)
    add("--beta", "weight of the KL in the loss nll + beta kl; 1 is the ELBO", metavar="B", type=not_negative)
    add("--seed", "of weights, order and noise; the same seed repeats the run", metavar="S", type=integer(0))
    add("--workers", "threads of the matrix products (default: one for small models, else the cores available)",
        metavar="N", type=integer(1))  # fmt: skip
    add("--resume", "continue the run folder given by --out; of the other options only --epochs and --workers may be given",
        action="store_true")  # fmt: skip
    parser.set_defaults(run=train)


def _add_evaluate(commands):
    parser = commands.add_parser(
        "evaluate",
        help="measure a trained model on its validation rows",
        description="Print ELBO, nll, kl (in total and per latent dimension), active units, the importance-weighted "
        "log-likelihood and bits per dimension of a run, on its validation rows (MNIST: the test images). Nats are means "
        "per datum; grey images are binarised once.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the folder that npvae train left")
    parser.add_argument("--samples", type=integer(1), default=100, metavar="K", help="importance samples per datum (100)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data are, if they moved since the training")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="S", help="of binarisation and noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=evaluate)


def _add_sample(commands):
    parser = commands.add_parser(
        "sample",
        help="draw from a trained model",
        description="Draw z from the prior N(0, I) and picture E[x|z], the mean of the data that the model expects there.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the folder that npvae train left")
    parser.add_argument("--count", type=integer(1), default=64, metavar="N", help="how many (default: 64)")
    parser.add_argument("--out", metavar="PNG", help="the new picture to write (default: the first free RUN/draws.png)")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="S", help="of the draws (default: 0)")
    parser.set_defaults(run=sample)


# ------------------------------------------------------------------------------------------------------------- train


def train(args):
    """`npvae train`."""
    from npvae import data
    from npvae.optim import Adam
    from npvae.train import Rows, fit
    from npvae.vae import VAE

    arguments = _resumed_arguments(args) if args.resume else _new_arguments(args)
    dataset = data.load(arguments["data"], arguments["data_dir"], progress=True)
    print(f"data      {dataset.description}")
    optimizer = Adam(arguments["learning_rate"])
    if args.resume:
        folder = Path(args.out)
        model, state = runs.load_progress(folder)
    else:
        model = VAE(
            n_features=dataset.x_train.shape[1],
            n_latent=arguments["latent"],
            hidden=arguments["hidden"],
            activation=arguments["activation"],
            likelihood=arguments["likelihood"],
            sigma=arguments["sigma"],
            seed=arguments["seed"],
        )
        for name, rows in [("training data", dataset.x_train), ("validation data", dataset.x_val)]:
            Rows.of(model, rows, name)  # refuse unusable data before a folder is made
        folder, state = runs.new_folder(args.out, Path(arguments["data"]).stem), None
    print(f"model     {model}\nrun       {folder}\n")
    runs.write_config(folder, arguments, model, dataset.image_shape)
    history = fit(
        model,
        dataset.x_train,
        dataset.x_val,
        epochs=arguments["epochs"],
        batch_size=arguments["batch_size"],
        optimizer=optimizer,
        beta=arguments["beta"],
        seed=arguments["seed"],
        workers=arguments["workers"],
        on_epoch=lambda state: runs.save_progress(folder, model, state),
        resume=state,
    )
    pictures = runs.draw_pictures(folder, model, dataset, history)
    _report_training(folder, history, pictures)
    return 0


def _new_arguments(args):
    """The defaults, with what was given in their place and paths made absolute, so that any folder can evaluate the run."""
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    data_dir = None if args.data_dir is None else str(Path(args.data_dir).resolve())
    arguments = {**DEFAULTS, **given, "data_dir": data_dir, "workers": args.workers}
    if Path(arguments["data"]).suffix and data_dir is None:
        arguments["data"] = str(Path(arguments["data"]).resolve())
    return arguments


def _resumed_arguments(args):
    """The arguments of the run that --out names, with the new number of epochs if one is given."""
    if args.out is None:
        raise ValueError("--resume needs --out RUN, the run folder to continue")
    arguments = runs.read_config(args.out)["arguments"]
    given = [name for name in [*DEFAULTS, "data_dir"] if name != "epochs" and getattr(args, name) is not None]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"--resume takes the settings of {args.out}/config.json; leave out {options}")
    changes = {name: getattr(args, name) for name in ("epochs", "workers") if getattr(args, name) is not None}
    return {**arguments, **changes}


def _report_training(folder, history, pictures):
    """What the run reached, what lies in its folder, and what to do next."""
    last = history.rows[-1]
    print(
        f"\nafter {last['epoch']} epochs, {last['seconds']:.0f} s: validation loss {last['val_loss']:.2f} = "
        f"nll {last['val_nll']:.2f} + kl {last['val_kl']:.2f} nats per datum\n\n{folder}/"
    )
    files = {
        "config.json": "everything needed to repeat the run",
        "metrics.jsonl": "the numbers above, one line per epoch",
        "checkpoint.npz": "the model (VAE.load) and the state of its training",
        **pictures,
    }
    for name, description in files.items():
        print(f"    {name:20} {description}")
    print(f"\nnext: npvae evaluate {folder}")


# ------------------------------------------------------------------------------------------------- evaluate, sample


def evaluate(args):
    """`npvae evaluate`."""
    from npvae import data

    arguments = runs.read_config(args.run_folder)["arguments"]
    model, _ = runs.load_progress(args.run_folder)
    data_dir = arguments["data_dir"] if args.data_dir is None else args.data_dir
    dataset = data.load(arguments["data"], data_dir, progress=True)
    results = runs.measure(model, dataset, args.samples, args.seed, progress=True)
    if args.json:
        print(json.dumps({"run": str(args.run_folder), **results}, indent=2))
    else:
        print_results(args.run_folder, model, dataset, results)
    return 0


def print_results(run_folder, model, dataset, results):
    """The numbers of `runs.measure` as a table with units."""
    error, n_samples = results["elbo_standard_error"], results["log_likelihood_samples"]
    bits = results["bits_per_dimension"]
    print(f"run       {run_folder}, {model}")
    print(f"data      {dataset.description}")
    print(f"          measured on {results['rows']:,} validation rows; means per datum\n")
    print(f"ELBO              {results['elbo']:10.3f} nats  ± {error:.3f}, the noise of {results['elbo_samples']} z per datum")
    print(f"  nll             {results['nll']:10.3f} nats  −ELBO = nll + kl")
    print(f"  kl              {results['kl']:10.3f} nats")
    print(f"log p(x) at least {results['log_likelihood']:10.3f} nats  importance-weighted, {n_samples} samples per datum")
    print(f"bits per dimension{bits['elbo']:10.4f} bits  from the ELBO; {bits['log_likelihood']:.4f} from log p(x)")
    print(f"active units      {results['active_units']:6} of {model.n_latent}   Var(mu) over the data above 0.01\n")
    print("KL of each latent dimension, nats")
    widest = max(results["kl_per_dimension"])
    for i, kl in sorted(enumerate(results["kl_per_dimension"], 1), key=lambda item: -item[1]):
        print(f"    z_{i:<4} {kl:8.4f}  {'█' * round(40 * kl / widest) if widest > 0 else ''}")


def sample(args):
    """`npvae sample`."""
    from npvae import plots

    config = runs.read_config(args.run_folder)
    model, _ = runs.load_progress(args.run_folder)
    path = runs.free_path(Path(args.run_folder) / "draws.png") if args.out is None else Path(args.out)
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out must name a .png file; got {args.out}")
    if path.exists():
        raise FileExistsError(f"{path} exists already; name another file with --out")
    figure = plots.samples(model.sample(args.count, args.seed), config["image_shape"])
    plots.save(figure, path)
    print(f"{path}: {args.count} draws of {model}")
    return 0

