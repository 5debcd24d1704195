"""−log p(x | digit) of the MNIST test images: a conditional VAE beside the published figures.

    python benchmarks/conditional_mnist.py --data-dir DIR

784+10-500-500-50 and back, relu, prior N(0, I), batches of 128 binarised afresh, Adam with a rate that falls to 0 along a
cosine: first the ELBO for 150 epochs, then the importance-weighted bound of 5 samples for 60 epochs, each from a rate of 1e-3.
The test images are binarised once, and measured with 1000 importance samples each. If it is stopped, the same command goes on
at the last saved epoch. Figures are written to benchmarks/results/conditional.json after each of the two stages.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

from common import RESULTS, machine, print_machine
from reproduce_iwae import measure

import npvae
from npvae.data import mnist
from npvae.schedules import Cosine
from npvae.training import checkpoint

BATCH_SIZE, HIDDEN, N_LATENT = 128, (500, 500), 50
SECONDS_BETWEEN_SAVES = 60
# Published, conditional on the label, k importance samples in training: as recorded in the project's reference figures for the
# protocol of Burda, Grosse & Salakhutdinov 2016, one stochastic layer.
PAPER = {1: 82.32, 5: 81.41, 50: 80.78}


class Stage(NamedTuple):
    """One part of the training."""

    objective: str
    n_samples: int
    epochs: int
    learning_rate: float


STAGES = (Stage("elbo", 1, 150, 1e-3), Stage("iwae", 5, 60, 1e-3))


def train(model, stage, dataset, folder, workers):
    """Train a stage to its end, from the folder's checkpoint if there is one; returns the model and the seconds."""
    steps, state, saved = -(-len(dataset.x_train) // BATCH_SIZE), None, time.perf_counter()
    if (folder / "checkpoint.npz").exists():
        model, state = checkpoint.load_progress(folder, npvae.models.ConditionalVAE)
    folder.mkdir(parents=True, exist_ok=True)

    def on_epoch(state):
        nonlocal saved
        if state.epoch == stage.epochs or time.perf_counter() > saved + SECONDS_BETWEEN_SAVES:
            checkpoint.save_progress(folder, model, state)
            saved = time.perf_counter()

    if state is None or state.epoch < stage.epochs:
        npvae.fit(model, (dataset.x_train, dataset.y_train), epochs=stage.epochs, batch_size=BATCH_SIZE, workers=workers,
                  optimizer=npvae.Adam(Cosine(stage.learning_rate, stage.epochs * steps)), objective=stage.objective,
                  n_samples=stage.n_samples, on_epoch=on_epoch, resume=state)  # fmt: skip
    _, state = checkpoint.load_progress(folder, npvae.models.ConditionalVAE)
    return model, state.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--samples", type=int, default=1000, metavar="K", help="importance samples per image (default: 1000)")
    parser.add_argument("--runs", default="runs/conditional", help="where checkpoints are kept (default: runs/conditional)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: the cores available)")
    args = parser.parse_args()
    print_machine(machine())
    dataset = mnist.load(args.data_dir)
    model = npvae.models.ConditionalVAE(784, 10, N_LATENT, HIDDEN)
    model.set_output_bias(dataset.x_train / 255)
    x_test, labels = npvae.model_input(model, (dataset.x_test, dataset.y_test), 0), dataset.y_test
    rows = []
    for number, stage in enumerate(STAGES):
        model, seconds = train(model, stage, dataset, Path(args.runs) / f"stage{number}", args.workers)
        rows.append({**stage._asdict(), "seconds": seconds, **measure(model, (x_test, labels), args.samples, 0)})
        row = rows[-1]
        print(f"{row['objective']} k = {row['n_samples']}, {row['epochs']} epochs, {row['seconds'] / 60:.0f} min: test −ELBO "
              f"{row['minus_elbo']:.2f}, NLL {row['nll']:.2f} ± {row['nll_standard_error']:.2f} nats ({row['samples']} "
              f"samples), {row['active_units']} active; published {PAPER[row['n_samples']]:.2f}")  # fmt: skip
        result = {"machine": machine(), "stages": rows}
        (RESULTS / "conditional.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
