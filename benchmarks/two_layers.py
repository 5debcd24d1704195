"""The two-layer model of Burda, Grosse & Salakhutdinov 2016 on MNIST, beside the figures of their table 1.

    python benchmarks/two_layers.py --data-dir DIR

784-200-200-(100)-100-100-(50) and back, tanh, Glorot-uniform weights, output bias at the mean training image; batches of 100
binarised afresh, Adam with a rate that falls to 0 along a cosine. First the ELBO of one sample, whose KL gets its weight over
the first 50 epochs, then the importance-weighted bound of 5 samples from there. The test images are binarised once, and after
each stage measured with 5000 importance samples each. If it is stopped, the same command goes on at the last saved epoch.
Figures are written to benchmarks/results/two_layers.json after every stage.
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
from npvae.models import HierarchicalVAE, latent_chain
from npvae.schedules import Cosine, Linear
from npvae.training import checkpoint

BATCH_SIZE, LATENT, HIDDEN = 100, (100, 50), (200, 100)
SECONDS_BETWEEN_SAVES = 60
FILE = RESULTS / "two_layers.json"


class Stage(NamedTuple):
    """One part of the training, and the paper's figures for its objective after 3280 epochs: NLL in nats, active units."""

    objective: str
    n_samples: int
    epochs: int
    learning_rate: float
    warm_up: int  # epochs over which the weight of the KL rises from 0
    paper: tuple


STAGES = (Stage("elbo", 1, 600, 1e-3, 50, (85.33, "16 + 5")), Stage("iwae", 5, 150, 5e-4, 0, (83.89, "21 + 5")))


def initial_model(images, seed):
    """The model before its first step; images (n, 784) grey levels 0-255."""
    model = HierarchicalVAE(784, LATENT, HIDDEN, activation="tanh", seed=seed)
    mean = np.clip(images.mean(axis=0) / 255, 0.001, 0.999)  # (784,)
    model.parameters["likelihood.b"] = np.log(mean / (1 - mean))
    return model


def train(model, stage, dataset, folder, args):
    """Train a stage to its end, from the folder's checkpoint if there is one; returns the model, and the seconds by the clock
    and of the processor, which differ where other work shares it."""
    steps, state, saved = -(-len(dataset.x_train) // BATCH_SIZE), None, time.perf_counter()
    clock, before = folder / "processor_seconds.txt", -time.process_time()
    if (folder / "checkpoint.npz").exists():
        model, state = checkpoint.load_progress(folder)
        before += float(clock.read_text())
    folder.mkdir(parents=True, exist_ok=True)

    def on_epoch(state):
        nonlocal saved
        if state.epoch == stage.epochs or time.perf_counter() > saved + SECONDS_BETWEEN_SAVES:
            checkpoint.save_progress(folder, model, state)
            clock.write_text(f"{before + time.process_time():.1f}\n")
            saved = time.perf_counter()
            row = state.history.rows[-1]
            at_top = f", of which {row['train_kl_top']:.2f} at the top" if "train_kl_top" in row else ""
            print(f"{stage.objective} epoch {state.epoch:4}  {state.seconds:6.0f} s  train loss {row['train_loss']:.2f}  kl "
                  f"{row['train_kl']:.2f}{at_top}", flush=True)  # fmt: skip

    if state is None or state.epoch < stage.epochs:
        beta = Linear(stage.warm_up * steps) if stage.warm_up else 1.0
        npvae.fit(model, dataset.x_train, epochs=stage.epochs, batch_size=BATCH_SIZE, workers=args.workers, beta=beta,
                  optimizer=npvae.Adam(Cosine(stage.learning_rate, stage.epochs * steps)), objective=stage.objective,
                  n_samples=stage.n_samples, seed=args.seed, progress=False, on_epoch=on_epoch, resume=state)  # fmt: skip
    model, state = checkpoint.load_progress(folder)
    return model, {"seconds": state.seconds, "processor_seconds": float(clock.read_text())}


def measure(model, x, n_samples, seed):
    """Figures of the test images x (n, 784) of zeros and ones."""
    started = time.perf_counter()
    nll = -model.log_likelihood(x, n_samples, seed)
    found = latent_chain.draws(model, x, rng=seed)
    active = latent_chain.of_each(model, latent_chain.active_units(found.means))
    kl = latent_chain.of_each(model, found.kl_per_dimension)
    return {
        "nll": float(nll.mean()),
        "nll_standard_error": float(nll.std(ddof=1) / np.sqrt(len(nll))),  # from the choice of test images
        "samples": n_samples,
        "minus_elbo": float((found.nll + found.kl).mean()),
        "kl_of_each": {name: float(part.sum()) for name, part in kl.items()},
        "active_units": {name: int(part.sum()) for name, part in active.items()},
        "seconds_measuring": time.perf_counter() - started,
    }


def row_text(row):
    active = " + ".join(str(n) for n in row["active_units"].values())
    paper, paper_active = row["paper"]
    minutes = row["processor_seconds"] / 60
    return (f"{row['objective']} k = {row['n_samples']}, {row['epochs']} epochs, {minutes:.0f} min of one core: test −ELBO "
            f"{row['minus_elbo']:.2f}, NLL {row['nll']:.2f} ± {row['nll_standard_error']:.2f} nats ({row['samples']} samples), "
            f"active units {active}; published {paper:.2f}, {paper_active}")  # fmt: skip


def parser_of(description, runs):
    """The options of a script that trains in stages, and keeps checkpoints in the folder `runs`."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--samples", type=int, default=5000, metavar="K", help="importance samples per image (default: 5000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", default=runs, help="where checkpoints are kept (default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: the cores available)")
    return parser


def main():
    args = parser_of(__doc__, "runs/two_layers").parse_args()
    print_machine(machine())
    dataset = mnist.load(args.data_dir)
    model = initial_model(dataset.x_train, args.seed)
    x_test = npvae.model_input(model, dataset.x_test, args.seed)
    done = json.loads(FILE.read_text()) if FILE.exists() else {"stages": []}
    rows = {row["objective"]: row for row in done["stages"]}
    for number, stage in enumerate(STAGES):
        model, seconds = train(model, stage, dataset, Path(args.runs) / f"stage{number}", args)
        measured = rows.get(stage.objective)
        if measured is None or measured["samples"] < args.samples or measured["seconds"] != seconds["seconds"]:
            rows[stage.objective] = {**stage._asdict(), **seconds, **measure(model, x_test, args.samples, args.seed)}
            result = {"seed": args.seed, "machine": machine(), "stages": list(rows.values())}
            FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(row_text(rows[stage.objective]), flush=True)


if __name__ == "__main__":
    main()
