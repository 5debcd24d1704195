"""Variational diffusion in the plane: how near it comes to the entropy, what its two ELBOs cost, how data rise from noise.

    python examples/diffusion.py [--only NAME ...] [--epochs N] [--out diffusion.png]

1. For each density the excess over the entropy, which is known (`npvae.data.toy`), of −ELBO with T = 1000 latents and with
   T → ∞, and of −log p(x) along the probability flow, which is no bound. Truth and model are compared on the same test rows, so
   that the luck of the draw of the rows cancels.
2. Of the first density, the same network with T latents: what the coarse steps cost beyond continuous time, which falls as 1/T;
   and the standard deviation of the loss of one datum, estimated from one step, in both decompositions of the ELBO. One of them
   looks at two latents, x_t-1 and x_t+1, and adds up T − 1 terms that do not get small: its spread grows with T.
3. The picture: the way back from noise, by the chain and by the probability flow, and the two figures of 2.
"""

import argparse
import math
import time
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.data import toy
from npvae.models import Diffusion, reverse_process
from npvae.training.schedules import Cosine

NAMES = ("moons", "ring", "banana", "funnel")
N_TRAIN, N_TEST = 100_000, 10_000
HIDDEN, LEARNING_RATE, BATCH_SIZE, EPOCHS, MAX_GRADIENT_NORM = (128, 128), 3e-3, 500, 100, 1.0
N_DRAWS = 20  # of step and noise for each test row, behind an ELBO
STEPS = (10, 30, 100, 300, 1000, 3000)
TIMES = (1.0, 0.7, 0.55, 0.45, 0.35, 0.25, 0.0)  # of the film
CHAIN, FLOW, BOUND = "#4477aa", "#ee6677", "#777777"


def train(x, epochs):
    """A diffusion fitted to the rows x (n, 2)."""
    model = Diffusion(2, 1000, hidden=HIDDEN)
    steps = epochs * math.ceil(len(x) / BATCH_SIZE)
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=npvae.Adam(Cosine(LEARNING_RATE, steps)),
              max_gradient_norm=MAX_GRADIENT_NORM, workers=1, progress=False)  # fmt: skip
    return model


def error_of(values):
    return np.std(values) / math.sqrt(len(values))


def excess_line(model, name, test):
    """What is printed of a density: each excess over the entropy, in nats per datum."""
    log_p = toy.log_density(name, test)
    (bound, losses), (limit, limits) = (model.elbo(test, N_DRAWS, 0, objective) for objective in ("matching", "continuous"))
    missing = log_p - model.log_likelihood(test)
    cells = [(bound.loss + log_p.mean(), error_of(losses)), (limit.loss + log_p.mean(), error_of(limits)),
             (missing.mean(), error_of(missing))]  # fmt: skip
    return "".join(f"{value:11.4f} ±{error:.4f}" for value, error in cells)


def losses(model, x, rng, objective):
    """The loss of each row, without the reconstruction, from one step and one draw of the noise: x (B, 2) -> (B,)."""
    t, eps = model.draw(rng, x, times="independent")
    at = model.times_of(t, objective)
    forward = model.consistency_forward if objective == "consistency" else model.matching_forward
    (steps, prior), _ = forward(x, tuple(eps), at, model.schedule_forward(at)[0])
    return at.n * steps + prior


def against_steps(model, x):
    """For each T of STEPS: −ELBO beyond its limit, at the same draws, and the spread of both estimates: three arrays."""
    limit = model.elbo(x, N_DRAWS, 0, "continuous")[0].loss
    found, rows = [], np.tile(x[:20], (500, 1)).astype(np.float32)
    print(f"\n{'T':>6}{'beyond T → ∞':>16}{'± matching':>14}{'± consistency':>16}   (nats; of one datum, from one step)")
    for T in STEPS:
        copy, rng = model.copy(n_steps=T), np.random.default_rng(0)
        gap = copy.elbo(x, N_DRAWS, 0)[0].loss - limit
        spread = [losses(copy, rows, rng, objective).reshape(500, 20).std(axis=0).mean()
                  for objective in ("matching", "consistency")]  # fmt: skip
        found.append((gap, *spread))
        print(f"{T:6}{gap:16.4f}{spread[0]:14.2f}{spread[1]:16.1f}", flush=True)
    return np.array(found).T


def film(model, n=3000):
    """Points at TIMES on the way back, of the chain and of the flow from the same noise: two arrays (times, n, 2)."""
    states = model.chain(n, 0)
    T = model.n_steps
    chain = np.stack([states[T - 1 - round(u * (T - 1))] for u in TIMES])
    flow = [states[0]]
    for start, end in pairwise(TIMES):
        flow.append(reverse_process.integrate_flow(model, flow[-1], start, end, 20, False)[0])
    return chain, np.stack(flow)


def draw(model, curves):
    """The film above the two figures against T."""
    n, limit = len(TIMES), 3.2
    figure = Figure(figsize=(1.5 * n, 6.7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    panels = above.subplots(2, n)
    for row, (points, color, label) in enumerate(zip(film(model), (CHAIN, FLOW), ("chain", "flow"))):
        for column, (u, x) in enumerate(zip(TIMES, points)):
            axes = panels[row, column]
            axes.plot(*x.T, ".", ms=1, color=color, rasterized=True)
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
            if row == 0:
                axes.set_title(f"γ = {model.levels(np.array([u]))[0][0]:.2g}".replace("-", "−"), fontsize=10)
            if column == 0:
                axes.set_ylabel(label)
    gap, matching, consistency = curves
    left, right = below.subplots(1, 2)
    left.loglog(STEPS, matching, "o-", color=CHAIN, label="denoising matching")
    left.loglog(STEPS, consistency, "s-", color=FLOW, label="consistency")
    left.set(xlabel="latents T", ylabel="standard deviation / nats", title="loss of one datum from one step")
    left.legend(frameon=False)
    right.loglog(STEPS, gap, "o-", color=CHAIN, label="−ELBO beyond its limit")
    right.loglog(STEPS, gap[-2] * STEPS[-2] / np.array(STEPS), "--", color=BOUND, label="∝ 1/T")
    right.set(xlabel="latents T", ylabel="nats", title="what coarse steps cost")
    right.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=NAMES, choices=toy.NAMES, metavar="NAME",
                        help="of " + ", ".join(toy.NAMES))  # fmt: skip
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="of 100,000 rows each (default: %(default)s)")
    parser.add_argument("--out", default="diffusion.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()

    columns = ("−ELBO, T 1000", "−ELBO, T → ∞", "−log p, flow")
    print(f"{'nats beyond entropy':20}{'entropy':>8}{''.join(f'{column:>19}' for column in columns)}{'seconds':>9}")
    first = None
    for name in args.only:
        x, test = toy.dataset_rows(name, N_TRAIN, N_TEST)
        started = time.perf_counter()
        model = train(x, args.epochs)
        seconds = time.perf_counter() - started
        print(f"{name:20}{toy.entropy(name):8.4f}{excess_line(model, name, test)}{seconds:9.0f}", flush=True)
        first = first or (model, test)
    model, test = first
    curves = against_steps(model, test)
    draw(model, curves).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
