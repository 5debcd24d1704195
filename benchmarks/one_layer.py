"""The one-layer model of Burda, Grosse & Salakhutdinov 2016 on MNIST, trained faster than for their table 1.

    python benchmarks/one_layer.py --data-dir DIR [--only elbo|iwae]

784-200-200-50 and back, tanh, Glorot-uniform weights, output bias at the mean training image; batches of 100 binarised afresh,
Adam with a rate that falls from 2e-3 to 0 along a cosine. The ELBO of one sample and, from a fresh start, the
importance-weighted bound of 5. (The paper's own schedule, 3280 epochs in batches of 20, is in `reproduce_iwae.py`.) The test
images are binarised once, and measured with 5000 importance samples each. If it is stopped, the same command goes on at the
last saved epoch. Figures are written to benchmarks/results/one_layer.json after every stage.
"""

import json
import time
from pathlib import Path

import numpy as np
from common import RESULTS, machine, print_machine
from two_layers import Stage, parser_of, row_text, train

import npvae
from npvae import evaluate
from npvae.data import mnist

FILE = RESULTS / "one_layer.json"
STAGES = (Stage("elbo", 1, 550, 2e-3, 0, (86.76, "19")), Stage("iwae", 5, 400, 2e-3, 0, (85.54, "22")))


def initial_model(images, seed):
    """The model before its first step; images (n, 784) grey levels 0-255."""
    model = npvae.VAE(784, 50, (200, 200), activation="tanh", seed=seed)
    model.set_output_bias(images)
    return model


def measure(model, x, n_samples, seed):
    """Figures of the test images x (n, 784) of zeros and ones."""
    started = time.perf_counter()
    nll = -model.log_likelihood(x, n_samples, seed)
    return {
        "nll": float(nll.mean()),
        "nll_standard_error": float(nll.std(ddof=1) / np.sqrt(len(nll))),  # from the choice of test images
        "samples": n_samples,
        "minus_elbo": -evaluate.elbo(model, x, seed).elbo,
        "active_units": {"z": int(evaluate.active_units(model, x).sum())},
        "seconds_measuring": time.perf_counter() - started,
    }


def main():
    parser = parser_of(__doc__, "runs/one_layer")
    parser.add_argument("--only", choices=[stage.objective for stage in STAGES], help="one of the objectives (default: both)")
    args = parser.parse_args()
    print_machine(machine())
    dataset = mnist.load(args.data_dir)
    saved = json.loads(FILE.read_text())["stages"] if FILE.exists() else []
    rows = {row["objective"]: row for row in saved}
    for stage in STAGES:
        if args.only in (None, stage.objective):
            model = initial_model(dataset.x_train, args.seed)
            x_test = npvae.model_input(model, dataset.x_test, args.seed)
            model, seconds = train(model, stage, dataset, Path(args.runs) / stage.objective, args)
            rows[stage.objective] = {**stage._asdict(), **seconds, **measure(model, x_test, args.samples, args.seed)}
            result = {"seed": args.seed, "machine": machine(), "stages": list(rows.values())}
            FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(row_text(rows[stage.objective]) + f"; {seconds['seconds'] / 60:.1f} minutes by the clock", flush=True)


if __name__ == "__main__":
    main()
