"""Restricted Boltzmann machines of MNIST, beside published figures: log p(x) of the test images with log Z exact or bracketed.

    python benchmarks/boltzmann_mnist.py --data-dir DIR [--machine 16|500]

784 binary visible units and 16 or 500 hidden ones, centred, persistent contrastive divergence with 100 chains, batches of 100
binarised afresh, Adam or plain gradient descent with a rate that falls to 0 along a cosine. The test images are binarised once.
Of 16 hidden units log Z is the sum over all 2^16 states; of 500 it is estimated by annealed importance sampling and, from
above, by reverse annealing from chains of 1000 steps from training images, with 14 500 temperatures times --finer. If it is
stopped, the same command goes on at the last saved epoch. Figures are written to benchmarks/results/boltzmann_mnist.json after
every machine.

Published: 16 hidden units, centred, PCD-1, 50 epochs: a NumPy library's exact figure; 500 hidden units, CD-25: Salakhutdinov
& Murray 2008, table 1 (annealed importance sampling alone, 100 runs).
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import RESULTS, machine, print_machine

import npvae
from npvae.data import mnist
from npvae.models import BoltzmannMachine, partition_function
from npvae.schedules import Cosine
from npvae.training import checkpoint

BATCH_SIZE, N_CHAINS = 100, 100
SECONDS_BETWEEN_SAVES = 60
FILE = RESULTS / "boltzmann_mnist.json"


class Training(NamedTuple):
    """How a machine is trained, and the published figure: log p(x) of test images in nats."""

    n_hidden: int
    n_steps: int  # of Gibbs sampling in each step
    epochs: int
    optimizer: str  # of OPTIMIZERS
    learning_rate: float  # of the first step
    published: float


OPTIMIZERS = {"adam": npvae.Adam, "sgd": npvae.SGD}
TRAININGS = {"16": Training(16, 1, 50, "adam", 3e-3, -142.56), "500": Training(500, 5, 100, "sgd", 0.1, -86.34)}


def train(training, dataset, folder, args):
    """Train a machine to its end, from the folder's checkpoint if there is one; returns the machine and its seconds."""
    steps, state, saved = -(-len(dataset.x_train) // BATCH_SIZE), None, time.perf_counter()
    if (folder / "checkpoint.npz").exists():
        model, state = checkpoint.load_progress(folder)
    else:
        model = BoltzmannMachine(784, training.n_hidden, n_chains=N_CHAINS, seed=args.seed)
        model.centre(dataset.x_train)
    folder.mkdir(parents=True, exist_ok=True)

    def on_epoch(state):
        nonlocal saved
        row = state.history.rows[-1]
        if state.epoch == training.epochs or time.perf_counter() > saved + SECONDS_BETWEEN_SAVES:
            checkpoint.save_progress(folder, model, state)
            saved = time.perf_counter()
            print(f"{training.n_hidden} hidden units, epoch {state.epoch:4}  {state.seconds:6.0f} s  F of training images "
                  f"{row['train_positive']:.2f}, of chains {row['train_negative']:.2f}", flush=True)  # fmt: skip

    if state is None or state.epoch < training.epochs:
        optimizer = OPTIMIZERS[training.optimizer](Cosine(training.learning_rate, training.epochs * steps))
        npvae.fit(model, dataset.x_train, epochs=training.epochs, batch_size=BATCH_SIZE, workers=args.workers,
                  optimizer=optimizer, n_steps=training.n_steps, seed=args.seed, progress=False, on_epoch=on_epoch,
                  resume=state)  # fmt: skip
    model, state = checkpoint.load_progress(folder)
    return model, state.seconds


def measure(model, x_train, x_test, args):
    """Figures of the test images x_test (n, 784) of zeros and ones, and of as many training images."""
    started, finer = time.perf_counter(), args.finer
    betas = partition_function.inverse_temperatures(tuple(round(finer * n) for n in (500, 4000, 10000)))
    found = model.log_partition(x_train, None, args.chains, args.seed, betas)
    result = {"log_z": found._asdict()}
    if found.method != "exact":
        result["log_z_reverse"] = model.log_partition(x_train, "reverse", args.chains, args.seed, betas)._asdict()
        result |= {"chains": args.chains, "temperatures": len(betas) - 1}
    for name, x in (("test", x_test), ("train", x_train[: len(x_test)])):
        free_energy = model.free_energy(x).astype(np.float64)
        result[name] = float(-free_energy.mean() - found.log_z)
        result[f"{name}_standard_error"] = float(free_energy.std() / np.sqrt(len(x)))
    return {**result, "seconds_measuring": time.perf_counter() - started}


def row_text(row):
    log_z, reverse = row["log_z"], row.get("log_z_reverse")
    how = "exact" if reverse is None else (f"± {log_z['error']:.2f} (3 errors: {log_z['low']:.2f} … {log_z['high']:.2f}), "
                                           f"reverse {reverse['log_z']:.2f} ± {reverse['error']:.2f}")  # fmt: skip
    return (f"{row['n_hidden']} hidden units, PCD-{row['n_steps']}, {row['epochs']} epochs, {row['seconds'] / 60:.1f} min: "
            f"log p(x) of test images {row['test']:.2f} ± {row['test_standard_error']:.2f}, of training images "
            f"{row['train']:.2f} nats; log Z {log_z['log_z']:.2f}, {how}; published {row['published']:.2f}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--machine", choices=list(TRAININGS), help="only that of so many hidden units (default: both)")
    parser.add_argument("--chains", type=int, default=100, metavar="C", help="of each annealing (default: 100)")
    parser.add_argument("--finer", type=float, default=1.0, metavar="F", help="times 14 500 temperatures (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", default="runs/boltzmann_mnist", help="where checkpoints are kept (default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: npvae's own choice)")
    args = parser.parse_args()
    print_machine(machine())
    dataset = mnist.load(args.data_dir)
    rows = json.loads(FILE.read_text())["machines"] if FILE.exists() else {}
    for name, training in TRAININGS.items():
        if args.machine in (None, name):
            model, seconds = train(training, dataset, Path(args.runs) / name, args)
            x_train, x_test = (npvae.model_input(model, x, args.seed) for x in (dataset.x_train, dataset.x_test))
            rows[name] = {**training._asdict(), "seconds": seconds, **measure(model, x_train, x_test, args)}
            FILE.write_text(json.dumps({"seed": args.seed, "machine": machine(), "machines": rows}, indent=1) + "\n")
            print(row_text(rows[name]), flush=True)


if __name__ == "__main__":
    main()
