"""Energy-based models in the plane: how near they come to the entropy by two objectives, and what makes training diverge.

    python examples/energy_model.py [--only NAME ...] [--epochs N] [--out energy_model.png]

1. For each density, trained by contrastive divergence and by score matching, what is missing to the truth, as the lecture's

       KL(f ‖ p) = ⟨log f⟩ + ⟨E⟩ + log Z,

   over 10,000 test rows of the density f, which is known (`npvae.data.toy`). Z is a sum over a grid. Beside it the error of the
   grid and the share of Langevin steps that the Metropolis test lets through.
2. Of the first density the same numbers epoch by epoch, with one thing changed at a time:

   α = 0                 no regularisation: nothing holds the energies, but 20 Langevin steps let the samples keep up
   5 steps, α = 0        they do not: the buffer holds no samples of the model any more, so that the two phases do not come to
                         rest. Wells get deeper and deeper, and the deeper they are the fewer proposals are accepted
   5 steps               the same with α = 0.01: the squared energies hold it, at a wrong place
   5 steps from noise    unadjusted ones from N(0, I) each time. What is trained to look like data is what these steps make of
                         noise, and the energy is not that of the data
   score matching, silu  a network that has no bound. Where there are no data nothing is asked of the score, and the energy may
                         fall there. tanh is bounded, and the confinement ½ ‖x‖² does the rest
3. The picture: data, −log p and draws of the models of 1; below, the curves of 2 and −log p of what has gone wrong.
"""

import argparse
import math
import time

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.data import toy
from npvae.models import EnergyModel
from npvae.training.schedules import Cosine

NAMES = ("moons", "ring", "checkerboard", "funnel")
N_TRAIN, N_TEST, BATCH_SIZE, EPOCHS = 100_000, 10_000, 500, 15
LEARNING_RATES = {"contrastive": 2e-3, "score": 3e-3}
OBJECTIVES = {"contrastive": "contrastive divergence", "score": "score matching"}
EDGES = {"checkerboard"}  # where the density jumps: a wider network, less noise
SHARP = {"hidden": (256, 256)}, {"noise_scale": 0.03}
CHANGES = {  # name -> objective, of the constructor, of the training
    "as above": ("contrastive", {}, {}),
    "α = 0": ("contrastive", {}, {"alpha": 0.0}),
    "5 steps, α = 0": ("contrastive", {"n_langevin": 5}, {"alpha": 0.0}),
    "5 steps": ("contrastive", {"n_langevin": 5}, {}),
    "5 steps from noise": ("contrastive", {"n_langevin": 5, "start": "noise", "sampler": "unadjusted"}, {}),
    "score matching": ("score", {}, {}),
    "score matching, silu": ("score", {"activation": "silu"}, {}),
}
COLORS = ("#4477aa", "#66ccee", "#ee6677", "#ccbb44", "#aa3377", "#228833", "#222222")
LIMIT, FAR, DEEPEST = 3.2, 20.0, 8.0  # half widths of panels; nats of −log p that the colours span


def train(x, objective, epochs, on_epoch=None, changes=None, settings=None):
    """An energy-based model fitted to the rows x (n, 2)."""
    model = EnergyModel(2, **(changes or {}))
    steps = epochs * math.ceil(len(x) / BATCH_SIZE)
    optimizer = npvae.Adam(Cosine(LEARNING_RATES[objective], steps))
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=optimizer, max_gradient_norm=1.0, workers=1,
              progress=False, on_epoch=None if on_epoch is None else lambda state: on_epoch(model),
              objective=objective, **(settings or {}))  # fmt: skip
    return model


def divergence(model, test, log_f):
    """KL(f ‖ p) over test rows of f in nats, its standard error, and the Measures of the model."""
    found = {measure.name: measure.value for measure in model.measure(test)}
    missing = log_f + model.energy(test) + found["log_partition"]  # (n,)
    return missing.mean(), missing.std() / math.sqrt(len(missing)), found


def table(names, epochs):
    """Train and print a line for each density and objective; the models, name -> objective -> EnergyModel."""
    columns = f"{'⟨log f⟩':>9}{'⟨E⟩':>9}{'log Z':>8}{'KL(f ‖ p)':>18}{'of log Z':>10}{'taken':>7}{'seconds':>9}"
    print(f"{'nats':14}{'entropy':>8}  {'':23}{columns}")
    models = {}
    for name in names:
        x, test = toy.dataset_rows(name, N_TRAIN, N_TEST)
        log_f, models[name] = toy.log_density(name, test), {}
        for objective, called in OBJECTIVES.items():
            started = time.perf_counter()
            sharp = SHARP if name in EDGES and objective == "score" else ()
            model = models[name][objective] = train(x, objective, epochs, None, *sharp)
            seconds = time.perf_counter() - started
            kl, error, found = divergence(model, test, log_f)
            print(f"{name:14}{toy.entropy(name):8.4f}  {called:23}{log_f.mean():9.4f}{found['energy']:9.4f}"
                  f"{found['log_partition']:8.4f}{kl:10.4f} ±{error:.4f}{model.log_partition().error:10.0e}"
                  f"{found['acceptance']:7.2f}{seconds:9.0f}", flush=True)  # fmt: skip
    return models


def against_epochs(name, epochs):
    """For each of CHANGES the divergence after every epoch, and the model: name -> (array (epochs,), EnergyModel)."""
    x, test = toy.dataset_rows(name, N_TRAIN, N_TEST)
    log_f, found = toy.log_density(name, test), {}
    print(f"\n{name + ', changed':25}{'KL(f ‖ p) in nats, epoch by epoch':^{7 * epochs}}{'⟨E⟩':>9}{'taken':>7}")
    for change, (objective, changes, settings) in CHANGES.items():
        curve = []
        model = train(x, objective, epochs, lambda model: curve.append(divergence(model, test, log_f)), changes, settings)  # noqa: B023
        values, measures = np.array([kl for kl, *_ in curve]), curve[-1][-1]
        print(f"{change:25}" + "".join(f"{kl:7.3f}" for kl in values)
              + f"{measures['energy']:9.1f}{measures['acceptance']:7.2f}", flush=True)  # fmt: skip
        found[change] = values, model
    return found


def surface(axes, model, limit=LIMIT):
    """−log p on a grid, in the square of this half width."""
    line = limit * (2 * (np.arange(250) + 0.5) / 250 - 1)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    depth = -model.log_likelihood(grid).reshape(250, 250)
    return axes.imshow(depth, origin="lower", extent=(-limit, limit) * 2, cmap="viridis_r", vmin=0.0, vmax=DEEPEST)


def bare(axes, limit=LIMIT):
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])


def draw(models, changed):
    """Models of each density in rows; below, the curves, and two of the models that went wrong."""
    n = len(models)
    figure = Figure(figsize=(10, 2.0 * n + 3.9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.0 * n, 3.7))
    panels = above.subplots(n, 5, squeeze=False)
    titles = ("data", "−log p, contrastive", "draws", "−log p, score matching", "draws")
    for title, axes in zip(titles, panels[0]):
        axes.set_title(title, fontsize=11)
    for row, (name, of_objectives) in zip(panels, models.items()):
        row[0].plot(*toy.sample(name, 3000, 1).T, ".", ms=1, color=COLORS[0])
        for i, model in enumerate(of_objectives.values()):
            colours = surface(row[1 + 2 * i], model)
            row[2 + 2 * i].plot(*model.sample(3000, 2).T, ".", ms=1, color=COLORS[0])
        row[0].set_ylabel(name, fontsize=11)
        for axes in row:
            bare(axes)
    above.colorbar(colours, ax=panels, shrink=0.5, label="−log p / nats", extend="max", aspect=30)
    grid = below.add_gridspec(1, 3, width_ratios=(1.6, 1, 1))
    left = below.add_subplot(grid[0])
    for (change, (values, _)), color in zip(changed.items(), COLORS):
        left.semilogy(1 + np.arange(len(values)), values, "o-", ms=3, color=color, label=change)
    left.set(xlabel="epoch", ylabel="KL(f ‖ p) / nats", title=next(iter(models)))
    left.set_ylim(top=1e4)  # room for the legend
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    for place, change, limit in ((1, "5 steps, α = 0", LIMIT), (2, "score matching, silu", FAR)):
        axes, model = below.add_subplot(grid[place]), changed[change][1]
        surface(axes, model, limit)
        axes.plot(*toy.sample(next(iter(models)), 300, 1).T, ".", ms=1, color="white")
        bare(axes, limit)
        axes.set_title(f"{change}: −log p, ±{limit:g}", fontsize=10)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=NAMES, choices=toy.NAMES, metavar="NAME",
                        help="of " + ", ".join(toy.NAMES))  # fmt: skip
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="of 100,000 rows each (default: %(default)s)")
    parser.add_argument("--out", default="energy_model.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    models = table(args.only, args.epochs)
    changed = against_epochs(args.only[0], args.epochs)
    draw(models, changed).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
