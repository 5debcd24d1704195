"""Every picture. Each function returns a matplotlib Figure, made without pyplot, so nothing global is touched; `save` writes
it. Shapes: n rows, D data, L latent."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from scipy.special import ndtri

TRAIN, VAL = "#4477aa", "#ee6677"
FRAME = "#a9bcd0"  # around and between images
GREY = colormaps["gray"].with_extremes(bad=FRAME)
MAX_LEGEND_LABELS = 10  # more distinct labels than this get a colour bar
MAX_POINTS = 5000  # in a scatter plot


def save(figure, path, dpi=150):
    """Write the figure as PNG."""
    figure.savefig(path, dpi=dpi, bbox_inches="tight")


def loss_curves(history):
    """Loss, nll and kl of every epoch, for training and validation rows, in nats."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    titles = {"loss": "loss, what is minimised", "nll": "nll, reconstruction", "kl": "kl, posterior against prior"}
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items()):
        for part, colour, label in [("train", TRAIN, "training"), ("val", VAL, "validation")]:
            values = history[f"{part}_{name}"]
            if not np.isnan(values).all():
                axes.plot(history["epoch"], values, color=colour, marker="o", ms=2, lw=1, label=label)
        axes.set(title=title, xlabel="epoch", ylabel="nats per datum")
        if len(history) >= 10:  # spread out the first epochs, in which most happens
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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


def samples(x_mean, image_shape=None):
    """E[x|z] for draws z ~ N(0, I), (n, D): a grid of images, or curves where rows are not images."""
    if image_shape is None:
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(x_mean.T, lw=0.8, alpha=0.7)
        axes.set(xlabel="data dimension", ylabel="E[x|z]", title="E[x|z] for z drawn from the prior N(0, I)")
        return figure
    columns = math.ceil(math.sqrt(len(x_mean)))
    figure = Figure(figsize=(6, 6 * math.ceil(len(x_mean) / columns) / columns + 0.4), layout="constrained")
    axes = figure.subplots()
    show_image(axes, tile(x_mean, image_shape, columns), *grey_range(x_mean))
    axes.set_title("E[x|z] for z drawn from the prior N(0, I)")
    return figure


def decoded_grid(model, image_shape, n=15):
    """E[x|z] over the plane of two latent dimensions, at n × n equal steps of the prior's cumulative probability.

    Each image stands for the same share of the prior: z = Φ⁻¹(u) for u = 1/2n, 3/2n, ... Kingma & Welling 2013, figure 4.
    """
    z_values = ndtri((np.arange(n) + 0.5) / n)
    z1, z2 = np.meshgrid(z_values, z_values[::-1])  # z2 grows upwards
    x_mean = model.decode(np.column_stack([z1.ravel(), z2.ravel()]))  # (n², 2) -> (n², D)
    figure = Figure(figsize=(6.5, 6.5 * image_shape[0] / image_shape[1] + 0.4), layout="constrained")
    axes = figure.subplots()
    show_image(axes, tile(x_mean, image_shape, n, gap=0), *grey_range(x_mean))
    ticks = [0, (n - 1) // 2, n - 1]
    axes.set_xticks([(i + 0.5) * image_shape[1] - 0.5 for i in ticks], [f"{z_values[i]:.2f}" for i in ticks])
    axes.set_yticks([(n - i - 0.5) * image_shape[0] - 0.5 for i in ticks], [f"{z_values[i]:.2f}" for i in ticks])
    axes.set(xlabel="$z_1$ (equal steps of prior probability)", ylabel="$z_2$", title="E[x|z] over the latent plane")
    return figure


def latent_plane(mu, labels=None, label_name="label", kl=None):
    """Posterior means mu (n, L) in the plane of two latent dimensions, coloured by label (n,).

    Of more than two dimensions, those with the largest mean KL (kl, (L,) in nats) are shown. One dimension is drawn against
    the label, or as a histogram.
    """
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    keep = np.random.default_rng(0).permutation(len(mu))[:MAX_POINTS]  # in random order, so that no label hides another
    mu, labels = mu[keep], None if labels is None else np.asarray(labels)[keep]
    if mu.shape[1] == 1:
        if labels is None:
            axes.hist(mu[:, 0], bins=60, color=TRAIN)
            axes.set(xlabel="posterior mean of $z_1$", ylabel="rows")
        else:
            axes.scatter(mu[:, 0], labels, s=6, color=TRAIN, alpha=0.6, lw=0)
            axes.set(xlabel="posterior mean of $z_1$", ylabel=label_name)
        return figure
    first, second = (0, 1) if mu.shape[1] == 2 else np.sort(np.argsort(mu.var(axis=0) if kl is None else kl)[-2:])
    coloured_scatter(figure, axes, mu[:, first], mu[:, second], labels, label_name)
    note = "" if mu.shape[1] == 2 else f" (the two of {mu.shape[1]} dimensions with the largest KL)"
    axes.set(xlabel=f"posterior mean of $z_{{{first + 1}}}$", ylabel=f"posterior mean of $z_{{{second + 1}}}$")
    axes.set_title(f"The latent plane{note}", fontsize="medium")
    axes.set_aspect("equal", "datalim")
    return figure


def coloured_scatter(figure, axes, x, y, labels, label_name):
    """Points coloured by label: a legend for a few distinct whole numbers, a colour bar for quantities."""
    style = {"s": 6, "lw": 0, "alpha": 0.8}
    if labels is None:
        axes.scatter(x, y, color=TRAIN, **style)
        return
    distinct = np.unique(labels)
    if len(distinct) <= MAX_LEGEND_LABELS and labels.dtype.kind in "iub":
        for i, label in enumerate(distinct):
            points = labels == label
            axes.scatter(x[points], y[points], color=colormaps["tab10"](i), label=str(label), **style)
        axes.legend(title=label_name, frameon=False, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        points = axes.scatter(x, y, c=labels, cmap="viridis", **style)
        figure.colorbar(points, ax=axes, label=label_name).solids.set_alpha(1)


def tile(images, image_shape, columns, gap=1):
    """Images (n, D) side by side in one array, `gap` pixels of NaN (drawn in FRAME) between them."""
    rows = math.ceil(len(images) / columns)
    height, width = image_shape[0] + gap, image_shape[1] + gap
    canvas = np.full((rows * height - gap, columns * width - gap), np.nan)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        canvas[top : top + image_shape[0], left : left + image_shape[1]] = image.reshape(image_shape)
    return canvas


def show_image(axes, image, low, high):
    """A grey image in a thin frame, so that white ones show on white paper."""
    axes.imshow(image, cmap=GREY, vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FRAME)


def grey_range(x):
    """What is drawn black and white: 0 and 1 for values within them, else the extremes."""
    low, high = float(np.min(x)), float(np.max(x))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
