"""The page of `npvae explore`: a latent space to move through, as one HTML file that needs nothing else.

The decoder's weights stand in the page, and plain JavaScript decodes z wherever the pointer is. The page itself, with its
styles and code, is explore.html; what is filled in here is its title and the run as JSON, arrays as base64 of little-endian
float32.

Shapes: n rows, D data, L latent, C condition, K conditions to choose from.
"""

import base64
import html
import json
from importlib import resources
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from npvae import ops
from npvae.app import commands, latent_pictures, run_folder
from npvae.app.drawing import MAX_LEGEND_LABELS, TRAIN, grey_range
from npvae.app.pictures import save_picture
from npvae.models import conditions
from npvae.models.likelihoods import LIKELIHOODS, likelihood_called
from npvae.ops.discrete import LOG_MAX, LOG_MIN

MAX_POINTS = 3000  # dots in the plane
MAX_WEIGHTS = 2**24  # of the decoder: a page of 90 MB, redrawn in about 50 ms (one of 6 MB, a million weights, in 3 ms)
N_CONDITIONS = 10  # to choose from, where the condition is no class
N_COLOURS = 32  # of the colour bar
AGREEMENT = 1e-4  # of the spread of E[x|z]


def explore(args):
    """`npvae explore`."""
    model, arguments, config = commands.trained_model(args)
    check(model)
    dataset = commands.data_of_run(args, arguments, config)
    index = shown_rows(dataset)
    batch = commands.validation_rows(model, dataset, 0, index)
    text = page(model, batch, index, dataset, str(args.run_folder))
    path = run_folder.write_new(args.out, Path(args.run_folder) / "explore.html", lambda file: file.write(text.encode()))
    print(f"{path}: the latent space of {model}, to be opened in a browser ({path.stat().st_size / 1e6:.1f} MB)")
    if args.pictures:
        for name, description, figure in latent_pictures.pictures(model, batch, dataset):
            picture = run_folder.new_file(None, path.with_name(f"{path.stem}-{name}.png"))
            save_picture(picture, figure)
            print(f"{picture}: {description}")
    return 0


def check(model):
    """ValueError for a model whose latent space cannot be explored: without encode and decode, without layers that make up the
    decoder, or with too many weights for a page."""
    kind = type(model).__name__
    for name in ("encode", "decode"):
        if not hasattr(model, name):
            raise ValueError(f"a model of class {kind} has no method {name}, and so no latent space to explore")
    is_known = hasattr(model, "decoder") and getattr(model, "likelihood", None) in LIKELIHOODS
    if not is_known or any(len(layer) != 3 for layer in model.decoder):
        raise ValueError(f"the decoder of a model of class {kind} is not known: a page needs `decoder`, dense layers "
                         f"(W, b, activation), and `likelihood`, one of {', '.join(LIKELIHOODS)}")  # fmt: skip
    n_weights = sum(W.size for W, _, _ in model.decoder)
    if n_weights > MAX_WEIGHTS:
        raise ValueError(f"the decoder has {n_weights:,} weights, and a page holds at most {MAX_WEIGHTS:,}")


def shown_rows(dataset):
    """Indices of the validation rows that the page shows as dots: at most MAX_POINTS, in random order, so that no label hides
    another."""
    return np.random.default_rng(0).permutation(len(dataset.x_val))[:MAX_POINTS]


def page(model, batch, index, dataset, name):
    """The HTML of a page that explores a model, which `check` has passed.

    batch   (x,) or (x, condition): n rows of model input, the dots of the plane
    index   (n,) which validation rows of the dataset these are
    name    of the run; it stands in the title
    """
    run = {"name": name, **_texts(model, len(batch[0]), dataset), **_decoder(model), **_conditions(model, dataset),
           **_shown(model, batch, dataset), **_points(model, batch, index, dataset)}  # fmt: skip
    check_decoder(model, run["conditions"])
    run["conditions"] = encoded(run["conditions"])
    text = resources.files("npvae.app").joinpath("explore.html").read_text(encoding="utf-8")
    # < would end the script of the page, were it part of a </script> in a name
    data = json.dumps(run, allow_nan=False).replace("<", "\\u003c")
    before, rest = text.split("{{title}}")
    between, after = rest.split("{{run}}")
    return "".join([before, html.escape(f"npvae explore: {name}"), between, data, after])


def encoded(array):
    """An array as base64 of its float32, rows one after the other."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4")).decode()


def check_decoder(model, condition):
    """ValueError where `decode` is not what the page computes from `decoder` and `likelihood`, as may be in a model of the
    user's own. condition (K, C), C = 0 for a model that takes none."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((8, model.n_latent)).astype(model.theta.dtype)
    condition = condition[rng.integers(len(condition), size=len(z))]
    output, _ = ops.mlp_forward(np.hstack([z, condition]), model.decoder)  # (8, L + C) -> (8, ·)
    expected = likelihood_called(model.likelihood).mean(output)
    x_mean = model.decode(z, condition) if condition.size else model.decode(z)
    if x_mean.shape != expected.shape or np.abs(x_mean - expected).max() > AGREEMENT * max(1, np.ptp(expected)):
        raise ValueError(f"decode of the class {type(model).__name__} is not what its decoder and likelihood "
                         f"{model.likelihood!r} give, and a page knows nothing else of it")  # fmt: skip


def _texts(model, n, dataset):
    """What the page is about, in words."""
    what = "posterior means" if hasattr(model, "sample") else "codes"
    colour = "" if dataset.labels_val is None else f", coloured by {dataset.label_name}"
    return {"model": str(model), "data": dataset.description, "dots": f"{what} of {n:,} validation rows{colour}"}


def _decoder(model):
    """The decoder: its layers, its likelihood and what that needs."""
    layers = [{"W": encoded(W), "b": encoded(b), "activation": activation} for W, b, activation in model.decoder]
    return {"layers": layers, "likelihood": model.likelihood, "log_bounds": [LOG_MIN, LOG_MAX], "n_features": model.n_features,
            "n_latent": model.n_latent}  # fmt: skip


def _conditions(model, dataset):
    """The conditions (K, C) that the user chooses from, and the prior p(z|condition) of each; one of C = 0 for a model that
    takes none. The prior is None for a model that has none."""
    names, title, given = [""], "", np.zeros((1, 0), model.theta.dtype)
    if getattr(model, "takes_condition", False):
        are_classes, title = dataset.condition_val.ndim == 1, dataset.condition_name
        n = dataset.n_condition if are_classes else min(N_CONDITIONS, len(dataset.condition_val))
        names = [f"{i}" if are_classes else f"{i + 1} of {n}" for i in range(n)]
        given = conditions.checked(model, dataset.conditions(n))
    return {"conditions": given, "condition_names": names, "condition_title": title, "prior": _prior(model, given)}


def _prior(model, given):
    """Mean and standard deviation (K, L) of the prior for each condition, None for a model that has no prior."""
    if not hasattr(model, "sample"):
        return None
    mean = np.zeros((len(given), model.n_latent))
    logvar = np.zeros_like(mean)
    if getattr(model, "prior", "standard") == "learned":
        (mean, logvar), _ = ops.posterior_forward(model.prior_output(given).astype(np.float64))
    return {"mean": encoded(mean), "sd": encoded(np.exp(0.5 * logvar))}


def _shown(model, batch, dataset):
    """How E[x|z] is shown: as an image, a point of the plane or a curve, in the data's own units, and between which values."""
    rows, image_shape = dataset.whole_images(batch[1] if len(batch) > 1 else None, batch[0])  # (n, D) or (n, C + D)
    above = np.zeros((1, 0))
    if dataset.whole is not None:  # the upper half of each image, which is the condition
        given = dataset.conditions(min(N_CONDITIONS, len(dataset.condition_val)))
        images, _ = dataset.whole_images(given, np.zeros((len(given), model.n_features)))
        above = images[:, : given.shape[1]]
    scaling, D = dataset.scaling, model.n_features
    shift, factor = (0.0, 1.0) if scaling is None else scaling
    kind = "image" if image_shape is not None else "point" if D == 2 else "curve"
    return {"kind": kind, "image_shape": image_shape, "range": grey_range(rows), "above": encoded(above),
            "shift": encoded(np.broadcast_to(shift, D)), "factor": encoded(np.broadcast_to(factor, D)),
            "data_points": encoded(rows) if kind == "point" else ""}  # fmt: skip


def _points(model, batch, index, dataset):
    """The dots: where they are, their numbers as rows of the data, labels and colours, and how much each dimension is used."""
    labels = None if dataset.labels_val is None else dataset.labels_val[index]
    rows = index if dataset.numbers_val is None else dataset.numbers_val[index]
    used, name = latent_pictures.usage(model, batch)
    most = np.sort(np.argsort(used)[-2:]).tolist()  # the dimensions of the plane
    return {"mu": encoded(latent_pictures.codes(model, batch)), "rows": rows.tolist(), "plane": most, "usage_name": name,
            "usage": [round(float(value), 4) for value in used], "labels": _labels(labels, dataset.label_name)}  # fmt: skip


def _labels(labels, name):
    """The labels of the dots as numbers, and the colours: one for each of a few distinct whole numbers, else from low to
    high."""
    if labels is None:
        return {"name": "", "values": "", "classes": None, "colours": [TRAIN]}
    distinct = np.unique(labels)
    if len(distinct) <= MAX_LEGEND_LABELS and labels.dtype.kind in "iub":
        values, classes = np.searchsorted(distinct, labels), [str(int(label)) for label in distinct]
        colours = colormaps["tab10"](np.arange(len(distinct)))
    else:
        values, classes, colours = labels, None, colormaps["viridis"](np.linspace(0, 1, N_COLOURS))
    colours = ["#" + bytes(int(255 * value + 0.5) for value in colour[:3]).hex() for colour in colours]
    return {"name": name, "values": encoded(values), "classes": classes, "colours": colours}
