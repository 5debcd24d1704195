"""Every picture. Each function returns a matplotlib Figure, made without pyplot; `save` writes it, and `own_settings` keeps the
user's settings of Matplotlib out of it. Shapes: n rows, D data, L latent."""

import contextlib
import math
import os
import sys
from functools import partial
from threading import RLock

import numpy as np

try:  # a backend that is not installed would end the import, and nothing here draws on a screen
    chosen = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    import matplotlib
finally:
    os.environ |= {"MPLBACKEND": chosen} if chosen else {}
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from scipy.special import ndtri

from npvae.app.backward_flow import backward_flow as backward_flow
from npvae.app.drawing import TRAIN, VAL, coloured_scatter, grey_range, show_image, tile
from npvae.app.drift_pictures import drift as drift
from npvae.core.files import replace_file

if chosen:
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = chosen  # what it would be without us

MAX_POINTS = 5000  # in a scatter plot
N_RECONSTRUCTIONS, N_SAMPLES = 12, 64
N_CONDITIONS, N_DRAWS = 10, 10  # rows and columns of draws given a condition
SETTINGS = RLock()  # held while they are changed


@contextlib.contextmanager
def own_settings():
    """Within the block Matplotlib has the settings that it comes with, and the user's afterwards. With those, figures may need
    LaTeX that is not there, or show images upside down. They are the process's, so one thread at a time is in such a block."""
    with SETTINGS, style.context("default"):
        yield


def save(figure, path, dpi=150):
    """Write a figure, or what a function makes, as PNG, with `own_settings`: a function's figure is made with them, too."""
    with own_settings():
        figure = figure() if callable(figure) else figure
        replace_file(path, lambda file: figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight"))


def history(history, model):
    """Each of the model's Terms over the epochs, for training and validation rows; those that are always 0 are left out."""
    said, units = getattr(model, "terms_help", {}), getattr(model, "units", "")
    names = [name for name in model.Terms._fields if name == "loss" or np.any(history[f"train_{name}"])]
    figure = Figure(figsize=(10 * len(names) / 3 if len(names) > 1 else 4.5, 3.2), layout="constrained")
    for axes, name in zip(np.ravel(figure.subplots(1, len(names), squeeze=False)), names):
        for part, colour, label in [("train", TRAIN, "training"), ("val", VAL, "validation")]:
            values = history[f"{part}_{name}"]
            if not np.isnan(values).all():
                axes.plot(history["epoch"], values, color=colour, marker="o", ms=2, lw=1, label=label)
        axes.set(title=f"{name}, {said[name]}" if name in said else name, xlabel="epoch", ylabel=units)
        if len(history) >= 10:  # spread out the first epochs, in which most happens
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.set_xlim(0.5, len(history) + 0.5)  # else a single epoch has ticks at fractions of it
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def reconstructions(x, x_mean, image_shape=None, labels=None, label_name="label"):
    """Inputs x over their reconstructions E[x|z = mu(x)], both (n, D): images, or curves where rows are not images.

    labels (n,), if given, are printed above the inputs.
    """
    n = len(x)
    titles = [""] * n if labels is None else [f"{label:.3g}" for label in labels]
    if image_shape is None:
        return _reconstructed_curves(x, x_mean, titles)
    figure = Figure(figsize=(0.8 * n + 1, 2), layout="constrained")
    rows = figure.subplots(2, n, squeeze=False)
    for row, images, name in zip(rows, (x, x_mean), ("input", "reconstruction")):
        for axes, image in zip(row, images):
            show_image(axes, image.reshape(image_shape), *grey_range(x))
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, title in zip(rows[0], titles):
        axes.set_title(title, fontsize="small")
    if labels is not None:
        figure.suptitle(label_name, fontsize="small")
    return figure


def _reconstructed_curves(x, x_mean, titles):
    n_rows = math.ceil(len(x) / 4)
    figure = Figure(figsize=(10, 1.8 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, 4, squeeze=False, sharex=True)
    for i, axes in enumerate(grid.flat[: len(x)]):
        axes.plot(x[i], color="0.6", label="input")
        axes.plot(x_mean[i], color=VAL, lw=1, label="reconstruction")
        axes.set_title(titles[i], fontsize="small")
    for axes in grid.flat[len(x) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("data dimension")
    grid[0, 0].legend(frameon=False, fontsize="small")
    return figure


def samples_title(model):
    """What a picture of draws is called: a model with a latent variable draws z, and shows the mean of x."""
    return "E[x|z] for z drawn from the prior N(0, I)" if hasattr(model, "n_latent") else "draws of the model"


def samples(x, image_shape=None, title="draws of the model"):
    """Draws of a model, (n, D): a grid of images, points in the plane where D = 2, curves where rows are neither."""
    if image_shape is None:
        figure = Figure(figsize=(5, 4.6) if x.shape[1] == 2 else (7, 4), layout="constrained")
        axes = figure.subplots()
        if x.shape[1] == 2:
            axes.scatter(*x.T, s=6, lw=0, color=TRAIN)
            axes.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
            axes.set_aspect("equal", "datalim")
        else:
            axes.plot(x.T, lw=0.8, alpha=0.7)
            axes.set(xlabel="data dimension", ylabel="value", title=title)
        return figure
    columns = math.ceil(math.sqrt(len(x)))
    figure = Figure(figsize=(6, 6 * math.ceil(len(x) / columns) / columns + 0.4), layout="constrained")
    axes = figure.subplots()
    show_image(axes, tile(x, image_shape, columns), *grey_range(x))
    axes.set_title(title)
    return figure


def density(model, x, limits=None, n=200):
    """Rows x (n, 2), the model's density on a grid of n × n points, and as many draws: a Figure of three panels.

    limits: (low, high) of both axes; by default where the rows are.
    """
    low, high = limits or (x.min(), x.max())
    line = low + (high - low) * (np.arange(n) + 0.5) / n
    density = np.exp(model.log_likelihood(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))).reshape(n, n)
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    for panel, points, title in [(axes[0], x, "data"), (axes[2], model.sample(len(x), 0), "draws of the model")]:
        panel.plot(*points[:MAX_POINTS].T, ".", ms=1.5, color=TRAIN)
        panel.set_title(title)
    axes[1].imshow(density, origin="lower", extent=(low, high, low, high), cmap="viridis")
    axes[1].set_title("density of the model")
    for panel in axes:
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="$x_1$")
    axes[0].set_ylabel("$x_2$")
    return figure


def decoded_grid(model, image_shape, n=15, in_own_units=np.asarray):
    """E[x|z] over the plane of two latent dimensions, at n × n equal steps of the prior's cumulative probability.

    Each image stands for the same share of the prior: z = Φ⁻¹(u) for u = 1/2n, 3/2n, ... Kingma & Welling 2013, figure 4.
    in_own_units: from the model's units to those that are shown.
    """
    z_values = ndtri((np.arange(n) + 0.5) / n)
    z1, z2 = np.meshgrid(z_values, z_values[::-1])  # z2 grows upwards
    x_mean = in_own_units(model.decode(np.column_stack([z1.ravel(), z2.ravel()])))  # (n², 2) -> (n², D)
    height = 6.5 * np.clip(image_shape[0] / image_shape[1], 1 / 3, 3)  # also of images of a single row or column
    figure = Figure(figsize=(6.5, height + 0.4), layout="constrained")
    axes = figure.subplots()
    show_image(axes, tile(x_mean, image_shape, n, gap=0), *grey_range(x_mean))
    ticks = [0, (n - 1) // 2, n - 1]
    axes.set_xticks([(i + 0.5) * image_shape[1] - 0.5 for i in ticks], [f"{z_values[i]:.2f}" for i in ticks])
    axes.set_yticks([(n - i - 0.5) * image_shape[0] - 0.5 for i in ticks], [f"{z_values[i]:.2f}" for i in ticks])
    axes.set(xlabel="$z_1$ (equal steps of prior probability)", ylabel="$z_2$", title="E[x|z] over the latent plane")
    return figure


def latent_variable_pictures(model, x, dataset, kl=None):
    """What a model with encode, reconstruct and sample shows of itself on the rows x (n, D) of a dataset: (file name, what it
    shows, a function that makes the Figure) each. kl (L,): the mean KL of each latent dimension, where it has one."""
    shown = np.linspace(0, len(x) - 1, min(N_RECONSTRUCTIONS, len(x))).astype(int)
    labels = None if dataset.labels_val is None else dataset.labels_val[shown]
    image_shape, in_own_units = dataset.image_shape, dataset.in_own_units

    def images():
        pairs = in_own_units(x[shown]), in_own_units(model.reconstruct(x[shown]))
        return reconstructions(*pairs, image_shape, labels, dataset.label_name)

    def draws():
        return samples(in_own_units(model.sample(N_SAMPLES, 0)), image_shape, samples_title(model))

    def plane():
        encoded = model.encode(x)
        mu, axis = (encoded[0], "posterior mean of") if isinstance(encoded, tuple) else (encoded, "code")
        return latent_plane(mu, dataset.labels_val, dataset.label_name, kl, axis)

    pictures = [("reconstructions.png", "validation rows over their reconstructions", images)]
    if hasattr(model, "sample"):
        pictures.append(("samples.png", "draws from the model", draws))
    coloured = "" if labels is None else f", by {dataset.label_name}"
    pictures.append(("latent.png", f"validation rows in the latent plane{coloured}", plane))
    if hasattr(model, "sample") and model.n_latent == 2 and image_shape is not None:
        grid = partial(decoded_grid, model, image_shape, in_own_units=in_own_units)
        pictures.append(("grid.png", "what each point of the latent plane means", grid))
    return pictures


def conditional_pictures(model, x, condition, dataset, kl):
    """As `latent_variable_pictures`, of a conditional model on the rows x (n, D) and their conditions (n, C)."""
    shown = np.linspace(0, len(x) - 1, min(N_RECONSTRUCTIONS, len(x))).astype(int)
    labels = dataset.labels_val

    def images():
        rows = [x[shown], model.reconstruct(x[shown], condition[shown])]
        (given, image_shape), (rebuilt, _) = (dataset.whole_images(condition[shown], part) for part in rows)
        return reconstructions(given, rebuilt, image_shape, None if labels is None else labels[shown], dataset.label_name)

    def draws():
        return draws_by_condition(model, x, dataset)

    def plane():
        return latent_plane(model.encode(x, condition)[0], labels, dataset.label_name, kl)

    return [
        ("reconstructions.png", "validation rows over their reconstructions", images),
        ("samples.png", f"draws from the model given the {dataset.condition_name}", draws),
        ("latent.png", "validation rows in the latent plane", plane),
    ]


def draws_by_condition(model, x, dataset):
    """Draws of a conditional model, a row of them for each condition: for each class, or else for some rows of x (n, D), which
    are then shown before them."""
    are_classes = dataset.condition_val.ndim == 1
    n = min(N_CONDITIONS, dataset.n_condition if are_classes else len(x))
    conditions = dataset.conditions(n)
    repeated = np.repeat(conditions, N_DRAWS, axis=0)
    rows, image_shape = dataset.whole_images(repeated, model.sample(repeated, 0))
    title = f"E[x|z, {dataset.condition_name}], a row for each {dataset.condition_name}"
    if image_shape is None:
        return samples(rows, None, title)
    if not are_classes:
        originals, _ = dataset.whole_images(conditions, x[np.linspace(0, len(x) - 1, n).astype(int)])
        rows = np.hstack([originals[:, None], rows.reshape(n, N_DRAWS, -1)]).reshape(n * (N_DRAWS + 1), -1)
        title = f"first the datum, then E[x|z, {dataset.condition_name}]"
    columns = len(rows) // n
    figure = Figure(figsize=(6.5, 6.5 * n * image_shape[0] / (columns * image_shape[1]) + 0.5), layout="constrained")
    axes = figure.subplots()
    show_image(axes, tile(rows, image_shape, columns), *grey_range(rows))
    if are_classes:
        axes.set_yticks((np.arange(n) + 0.5) * (image_shape[0] + 1) - 1, [str(condition) for condition in conditions])
        axes.set_ylabel(dataset.condition_name)
    axes.set_title(title, fontsize="medium")
    return figure


def latent_plane(mu, labels=None, label_name="label", kl=None, axis="posterior mean of"):
    """Posterior means mu (n, L), or codes, in the plane of two latent dimensions, coloured by label (n,).

    Of more than two dimensions, those with the largest mean KL (kl, (L,) in nats; without it variance) are shown. One dimension
    is drawn against the label, or as a histogram. axis: what the coordinates are.
    """
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    keep = np.random.default_rng(0).permutation(len(mu))[:MAX_POINTS]  # in random order, so that no label hides another
    mu, labels = mu[keep], None if labels is None else np.asarray(labels)[keep]
    if mu.shape[1] == 1:
        if labels is None:
            axes.hist(mu[:, 0], bins=60, color=TRAIN)
            axes.set(xlabel=f"{axis} $z_1$", ylabel="rows")
        else:
            axes.scatter(mu[:, 0], labels, s=6, color=TRAIN, alpha=0.6, lw=0)
            axes.set(xlabel=f"{axis} $z_1$", ylabel=label_name)
        return figure
    first, second = (0, 1) if mu.shape[1] == 2 else np.sort(np.argsort(mu.var(axis=0) if kl is None else kl)[-2:])
    coloured_scatter(figure, axes, mu[:, first], mu[:, second], labels, label_name)
    largest = "variance" if kl is None else "KL"
    note = "" if mu.shape[1] == 2 else f" (the two of {mu.shape[1]} dimensions with the largest {largest})"
    axes.set(xlabel=f"{axis} $z_{{{first + 1}}}$", ylabel=f"{axis} $z_{{{second + 1}}}$")
    axes.set_title(f"The latent plane{note}", fontsize="medium")
    axes.set_aspect("equal", "datalim")
    return figure
