"""Restricted Boltzmann machines on MNIST: what contrastive divergence and persistent chains reach, and how log Z is bracketed.

    python examples/boltzmann.py --data-dir DIR [--epochs N] [--out boltzmann.png]

With 20 hidden units log Z is a sum over 2^20 states, so log p(x) is exact, and ways to train can be compared by what they are
after (they never see it themselves):

    CD-k    chains start at the batch and go k steps: they see the valleys of the energy near the data alone
    PCD-k   100 chains go on from step to step of the training, and find the valleys that no data are in

The table has the terms of the lecture's identity KL(f ‖ p) = ⟨log f⟩ + ⟨E⟩ + log Z, where f gives each test image the same
probability and E(x) is the free energy. Then log Z of the best machine is estimated by annealed importance sampling from
independent units (from below, on average) and by annealing backwards from the machine's own draws (from above), with more and
more temperatures. The picture shows the weights of its hidden units, chains that start at test images, and the bracket.
"""

import argparse
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.app import drawing
from npvae.data import mnist
from npvae.models import BoltzmannMachine, partition_function
from npvae.schedules import Cosine

N_HIDDEN, BATCH_SIZE, LEARNING_RATE = 20, 100, 3e-3
TRAININGS = {"CD-1": (0, 1), "CD-10": (0, 10), "PCD-1": (100, 1), "PCD-10": (100, 10)}  # persistent chains, Gibbs steps
TEMPERATURES, RUNS = (10, 30, 100, 300, 1000), 100  # of the annealing: so many from 0 to 1, and independent chains
CHAINS, STEPS, IMAGE_SHAPE = 8, (0, 1, 10, 100, 1000), (28, 28)  # of the picture
EDGE = 6  # nats above and below the exact log Z that it shows


def train(x, n_chains, n_steps, epochs):
    """A machine trained on images x (n, V)."""
    model = BoltzmannMachine(x.shape[1], N_HIDDEN, n_chains=n_chains)
    model.centre(x)
    total = epochs * -(-len(x) // BATCH_SIZE)
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=npvae.Adam(Cosine(LEARNING_RATE, total)),
              n_steps=n_steps, progress=False)  # fmt: skip
    return model


def figures(model, x):
    """log p(x) of test images (n, V) of zeros and ones, exact, and the terms of KL(f ‖ p), in nats."""
    log_f, energy, log_z = partition_function.log_frequencies(x), model.free_energy(x).mean(), model.log_partition().log_z
    return -energy - log_z, log_f, energy, log_z, log_f + energy + log_z


def bracket(model, x):
    """log Z by annealing and by reverse annealing, as LogPartitions, for each number of temperatures; rows x as start."""

    def estimates(method):
        return [model.log_partition(x, method, RUNS, 0, np.linspace(0, 1, n + 1)) for n in TEMPERATURES]

    return {method: estimates(method) for method in ("annealing", "reverse")}


def chains_of(model, x):
    """E[x|h] of chains that start at rows x, after each number of STEPS: (chains, steps, V); the rows themselves first."""
    states, rng = [x], np.random.default_rng(0)
    for before, step in pairwise(STEPS):
        x = model.move(x, step - before, rng)
        states.append(model.reconstruct(x))
    return np.stack(states, axis=1)


def draw(model, x, found):
    """The weights, the chains from rows x (n, V), and the bracket of log Z."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 0.8, 1.2))
    weights = model.parameters["W"].T
    edge = np.abs(weights).max()
    drawing.show_image(left, drawing.tile(weights, IMAGE_SHAPE, 5), -edge, edge)
    left.set_title("weights of the hidden units")
    shown = chains_of(model, x[np.linspace(0, len(x) - 1, CHAINS).astype(int)])
    drawing.show_image(middle, drawing.tile(shown.reshape(-1, x.shape[1]), IMAGE_SHAPE, len(STEPS)), 0, 1)
    middle.set_title(f"chains after {', '.join(map(str, STEPS))} steps")
    for method, colour, label in (("annealing", "#4477aa", "annealing"), ("reverse", "#cc6677", "reverse annealing")):
        values = found[method]
        log_z = np.array([value.log_z for value in values])
        low, high = (np.array([getattr(value, end) for value in values]) for end in ("low", "high"))
        errors = np.minimum([log_z - low, high - log_z], 2 * EDGE)  # an end at infinity: the weights' mean may be 0
        right.errorbar(TEMPERATURES, log_z, errors, fmt="o-", ms=4, lw=1, capsize=3, color=colour, label=label)
    exact = model.log_partition().log_z
    right.axhline(exact, color="black", ls="--", lw=1, label="exact, by enumeration")
    right.set(xscale="log", ylim=(exact - EDGE, exact + EDGE), xlabel="temperatures", ylabel="log Z (nats)",
              title="three standard errors on either side")  # fmt: skip
    right.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="of each training (default: 10)")
    parser.add_argument("--out", default="boltzmann.png", metavar="FILE", help="the picture (default: boltzmann.png)")
    args = parser.parse_args()
    dataset, machines = mnist.load(args.data_dir), {}
    print(f"test images, nats{'log p(x)':>11}{'⟨log f⟩':>10}{'⟨E⟩':>10}{'log Z':>10}{'KL(f ‖ p)':>12}")
    for name, (n_chains, n_steps) in TRAININGS.items():
        model = train(dataset.x_train, n_chains, n_steps, args.epochs)
        x = npvae.model_input(model, dataset.x_test, 0)
        log_p, log_f, energy, log_z, divergence = figures(model, x)
        machines[log_p] = model
        print(f"{name:17}{log_p:11.2f}{log_f:10.2f}{energy:10.2f}{log_z:10.2f}{divergence:12.2f}", flush=True)
    best = machines[max(machines)]
    found = bracket(best, npvae.model_input(best, dataset.x_train, 0))
    print(f"\nlog Z, exact {best.log_partition().log_z:.2f}\ntemperatures   annealing           reverse annealing")
    for n, up, down in zip(TEMPERATURES, found["annealing"], found["reverse"]):
        print(f"{n:12}   {up.log_z:8.2f} ± {up.error:.2f}   {down.log_z:12.2f} ± {down.error:.2f}")
    draw(best, x, found).savefig(args.out, dpi=110)
    print(f"\nwritten: {args.out}")


if __name__ == "__main__":
    main()
