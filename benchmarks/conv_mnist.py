"""A convolutional VAE on MNIST: images binarised afresh, and the NLL that an hour of two cores reaches.

    python benchmarks/conv_mnist.py --data-dir DIR [--samples K]

28×28 pixels, convolutions with 5 × 5 pixels and a stride of 2 to 14×14×16, 7×7×32 and 4×4×32, a dense layer of 450, 32
latents, and back; silu, Glorot-uniform weights, output bias at the mean training image; batches of 100 binarised afresh, Adam
with a rate that falls to 0 along a cosine. First the ELBO of one sample, whose KL gets its weight over the first 10 epochs,
then from there the importance-weighted bound of 5. The test images are binarised once, and measured with 5000 importance
samples each, after the first stage with a fiftieth of that. If it is stopped, the same command goes on at the last saved epoch.
Figures are written to benchmarks/results/conv_mnist.json after every stage, pictures of the kernels to conv_filters.png and
conv_strokes.png at the end.
"""

import json
from pathlib import Path

from common import RESULTS, machine, print_machine
from one_layer import measure
from two_layers import Stage, parser_of, train

import npvae
from npvae.app import plots
from npvae.data import mnist
from npvae.models import ConvolutionalVAE

FILE = RESULTS / "conv_mnist.json"
ARCHITECTURE = {"n_latent": 32, "channels": (16, 32, 32), "kernel": 5, "stride": 2, "hidden": (450,), "activation": "silu"}
STAGES = (Stage("elbo", 1, 110, 3e-3, 10, ()), Stage("iwae", 5, 30, 1e-3, 0, ()))


def initial_model(images, seed):
    """The model before its first step; images (n, 784) grey levels 0-255."""
    model = ConvolutionalVAE(784, **ARCHITECTURE, seed=seed)
    model.set_output_bias(images)
    return model


def row_text(row):
    by_clock, of_core, active = row["seconds"] / 60, row["processor_seconds"] / 60, row["active_units"]["z"]
    return (f"{row['objective']} k = {row['n_samples']}, {row['epochs']} epochs, {by_clock:.1f} minutes by the clock, "
            f"{of_core:.0f} of one core: test −ELBO {row['minus_elbo']:.2f}, NLL {row['nll']:.2f} ± "
            f"{row['nll_standard_error']:.2f} nats ({row['samples']} samples, measured in "
            f"{row['seconds_measuring'] / 60:.1f} minutes), active units {active}")  # fmt: skip


def main():
    args = parser_of(__doc__, "runs/conv_mnist").parse_args()
    print_machine(machine())
    dataset = mnist.load(args.data_dir)
    model = initial_model(dataset.x_train, args.seed)
    print(model, flush=True)
    x_test = npvae.model_input(model, dataset.x_test, args.seed)
    done = json.loads(FILE.read_text()) if FILE.exists() else {"stages": []}
    rows = {row["objective"]: row for row in done["stages"]}
    for stage in STAGES:
        n_samples = args.samples if stage == STAGES[-1] else max(1, args.samples // 50)
        model, seconds = train(model, stage, dataset, Path(args.runs) / stage.objective, args)
        if rows.get(stage.objective, {}).get("samples") != n_samples or rows[stage.objective]["epochs"] != stage.epochs:
            rows[stage.objective] = {**stage._asdict(), **seconds, **measure(model, x_test, n_samples, args.seed)}
            result = {"seed": args.seed, "machine": machine(), "model": repr(model), "stages": list(rows.values())}
            FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(row_text(rows[stage.objective]), flush=True)
    for name, _, draw in model.pictures_of_kernels(plots):
        draw().savefig(RESULTS / f"conv_{name}", dpi=60)


if __name__ == "__main__":
    main()
