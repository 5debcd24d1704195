"""The picture of a drift that makes a ground state: where its walkers are, where it pulls them, and how they go.

Of one coordinate everything is drawn against it. Of two particles on a line the plane has one axis for each. Else it is a plane
through the origin, of two dimensions of each particle: the last and the first, so that a molecule lies along the horizontal
axis. Shapes: n walkers, N particles, d dimensions, T steps, M points of a side of the grid.
"""

import numpy as np
from matplotlib.figure import Figure

from npvae.app.drawing import TRAIN, VAL

N_WALKERS, N_LINES, LINE_TIME = 4000, 5, 4.0  # behind the density; of the paths, and how long they are in the system's unit
M, BINS = 20, 60  # an even number: at the origin, where a nucleus may be, there is no drift
COLOURS = (TRAIN, VAL, "#228833", "#ccbb44")  # of particles
INSIDE = 0.995  # of the coordinates are within the picture


def drift(model, seed=0, figure=None):
    """Density, drift and paths of a trained `npvae.models.Drift` in three panels: of `figure`, if given, else of a new one."""
    rng = np.random.default_rng(seed)
    r = model.sample(N_WALKERS, rng)  # (n, N d)
    n_steps = max(1, round(LINE_TIME / model.dt))
    eps = rng.standard_normal((n_steps, N_LINES, r.shape[1])).astype(r.dtype)
    (states, *_), _ = model.paths_forward(r[:N_LINES], eps, model.network(model.parameters), keep=range(1, n_steps + 1))
    times = model.dt * np.arange(1, n_steps + 1)
    figure = Figure(figsize=(11, 3.7), layout="constrained") if figure is None else figure
    panels = figure.subplots(1, 3)
    (on_a_line if r.shape[1] == 1 else in_a_plane)(model, r, times, states, panels)
    panels[0].set_title("where the walkers are", fontsize=10)
    return figure


def on_a_line(model, r, times, states, panels):
    """Of walkers r (n, 1): histogram, drift with the base beside it, places over the time; states (T, lines, 1)."""
    places, field, paths = panels
    edge = 1.1 * np.quantile(np.abs(r), INSIDE)
    x = np.linspace(-edge, edge, 201)
    places.hist(r[:, 0], np.linspace(-edge, edge, BINS + 1), density=True, color=TRAIN, alpha=0.5)
    field.plot(x, model.drift(x[:, None])[:, 0], color=TRAIN, label="learned")
    field.plot(x, model.physics.base.forward(x[:, None], 0.0, model.physics.base.parameters)[0][:, 0], "--", color="#999999",
               lw=1, label="known before")  # fmt: skip
    field.legend(frameon=False, fontsize=8)
    field.set_title("drift v", fontsize=10)
    paths.plot(times, states[:, :, 0], lw=0.7)
    paths.set(xlabel="time", ylabel="x", ylim=(-edge, edge))
    paths.set_title(f"paths of {N_LINES} walkers", fontsize=10)
    for axes in (places, field):
        axes.set(xlabel="x", xlim=(-edge, edge))


def in_a_plane(model, r, times, states, panels):
    """Of walkers r (n, N d): where the particles are, the drift of the first while the others rest, the way of one walker."""
    physics = model.physics
    N, d = (1, 2) if physics.n_dimensions == 1 else (physics.n_particles, physics.n_dimensions)
    across, up = (0, 1) if d == 2 else (d - 1, 0)  # columns of a particle
    labels = ("$x_1$", "$x_2$") if physics.n_dimensions == 1 else ("x", "y") if d == 2 else ("z", "x")
    places = r[:, : N * d].reshape(len(r), N, d)[:, :, [across, up]]  # (n, N d) -> (n, N, 2)
    edge = 1.1 * np.quantile(np.abs(places), INSIDE)
    apart = N > 1 and not physics.positions
    density(panels[0], seen_from_each(places) if apart else places, labels)
    arrows(model, typical(r, N, d, across, up), (across, up), edge, panels[1])
    way = states[:, 0, : N * d].reshape(len(times), N, d)
    for i in range(N):
        panels[2].plot(way[:, i, across], way[:, i, up], color=COLOURS[i % len(COLOURS)], lw=0.6)
    panels[2].set_title(f"one walker for a time of {times[-1]:g}", fontsize=10)
    for axes in panels:
        for place in physics.positions:
            axes.plot(place[across], place[up], "k+", ms=8)
    for axes in panels[1:] if apart else panels:
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")


def seen_from_each(places):
    """Where the others are, seen from each particle: places (n, N, 2) -> (n, N (N − 1), 2)."""
    first, second = np.nonzero(~np.eye(places.shape[1], dtype=bool))
    return places[:, second] - places[:, first]


def density(axes, places, labels):
    """How often each place of (n, m, 2) is taken; shades are square roots, so that rare places are seen."""
    edge = 1.1 * np.quantile(np.abs(places), INSIDE)
    counts, _, _ = np.histogram2d(*places.reshape(-1, 2).T, np.linspace(-edge, edge, BINS + 1))
    axes.imshow(counts.T**0.5, origin="lower", extent=(-edge, edge, -edge, edge), cmap="Blues")
    axes.set(xlabel=f"{labels[0]} of another, seen from a particle", ylabel=labels[1])


def typical(r, N, d, across, up):
    """A walker (N d,) in the plane, its particles but the first at distances from the origin that are near the mean."""
    others = r.reshape(len(r), -1, d)[:, 1:N, [across, up]]  # (n, N − 1, 2)
    if N == 1:
        return np.zeros(r.shape[1], r.dtype)
    distances = np.sqrt((others**2).sum(axis=2))  # (n, N − 1)
    chosen = np.argmin(((distances - distances.mean()) ** 2).sum(axis=1))
    walker = np.zeros((r.shape[1] // d, d), r.dtype)
    walker[1:N, across], walker[1:N, up] = others[chosen].T
    return walker.reshape(-1)


def arrows(model, walker, columns, edge, axes):
    """The drift of the first particle on a grid, the others where `walker` (N d,) has them: an arrow's colour is its length."""
    x, y = (a.reshape(-1) for a in np.meshgrid(*2 * [np.linspace(-0.95 * edge, 0.95 * edge, M)]))
    r = np.repeat(walker[None], M * M, axis=0)  # (M², N d)
    r[:, columns[0]], r[:, columns[1]] = x, y
    v = model.drift(r)[:, columns]  # (M², 2)
    size = np.sqrt((v**2).sum(axis=1))
    shown = v / np.maximum(size, np.quantile(size, 0.5))[:, None]  # the weaker half in its true proportions
    drawn = axes.quiver(x, y, *shown.T, size, cmap="viridis", clim=(0, np.quantile(size, 0.98)), pivot="mid", scale=M,
                        width=0.005)  # fmt: skip
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, label="|v|")
    d = model.physics.n_dimensions
    others = walker.reshape(-1, d)[1:] if d > 1 else ()
    for place, colour in zip(others, COLOURS[1:]):
        axes.plot(place[columns[0]], place[columns[1]], "o", color=colour, ms=7)
    of = "the first particle, the others rest" if len(others) else "the walker"
    axes.set_title(f"drift of {of}", fontsize=10)
