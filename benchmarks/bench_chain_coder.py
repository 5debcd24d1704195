"""Bits-back coding with one, two and four latents, in Bit-Swap's order and all at once: size of a file, and bits to start with.

    python benchmarks/bench_chain_coder.py --data-dir DIR    # trains what --runs does not hold yet, half an hour of one core
    python benchmarks/bench_chain_coder.py --markdown        # the table of the last results

The 10 000 MNIST test images with all 256 levels, and models that `npvae train --model hierarchical` makes, the same but for the
number of latents. They are coded as one chain, and as 100 chains of 100 images: that is the mean over the test set of what 100
images cost with a start of their own, the protocol of the paper (Kingma, Abbeel & Ho 2019). Sizes are those of all words, start
included; the header of a file, some 50 bytes, is not counted, nor is the model. What is decoded is compared with the data.
Figures are added to benchmarks/results/chain_coder.json, model by model; what is there is measured again only with --again.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from bench_bits_back import Images, decoded, table, trained
from common import RESULTS, machine, print_machine

from npvae import evaluate
from npvae.data import mnist
from npvae.models import bits_back, latent_chain

FILE = RESULTS / "chain_coder.json"
LATENTS = {"1": ["50"], "2": ["50", "32"], "4": ["50", "32", "24", "16"]}  # number of latents -> their widths
EPOCHS = 60
OPTIONS = ["--model", "hierarchical", "--data", "mnist", "--hidden", "200", "--depth", "2", "--likelihood", "beta_binomial",
           "--annealing-epochs", "20", "--learning-rate-schedule", "cosine", "--output-bias"]  # fmt: skip
ELBO_SAMPLES = 10  # draws of the latents per image behind −ELBO
IMAGES_PER_START = 100
LABELS = {"interleaved": "interleaved (Bit-Swap)", "all_at_once": "all at once (BB-ANS)"}
# Bits per dimension after 100 images of 8-bit MNIST, by number of latents: Kingma, Abbeel & Ho 2019, table 3.
PUBLISHED = {
    "−ELBO": {"2": "1.2798", "4": "1.2672", "8": "1.2691"},
    "Bit-Swap, 100 images": {"2": "1.302", "4": "1.291", "8": "1.293"},
    "BB-ANS, 100 images": {"2": "1.333", "4": "1.372", "8": "1.479"},
}


def measure(model, x):
    """Figures of a model on images x (n, D) uint8, in bits."""
    found = latent_chain.draws(model, x, ELBO_SAMPLES, rng=0)
    elbo = -found.nll - found.kl  # (S, n)
    error = np.sqrt(elbo.var(axis=0, ddof=1).sum() / len(elbo)) / len(x)  # of the mean, from the draws
    kl = latent_chain.of_each(model, found.kl_per_dimension)
    return {
        "images": len(x),
        "values": x.size,
        "minus_elbo": evaluate.bits_per_dimension(-elbo.mean(), x.shape[1]),
        "minus_elbo_standard_error": evaluate.bits_per_dimension(error, x.shape[1]),
        "kl_of_each": [float(part.sum() / np.log(2)) for part in kl.values()],
        "orders": {order: cost_of(model, x, order) for order in bits_back.ORDERS},
        "machine": machine(),
    }


def cost_of(model, x, order):
    """Name -> the parts of the account in bits, of all images as one chain, and of all of them in chains of 100."""
    found = {}
    for name, n_chains in (("one", 1), ("hundreds", max(1, len(x) // IMAGES_PER_START))):
        content, account = bits_back.compress(model, x, n_chains=n_chains, order=order)
        decoded(x, bits_back.decompress, model, content)
        found[name] = {"chains": n_chains, **account._asdict()}
    return found


def rate(cost, n_values):
    """Bits per dimension of all words."""
    return (sum(cost[part] for part in bits_back.Account._fields) - cost["header"]) / n_values


def markdown(results):
    """The table of the README: a column for each number of latents."""
    columns = list(dict.fromkeys([*LATENTS, *(t for row in PUBLISHED.values() for t in row)]))

    def line(label, cell_of, *arguments):
        return [label, *(cell_of(results[t], *arguments) if t in results else "" for t in columns)]

    lines = [line("−ELBO, bits per dimension", lambda row: f"{row['minus_elbo']:.4f} ± {row['minus_elbo_standard_error']:.4f}")]
    for name, images in (("hundreds", f"{IMAGES_PER_START} images"), ("one", "all images")):
        lines += [line(f"{label}, {images}", rate_cell, order, name) for order, label in LABELS.items()]
    for label, of_each in PUBLISHED.items():
        lines.append([f"{label}, published", *(of_each.get(t, "") for t in columns)])
    lines += [line(f"{label}, bits to start with", start_cell, order) for order, label in LABELS.items()]
    lines.append(line("KL of each latent, bits per image", kl_cell))
    return table(["latents", *columns], lines)


def rate_cell(row, order, name):
    return f"{rate(row['orders'][order][name], row['values']):.4f}"


def kl_cell(row):
    return ", ".join(f"{round(kl, 1) + 0.0}" for kl in row["kl_of_each"])  # + 0.0: no −0


def start_cell(row, order):
    """Made-up bits of a chain, the mean over those of 100 images."""
    cost = row["orders"][order]["hundreds"]
    return f"{cost['start'] / cost['chains']:.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="See the top of the script for the protocol.")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: downloaded once)")
    parser.add_argument("--runs", default="runs/chain_coder", help="where the trained models are kept (default: %(default)s)")
    parser.add_argument("--images", type=int, default=10_000, help="how many test images are coded (default: all 10000)")
    parser.add_argument("--workers", type=int, default=1, help="threads of the training (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure models whose figures are there already")
    parser.add_argument("--markdown", action="store_true", help="print the table of the results file and stop")
    args = parser.parse_args()
    results = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if args.markdown:
        print(markdown(results))
        return
    print_machine(machine())
    x = mnist.load(args.data_dir).x_test[: args.images]
    for n_latents, latent in LATENTS.items():
        if n_latents in results and not args.again:
            continue
        images = Images(x, (28, 28), EPOCHS, [*OPTIONS, "--latent", *latent])
        model = trained(images, Path(args.runs) / f"latents-{n_latents}", args)
        results[n_latents] = measure(model, x)
        results = {known: results[known] for known in LATENTS if known in results}
        RESULTS.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"\n{markdown(results)}\n\nwritten: {FILE}", flush=True)


if __name__ == "__main__":
    main()
