"""Pictures of a latent space: what each of its dimensions does to a datum, what lies between two data, what each is used for.

As in `plots` each function returns a matplotlib Figure. A model is given by its `decode`, (n, L) -> (n, D). Shapes: n steps or
rows, L latent, D data.
"""

from functools import partial

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from npvae.app.drawing import TRAIN, grey_range, show_image, tile
from npvae.models import evaluate

PARALLEL = 1e-6  # sine of the angle between two directions below which there is no plane through both
N_DIMENSIONS = 10  # rows of traversals: those that are used most
N_PAIRS, N_STEPS = 4, 9


def codes(model, batch):
    """Where the rows of a batch lie in latent space, (n, L): posterior means, or the codes of a model without noise."""
    encoding = model.encode(*batch)
    return encoding[0] if isinstance(encoding, tuple) else encoding


def usage(model, batch):
    """How much each latent dimension is used, (L,), and what that is: the mean KL in nats, or the variance of the codes."""
    if hasattr(model, "infer"):
        return evaluate.kl_per_dimension(model, batch), "KL"
    return codes(model, batch).var(axis=0), "variance"


def pictures(model, batch, dataset):
    """The pictures of a model on a batch of validation rows: (name, what it shows, a function that makes the Figure) each.

    A conditional model decodes with the condition of the first row.
    """
    mu, (used, name) = codes(model, batch), usage(model, batch)
    given = [array[:1] for array in batch[1:]]

    def decode(z):
        return model.decode(z, *(np.repeat(condition, len(z), axis=0) for condition in given))

    def in_own_units(x):
        return dataset.whole_images(np.repeat(given[0], len(x), axis=0) if given else None, x)[0]

    shape = dataset.image_shape if dataset.whole is None else dataset.whole.image_shape
    most = np.argsort(-used, kind="stable")[:N_DIMENSIONS]
    values = None  # without a prior: where the codes are
    if not hasattr(model, "sample"):
        values = np.linspace(mu.min(axis=0), mu.max(axis=0), N_STEPS).T[most]  # (N_STEPS, L) -> (rows, N_STEPS)
    n_pairs = min(N_PAIRS, len(mu) // 2)
    yield ("traversals", "E[x|z] along one latent dimension after the other",
           partial(traversals, decode, mu[0], most, shape, values, in_own_units))  # fmt: skip
    if n_pairs:
        pairs = mu[: 2 * n_pairs].reshape(n_pairs, 2, -1)
        yield ("interpolations", "E[x|z] on the way from one datum to another",
               partial(interpolations, decode, pairs, shape, in_own_units))  # fmt: skip
    yield ("usage", "how much each latent dimension is used",
           partial(usage_bars, used, "mean KL, nats" if name == "KL" else "variance of the code"))  # fmt: skip


def linear_path(start, end, n):
    """n points (n, L) at equal steps of the straight line from start (L,) to end (L,)."""
    t = np.linspace(0, 1, n)[:, None]  # (n, 1)
    return (1 - t) * start + t * end


def spherical_path(start, end, n):
    """n points (n, L) from start (L,) to end (L,) at equal steps of the angle between them. White 2016, "Sampling Generative
    Networks", section 2.

    z(t) = (sin((1 − t) Ω) start + sin(t Ω) end)/sin Ω, with Ω the angle between the two as seen from 0. Where z has many
    dimensions nearly all of the prior lies at a distance of about √L from 0. Points at that distance keep it along this path,
    while the straight line comes as near as √(L/2). Parallel or opposite ones, 0, and a single dimension have no such path: the
    straight one is returned.
    """
    lengths = np.linalg.norm(start) * np.linalg.norm(end)
    angle = np.arccos(np.clip(start @ end / lengths, -1, 1)) if lengths > 0 else 0.0
    if np.sin(angle) < PARALLEL:
        return linear_path(start, end, n)
    t = np.linspace(0, 1, n)[:, None]  # (n, 1)
    return (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)


def traversals(decode, z, dimensions, image_shape=None, values=None, in_own_units=np.asarray):
    """E[x|z] while one latent dimension after the other goes through `values` and the others stay as in z (L,).

    dimensions: which ones, a row of images or a panel of curves each; values (n,), or (rows, n) from the lowest to the highest
    of each dimension, by default −3 to 3, where a standard normal prior has 99.7 % of its mass. in_own_units: from the model's
    units to those that are shown.
    """
    values = np.linspace(-3, 3, N_STEPS) if values is None else np.asarray(values)
    n = values.shape[-1]
    path = np.tile(np.asarray(z, np.float64), (len(dimensions), n, 1))  # (rows, n, L)
    for row, dimension in enumerate(dimensions):
        path[row, :, dimension] = values if values.ndim == 1 else values[row]
    x_mean = in_own_units(decode(path.reshape(-1, path.shape[-1]))).reshape(*path.shape[:2], -1)  # -> (rows, n, D)
    names, title = [f"$z_{{{dimension + 1}}}$" for dimension in dimensions], "E[x|z] along one latent dimension"
    if values.ndim == 1:
        numbers, name = [f"{value:.3g}" for value in values], "value of $z$"
    else:
        values, numbers = np.linspace(0, 1, n), ["lowest", *[""] * (n - 2), "highest"]
        name = "from the lowest to the highest value of $z$"
    if image_shape:
        return _rows_of_images(x_mean, image_shape, names, numbers, name, title)
    return _curves(x_mean, names, values, name, title)


def interpolations(decode, pairs, image_shape=None, in_own_units=np.asarray, n=N_STEPS):
    """E[x|z] on the straight and on the spherical path between the two points of each pair, pairs (k, 2, L): two rows of images
    or panels of curves each, of n steps."""
    pairs = np.asarray(pairs, np.float64)
    paths = np.stack([path(*pair, n) for pair in pairs for path in (linear_path, spherical_path)])  # (2k, n, L)
    x_mean = in_own_units(decode(paths.reshape(-1, paths.shape[-1]))).reshape(len(paths), n, -1)  # -> (2k, n, D)
    names = ["linear", "spherical"] * len(pairs)
    share, title = np.linspace(0, 1, n), "E[x|z] on the way from one z to another"
    if image_shape:
        return _rows_of_images(x_mean, image_shape, names, [f"{t:.2g}" for t in share], "share of the way", title)
    return _curves(x_mean, names, share, "share of the way", title)


def usage_bars(used, name="mean KL, nats"):
    """How much each latent dimension is used, in falling order: used (L,), its KL in nats, or what `name` says."""
    used = np.asarray(used)
    order = np.argsort(-used, kind="stable")
    figure = Figure(figsize=(max(3.5, min(0.32 * len(used) + 1.2, 12)), 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(used)), used[order], color=TRAIN)
    step = -(-len(used) // 40)  # names that do not touch
    axes.set_xticks(range(0, len(used), step), [f"$z_{{{l + 1}}}$" for l in order[::step]], fontsize="small")
    axes.set(xlabel="latent dimension", ylabel=name, xlim=(-0.7, len(used) - 0.3))
    axes.set_title(f"{used.sum():.3g} in all", fontsize="medium")
    axes.grid(axis="y", alpha=0.3)
    return figure


def _rows_of_images(x, image_shape, names, numbers, numbers_name, title):
    """Images x (rows, n, D), each row with its name on the left, and each column with its number below."""
    n_rows, n = x.shape[:2]
    height, width = image_shape[0] + 1, image_shape[1] + 1  # with the line between images
    figure = Figure(figsize=(7, min(7 * n_rows * height / (n * width), 40) + 0.8), layout="constrained")
    axes = figure.subplots()
    show_image(axes, tile(x.reshape(n_rows * n, -1), image_shape, n), *grey_range(x))
    axes.set_xticks((np.arange(n) + 0.5) * width - 1, numbers)
    axes.set_yticks((np.arange(n_rows) + 0.5) * height - 1, names)
    axes.tick_params(length=0)
    axes.set_xlabel(numbers_name)
    axes.set_title(title, fontsize="medium")
    return figure


def _curves(x, names, values, values_name, title):
    """Curves x (rows, n, D), or points where D = 2, a panel for each row, coloured by `values` (n,)."""
    colouring = ScalarMappable(Normalize(values[0], values[-1]), "viridis")
    colours, are_points = colouring.to_rgba(values), x.shape[2] == 2
    columns = min(len(x), 3)
    n_rows = -(-len(x) // columns)
    figure = Figure(figsize=(max(4, 3.2 * columns), 2.2 * n_rows + 0.6), layout="constrained")
    grid = figure.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, curves, name in zip(grid.flat, x, names):
        if are_points:
            axes.scatter(*curves.T, c=colours, s=14)
        else:
            for curve, colour in zip(curves, colours):
                axes.plot(curve, color=colour, lw=1)
        axes.set_title(name, fontsize="medium")
    for axes in grid.flat[len(x) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("$x_1$" if are_points else "data dimension")
    for axes in grid[:, 0]:
        axes.set_ylabel("$x_2$" if are_points else "value")
    figure.colorbar(colouring, ax=grid, label=values_name)
    figure.suptitle(title, fontsize="medium")
    return figure
