"""The families of generative models on one density in the plane: how near each comes, what it costs to train and to sample.

    python benchmarks/families.py [--data ring] [--only NAME ...] [--again] [--markdown]

A VAE, a flow, a diffusion, an energy-based model and adversarial networks of each objective learn the same 50,000 points, whose
density is known (`npvae.data.toy`). Of each is told

    likelihood   what −log p(x) of 10,000 test points exceeds the truth's by, KL(truth ‖ model) in nats: exact for the flow,
                 the diffusion (along its probability flow) and the energy (Z is a sum over a grid), an upper bound for the VAE
                 (2000 points, 1000 importance samples each). Adversarial networks have none
    transport    the exact Wasserstein-1 distance of 1000 samples and 1000 test points, mean over five such pairs. Two sets of
                 test points are that far from each other, too: the floor
    modes        of the ring: how many of its eight Gaussians have at least a tenth of their share of the samples within three
                 standard deviations
    seconds      to train, and to draw 10,000 samples

Of the adversarial networks transport and modes are measured during training, too: a generator may leave modes out, and leave
them for others (mode collapse), which its loss does not tell. Adam's momentum decides much of it. The non-saturating network
stands there twice, with the momentum 0.9 and a constant rate, and with 0.5 and a rate that falls to 0. The VAE's KL gets its
weight over the first 2000 steps: with all of it from the start both latents collapse.

Each family is kept when it is done (--runs), so that the command, stopped and called again, does what is left; --again does
all. Figures and picture are written to benchmarks/results/families.json and .png; --markdown prints the table from there.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import RESULTS, machine, plain_log, print_machine, save
from matplotlib.figure import Figure

import npvae
from npvae.data import toy
from npvae.models import GAN, Diffusion, EnergyModel, Flow, transport
from npvae.training.schedules import Cosine, Linear

N_TRAIN, N_TEST, N_PAIRS, N_DRAWS = 50_000, 10_000, 5, 10_000
N_MEASURED = 20  # times that an adversarial network is measured during training
MODE_SHARE = 0.1  # of the samples that a mode would have: fewer, and it is left out
FIGURES = ("excess", "excess_error", "transport", "transport_error", "modes", "parameters", "steps", "seconds_to_train",
           "seconds_to_sample", "curve")  # fmt: skip
DATA, SAMPLES, LIMIT = "#222222", "#4477aa", 2.6
COLORS = ("#4477aa", "#228833", "#ccbb44", "#aa3377", "#ee6677")


def vae_log_likelihood(model, x):
    return model.log_likelihood(x[:2000], 1000, 0)


def vae_draws(model, n, rng):
    """Draws of p(x|z), where `sample` has its mean."""
    return model.draw_data(rng.standard_normal((n, model.n_latent)), rng)


class Family(NamedTuple):
    """A model, how it is trained, and what it can do."""

    make: Callable  # () -> model
    epochs: int
    batch_size: int
    optimizer: Callable  # steps -> optimiser
    settings: dict
    draws: Callable = lambda model, n, rng: model.sample(n, rng)
    log_likelihood: Callable | None = lambda model, x: model.log_likelihood(x)


def falling(learning_rate, *momenta):
    """Adam with a rate that falls to 0 along a cosine: steps -> optimiser."""
    return lambda steps: npvae.Adam(Cosine(learning_rate, steps), *momenta)


CALM = falling(1e-3, 0.5, 0.9)


def adversarial(objective, n_critic=1, optimizer=CALM):
    """A GAN whose generator takes 4000 steps, with n_critic times as many of the critic."""
    epochs = 20 * (1 + n_critic)  # of 200 steps each
    return Family(lambda: GAN(2, n_critic=n_critic), epochs, 250, optimizer, {"objective": objective}, log_likelihood=None)


FAMILIES = {
    "VAE": Family(lambda: npvae.VAE(2, 2, (128, 128), "silu", "gaussian_global"), 40, 250, falling(3e-3),
                  {"beta": Linear(2000)}, vae_draws, vae_log_likelihood),
    "flow": Family(lambda: Flow(2), 20, 250, falling(5e-3), {"max_gradient_norm": 1.0}),
    "diffusion": Family(lambda: Diffusion(2), 60, 500, falling(3e-3), {"max_gradient_norm": 1.0}),
    "energy": Family(lambda: EnergyModel(2), 15, 500, falling(2e-3), {"max_gradient_norm": 1.0}),
    "GAN, Wasserstein, penalty": adversarial("wasserstein_penalty", 5),
    "GAN, Wasserstein, clipped": adversarial("wasserstein", 5),
    "GAN, minimax": adversarial("minimax"),
    "GAN, non-saturating": adversarial("non_saturating"),
    "GAN, momentum 0.9": adversarial("non_saturating", optimizer=lambda steps: npvae.Adam(1e-3)),
}  # fmt: skip


def transport_distance(samples, test):
    """Mean and standard error over N_PAIRS pairs of 1000 samples and 1000 test points."""
    n = transport.MOST_ROWS
    values = [transport.distance(samples[i * n : (i + 1) * n], test[i * n : (i + 1) * n]) for i in range(N_PAIRS)]
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(N_PAIRS))


def modes_covered(samples):
    """Of the ring's eight Gaussians those that have MODE_SHARE of their share of samples (n, 2) within 3 σ."""
    ways = np.linalg.norm(samples[:, None] - toy.ring_centres(), axis=2)  # (n, 8)
    shares = (ways < 3 * toy.RING_SIGMA).mean(axis=0)
    return int((shares > MODE_SHARE / toy.RING_CENTRES).sum())


def trained(family, x, on_epoch=None):
    """The model fitted to the rows x (n, 2), the seconds it took, without those of on_epoch(model, state), and its steps."""
    model, watched, epochs, batch_size = family.make(), 0.0, family.epochs, family.batch_size
    npvae.fit(family.make(), x[:batch_size], epochs=6, batch_size=batch_size, workers=1, progress=False, **family.settings)
    steps = epochs * math.ceil(len(x) / batch_size)

    def watch(state):
        nonlocal watched
        started = time.perf_counter()
        if on_epoch is not None:
            on_epoch(model, state)
        watched += time.perf_counter() - started

    started = time.perf_counter()
    npvae.fit(model, x, epochs=epochs, batch_size=batch_size, optimizer=family.optimizer(steps), workers=1, progress=False,
              on_epoch=watch, **family.settings)  # fmt: skip
    return model, time.perf_counter() - started - watched, steps


def result_of(family, name, x, test):
    """Train and measure a family on the density `name`: what is kept of it, as JSON holds it."""
    curve = []

    def on_epoch(model, state):
        if family.log_likelihood is None and state.epoch % max(1, family.epochs // N_MEASURED) == 0:
            samples = family.draws(model, transport.MOST_ROWS, np.random.default_rng(state.epoch))
            way = transport.distance(samples, test[: transport.MOST_ROWS])
            curve.append([state.step, way, modes_covered(samples) if name == "ring" else None])

    model, seconds, steps = trained(family, x, on_epoch)
    family.draws(model, 100, np.random.default_rng(1))  # compiles what sampling needs
    started = time.perf_counter()
    samples = family.draws(model, N_DRAWS, np.random.default_rng(0)).astype(np.float64)
    to_sample = time.perf_counter() - started
    found = {"parameters": model.theta.size, "steps": steps, "seconds_to_train": seconds, "seconds_to_sample": to_sample}
    found["transport"], found["transport_error"] = transport_distance(samples, test)
    found["modes"] = modes_covered(samples) if name == "ring" else None
    found["excess"] = None
    if family.log_likelihood is not None:
        log_p = family.log_likelihood(model, test)
        missing = toy.log_density(name, test[: len(log_p)]) - log_p
        found["excess"] = float(missing.mean())
        found["excess_error"] = float(missing.std() / math.sqrt(len(missing)))
    return {**found, "curve": curve, "samples": samples[:3000].round(3).tolist()}


def printed(label, row):
    """A line of the table that is printed while it is made."""
    excess = "      none" if row["excess"] is None else f"{row['excess']:10.4f}"
    return (f"{label:27}{excess}{row['transport']:11.4f} ±{row['transport_error']:.4f}{row['modes'] or '':>7}"
            f"{row['seconds_to_train']:9.1f}{row['seconds_to_sample']:9.3f}")  # fmt: skip


def markdown(result):
    """The table for benchmarks/README.md."""
    lines = ["| family | KL(truth ‖ model), nats | transport distance | modes of 8 | parameters | steps | s to train | s for "
             "10,000 samples |", "|---|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    way, error = result["floor"]
    lines.append(f"| the data themselves | 0 | {way:.3f} ± {error:.3f} | 8 | | | | |")
    for label, row in result["families"].items():
        bound = "≤ " if label == "VAE" else ""
        excess = "no likelihood" if row["excess"] is None else f"{bound}{row['excess']:.3f} ± {row['excess_error']:.3f}"
        lines.append(f"| {label} | {excess} | {row['transport']:.3f} ± {row['transport_error']:.3f} | {row['modes']} | "
                     f"{row['parameters']:,} | {row['steps']:,} | {row['seconds_to_train']:.0f} | "
                     f"{row['seconds_to_sample']:.2g} |")  # fmt: skip
    return "\n".join(lines)


def draw(families, test, floor):
    """Samples of each family, and below them transport distance and modes of the adversarial ones against training."""
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(4.4, 3))
    panels = top.subplots(2, 5).ravel()
    points = {"data": test[:3000], **{label: np.array(row["samples"]) for label, row in families.items()}}
    for panel, (label, x) in zip(panels, points.items()):
        panel.plot(*x.T, ".", ms=1, color=DATA if label == "data" else SAMPLES, rasterized=True)
        panel.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=[], yticks=[])
        way = floor[0] if label == "data" else families[label]["transport"]
        panel.set_title(f"{label}\n{way:.2f}", fontsize=9)
    for panel in panels[len(points) :]:
        panel.axis("off")
    above, below = bottom.subplots(1, 2, sharex=True)
    curves = {label: np.array(row["curve"], float) for label, row in families.items() if row["curve"]}
    for i, ((label, curve), color) in enumerate(zip(curves.items(), COLORS)):
        above.semilogy(curve[:, 0], curve[:, 1], color=color, label=label.removeprefix("GAN, "))
        below.plot(curve[:, 0], curve[:, 2] + 0.06 * (i - 2), color=color)  # beside each other where they agree
    above.axhline(floor[0], color=DATA, lw=0.8, ls="--", label="two sets of data")
    above.set(title="Transport distance, adversarial networks", ylabel="units of the data", xlabel="step")
    above.legend(frameon=False, fontsize=8, ncols=2)
    plain_log(above.yaxis)
    below.set(title="Modes covered", xlabel="step", ylabel="of 8", ylim=(-0.3, 8.5))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="ring", choices=toy.NAMES, metavar="NAME", help="of " + ", ".join(toy.NAMES))
    parser.add_argument("--only", nargs="+", default=list(FAMILIES), choices=FAMILIES, metavar="FAMILY",
                        help="of " + "; ".join(FAMILIES))  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure what is done already once more")
    parser.add_argument("--runs", default="runs/families", metavar="DIR", help="what is done (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print the table of the saved results, and do nothing else")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads((RESULTS / "families.json").read_text(encoding="utf-8"))))
        return
    print_machine(machine())
    x, test = toy.dataset_rows(args.data, N_TRAIN, N_TEST)
    folder, families = Path(args.runs) / args.data, {}
    folder.mkdir(parents=True, exist_ok=True)
    floor = transport_distance(toy.sample(args.data, N_PAIRS * transport.MOST_ROWS, 5), test)
    print(f"{'':27}{'KL / nats':>10}{'transport':>11}{'':8}{'modes':>7}{'train/s':>9}{'sample/s':>9}")
    print(f"{'the data themselves':37}{floor[0]:11.4f} ±{floor[1]:.4f}")
    for label in args.only:
        path = folder / f"{label.lower().replace(', ', '-').replace(' ', '-')}.json"
        if args.again or not path.exists():
            path.write_text(json.dumps(result_of(FAMILIES[label], args.data, x, test)), encoding="utf-8")
        families[label] = json.loads(path.read_text(encoding="utf-8"))
        print(printed(label, families[label]), flush=True)
    figure = draw(families, test, floor)
    if args.only == list(FAMILIES) and args.data == "ring":
        rows = {label: {name: row[name] for name in FIGURES if name in row} for label, row in families.items()}
        save("families", {"machine": machine(), "data": args.data, "floor": floor, "families": rows}, figure)
    else:
        figure.savefig(folder / "families.png", dpi=120)
        print(f"picture: {folder / 'families.png'}")


if __name__ == "__main__":
    main()
