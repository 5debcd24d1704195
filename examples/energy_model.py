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
   5 steps from noise    unadjusted ones from N(0, I) each time, which do not get to the data: the wells deepen until the steps
                         are thrown out of them, where a test would accept one in fourteen
   score matching, silu  a network that has no bound. Where there are no data nothing is asked of the score, and the energy may
                         fall there. tanh is bounded, and the confinement ½ ‖x‖² does the rest
3. The picture: data, −log p and draws of the models of 1; the curves of 2, with the share of the proposals that are accepted;
   and −log p of three models that have gone wrong.
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
LIMIT, DEEPEST = 3.2, 8.0  # half width of panels; nats of −log p that the colours span
FAILURES = {"5 steps, α = 0": LIMIT, "5 steps from noise": LIMIT, "score matching, silu": 20.0}  # of CHANGES: half width


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
    columns = f"{'⟨log f⟩':>9}{'⟨E⟩':>9}{'log Z':>8}{'KL(f ‖ p)':>18}{'of log Z':>10}{'taken':>7}{'CPU s':>9}"
    print(f"{'nats':14}{'entropy':>8}  {'':23}{columns}")
    models = {}
    for name in names:
        x, test = toy.dataset_rows(name, N_TRAIN, N_TEST)
        log_f, models[name] = toy.log_density(name, test), {}
        for objective, called in OBJECTIVES.items():
            started = time.process_time()
            sharp = SHARP if name in EDGES and objective == "score" else ()
            model = models[name][objective] = train(x, objective, epochs, None, *sharp)
            seconds = time.process_time() - started
            kl, error, found = divergence(model, test, log_f)
            print(f"{name:14}{toy.entropy(name):8.4f}  {called:23}{log_f.mean():9.4f}{found['energy']:9.4f}"
                  f"{found['log_partition']:8.4f}{kl:10.4f} ±{error:.4f}{model.log_partition().error:10.0e}"
                  f"{found['acceptance']:7.2f}{seconds:9.0f}", flush=True)  # fmt: skip
    return models


def against_epochs(name, epochs):
    """For each of CHANGES the divergence after every epoch and the share of Langevin steps that are taken, and the model: name
    -> (array (2, epochs), EnergyModel)."""
    x, test = toy.dataset_rows(name, N_TRAIN, N_TEST)
    log_f, found = toy.log_density(name, test), {}
    print(f"\n{name + ', changed':25}{'KL(f ‖ p) in nats, epoch by epoch':^{7 * epochs}}{'⟨E⟩':>9}{'taken':>7}")
    for change, (objective, changes, settings) in CHANGES.items():
        curve = []
        model = train(x, objective, epochs, lambda model: curve.append(divergence(model, test, log_f)), changes, settings)  # noqa: B023
        kls, measures = [kl for kl, *_ in curve], [measured for *_, measured in curve]
        print(f"{change:25}" + "".join(f"{kl:7.3f}" for kl in kls)
              + f"{measures[-1]['energy']:9.1f}{measures[-1]['acceptance']:7.2f}", flush=True)  # fmt: skip
        found[change] = np.array([kls, [measured["acceptance"] for measured in measures]]), model
    return found


def surface(axes, model, limit=LIMIT):
    """−log p on a grid, in the square of this half width."""
    line = limit * (2 * (np.arange(250) + 0.5) / 250 - 1)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    depth = -model.log_likelihood(grid).reshape(250, 250)
    return axes.imshow(depth, origin="lower", extent=(-limit, limit) * 2, cmap="viridis_r", vmin=0.0, vmax=DEEPEST)


def bare(axes, limit=LIMIT):
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])


def draw_models(figure, models):
    """Models of each density in rows."""
    panels = figure.subplots(len(models), 5, squeeze=False)
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
    figure.colorbar(colours, ax=panels, shrink=0.5, label="−log p / nats", extend="max", aspect=30)


def draw_curves(figure, name, changed):
    """Divergence and acceptance epoch by epoch, with one thing changed at a time."""
    left, right, key = figure.subplots(1, 3, width_ratios=(1, 1, 0.5))
    for (change, (curves, _)), color in zip(changed.items(), COLORS):
        epochs = 1 + np.arange(curves.shape[1])
        left.semilogy(epochs, curves[0], "o-", ms=3, color=color, label=change)
        right.plot(epochs, curves[1], "o-", ms=3, color=color)
    left.set(xlabel="epoch", ylabel="KL(f ‖ p) / nats", title=f"{name}: divergence")
    right.set(xlabel="epoch", ylim=(0, 1), title="share of Langevin steps accepted")
    key.axis("off")
    key.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(-0.2, 0.5))


def draw_failures(figure, name, changed):
    """−log p of three models that went wrong; white: data, or what the training takes for draws of the model."""
    data = toy.sample(name, 300, 1)
    for axes, (change, limit) in zip(figure.subplots(1, 3), FAILURES.items()):
        model, dots, said = changed[change][1], data, "data"
        if model.start == "noise":
            dots, said = model.sample(300, 3, model.n_langevin, sampler=model.sampler), "noise after 5 steps"
        surface(axes, model, limit)
        axes.plot(*dots.T, ".", ms=1.5, color="white")
        bare(axes, limit)
        axes.set_title(f"{change}\n−log p within ±{limit:g}; dots: {said}", fontsize=10)


def draw(models, changed):
    """Models of each density; the curves of the first, and what went wrong."""
    name, height = next(iter(models)), 2.0 * len(models)
    figure = Figure(figsize=(10, height + 6.6), layout="constrained")
    above, middle, below = figure.subfigures(3, 1, height_ratios=(height, 2.9, 3.7))
    draw_models(above, models)
    draw_curves(middle, name, changed)
    draw_failures(below, name, changed)
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
