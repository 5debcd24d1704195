"""Bits-back coding: the size of a file beside the model's −ELBO, the seconds to write and read it, and other compressors.

    python benchmarks/bench_bits_back.py --data-dir DIR [--frey freyfaces.npy]   # trains what --runs does not hold yet
    python benchmarks/bench_bits_back.py --markdown                              # the tables of the last results

Three sets of images, each with a model that `npvae train` makes: the 10 000 MNIST test images with each pixel drawn once from
its grey level, by NumPy's legacy generator with seed 0 as the public coders draw them; the same images with all 256 levels; and
the Frey faces, if --frey says where they are. What is decoded is compared with the data, byte for byte. The size is that of the
whole file; the model is not in it, nor is that of the published coders in theirs.

Beside it: gzip, bzip2, xz, PNG and WebP of the same values (`npvae.app.standard_compressors`), and for the binary images a
bits-back coder written here on the public rANS of `constriction`, where that is installed (pip install constriction), with the
same weights. Figures are added to benchmarks/results/bits_back.json, set by set.
"""

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from common import RESULTS, interleaved, machine, print_machine
from threadpoolctl import threadpool_limits

from npvae import evaluate
from npvae.app import cli, standard_compressors
from npvae.data import mnist
from npvae.models import bits_back
from npvae.ops.layers import sigmoid_forward
from npvae.ops.mlp import mlp_forward
from npvae.training import checkpoint

FILE = RESULTS / "bits_back.json"
ELBO_SAMPLES = 20  # draws of z per image behind −ELBO
THREADS = (1, 2)
LEVELS = ["--likelihood", "beta_binomial", "--learning-rate-schedule", "cosine", "--output-bias"]  # of the training
LENGTHS = (1000, 3000, 10_000)  # images whose cost is compared, one thread
# Bits per dimension of the same images, each with a model of its own: Townsend, Bird & Barber 2019, table 2.
PUBLISHED = {"binary digits": {"−ELBO": 0.19, "BB-ANS": 0.19}, "digits": {"−ELBO": 1.39, "BB-ANS": 1.41}}
# What the tables call a coder, and the parts of npvae's account (`npvae.models.bits_back.Account`).
LABELS = {"npvae": "npvae, the whole file", "constriction": "bits back with constriction"}
ACCOUNT = {
    "nll": "nll at the coded z", "kl": "KL in closed form", "sampling": "draws of z, against their mean",
    "discretisation": "z in intervals", "rounding": "probabilities as whole numbers", "coder": "rANS",
    "start": "bits for the first z of each chain", "heads": "the last bits of each chain, in two words",
    "header": "header and checks",
}  # fmt: skip


class Images(NamedTuple):
    """A set of images and the model that compresses it."""

    x: np.ndarray  # (n, D) uint8, as it is compressed
    shape: tuple  # (rows, columns) of an image
    epochs: int  # of the training
    options: list  # of `npvae train`, but for those that are common to all


def binary_digits(args):
    """The test images with each pixel drawn once; the network and training of the published coder."""
    grey = mnist.load(args.data_dir).x_test
    x = (np.random.RandomState(0).random_sample(grey.shape) < grey / 255).astype(np.uint8)
    return Images(x, (28, 28), 20, ["--data", "mnist", "--hidden", "100", "--latent", "40"])


def digits(args):
    """The test images with all their grey levels."""
    options = ["--data", "mnist", "--hidden", "200", "--latent", "50", *LEVELS]
    return Images(mnist.load(args.data_dir).x_test, (28, 28), 100, options)


def frey_faces(args):
    """All frames of a film of a face: nine of ten are those that the model was trained on."""
    options = ["--data", args.frey, "--image-shape", "28", "20", "--hidden", "200", "--latent", "20", *LEVELS]
    return Images(np.load(args.frey), (28, 20), 300, options)


SETS = {"binary digits": binary_digits, "digits": digits, "Frey faces": frey_faces}


def trained(images, folder, args):
    """The model of a run folder, trained to its end first if it is not; a run that was stopped goes on."""
    options = ["train", "--resume", "--out", str(folder), "--batch-size", "100", "--epochs", str(images.epochs),
               "--workers", str(args.workers), *images.options]  # fmt: skip
    if "mnist" in options and args.data_dir:
        options += ["--data-dir", args.data_dir]
    is_over = checkpoint.has_progress(folder) and checkpoint.load_progress(folder)[1].epoch >= images.epochs
    if not is_over and (status := cli.main(options)):
        sys.exit(status)
    return checkpoint.load_progress(folder)[0]


def measure(images, model, repeats):
    """Figures of a set: sizes in bits, seconds, what other compressors make of it."""
    x = images.x
    content, account = bits_back.compress(model, x)
    bits_back.decompress(model, content)  # now all kernels are compiled
    is_binary, contenders = model.data_kind == "binary", {}
    elbo = evaluate.elbo(model, x.astype(np.float32) if is_binary else x, 0, ELBO_SAMPLES)
    for workers in THREADS:
        contenders[f"encode {workers}"] = lambda w=workers: timed(bits_back.compress, model, x, workers=w)[0]
        contenders[f"decode {workers}"] = lambda w=workers: decoded(x, bits_back.decompress, model, content, workers=w)
    sizes = {"npvae": len(content), **standard_compressors.sizes(x, images.shape, is_binary)}
    if is_binary and find_spec("constriction"):
        coder = ConstrictionCoder(model)
        words = coder.encode(x)
        sizes["constriction"] = 4 * len(words)
        contenders["constriction encode"] = lambda: timed(coder.encode, x)[0]
        contenders["constriction decode"] = lambda: decoded(x, coder.decode, words, len(x))
    seconds = interleaved(contenders, repeats)
    return {
        "images": len(x),
        "values": x.size,
        "minus_elbo": evaluate.bits_per_dimension(-elbo.elbo, x.shape[1]),
        "minus_elbo_standard_error": evaluate.bits_per_dimension(elbo.standard_error, x.shape[1]),
        "bytes": sizes,
        "account": account._asdict(),  # bits
        "seconds": seconds,
        "lengths": cost_of_lengths(model, x) if is_binary else {},
        "machine": machine(),
    }


def timed(function, *args, **options):
    """Seconds of a call, and what it returns."""
    started = time.perf_counter()
    found = function(*args, **options)
    return time.perf_counter() - started, found


def decoded(x, function, *args, **options):
    """Seconds of a decoder; AssertionError if what it finds is not the data x, byte for byte."""
    seconds, found = timed(function, *args, **options)
    if (found.dtype, found.shape, found.tobytes()) != (x.dtype, x.shape, x.tobytes()):
        raise AssertionError("the decoder has not restored the data")
    return seconds


def cost_of_lengths(model, x):
    """Number of images -> bytes of the file and seconds to encode and decode them with one thread, medians of three."""
    found = {}
    for n in LENGTHS:
        content, _ = bits_back.compress(model, x[:n])
        encode = [timed(bits_back.compress, model, x[:n], workers=1)[0] for _ in range(3)]
        decode = [decoded(x[:n], bits_back.decompress, model, content, workers=1) for _ in range(3)]
        found[str(n)] = {"bytes": len(content), "encode": median(encode), "decode": median(decode)}
    return found


class ConstrictionCoder:
    """Bits-back coding as one writes it with the public library `constriction`: z on a grid, one image after the other.

    Networks and probabilities are computed row by row, since a decoder meets the rows one by one, and a matrix product of many
    rows rounds differently. The file can be read only where BLAS rounds as it did when the file was written.
    """

    STEP, REACH, START_WORDS = 2.0**-5, 256, 32  # of the grid of z, steps to either side, words that the first z is drawn with

    def __init__(self, model):
        from constriction import stream

        self.new_coder = stream.stack.AnsCoder
        self.model = model  # a VAE with the Bernoulli likelihood and a diagonal posterior
        self.gaussian = stream.model.QuantizedGaussian(-self.REACH, self.REACH - 1)
        self.bernoulli = stream.model.Bernoulli(perfect=False)
        self.prior = np.zeros(model.n_latent), np.full(model.n_latent, 1 / self.STEP)

    def posterior(self, row):
        """Mean and standard deviation of q(z|x) in steps of the grid: row (D,) -> (L,) each."""
        output, _ = mlp_forward(row[None].astype(np.float32), self.model.encoder)  # (1, D) -> (1, 2L)
        mu, logvar = np.split(output[0].astype(float), 2)
        return mu / self.STEP, np.exp(0.5 * logvar) / self.STEP

    def probabilities(self, z):
        """Of a one in each pixel, given the steps z (L,): (D,)."""
        logits, _ = mlp_forward((z[None] * self.STEP).astype(np.float32), self.model.decoder)  # (1, L) -> (1, D)
        return sigmoid_forward(logits[0])[0].astype(float)

    @threadpool_limits.wrap(limits=1)
    def encode(self, x):
        """The words of the file of x (n, D)."""
        start = np.random.default_rng(0).integers(1, 2**32, self.START_WORDS, dtype=np.uint32)
        coder = self.new_coder(start, seal=True)
        for row in x[::-1]:
            z = coder.decode(self.gaussian, *self.posterior(row))
            coder.encode_reverse(row.astype(np.int32), self.bernoulli, self.probabilities(z))
            coder.encode_reverse(z, self.gaussian, *self.prior)
        return coder.get_compressed()

    @threadpool_limits.wrap(limits=1)
    def decode(self, words, n):
        coder, rows = self.new_coder(words), []
        for _ in range(n):
            z = coder.decode(self.gaussian, *self.prior)
            rows.append(coder.decode(self.bernoulli, self.probabilities(z)).astype(np.uint8))
            coder.encode_reverse(z, self.gaussian, *self.posterior(rows[-1]))
        return np.array(rows)


def table(header, rows):
    """A Markdown table of cells, the first column to the left, the others to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def size_table(results):
    """Bits per dimension of every coder: one column for each set."""
    sets = list(results.values())
    lines = [["−ELBO of the model", *(f"{row['minus_elbo']:.5f} ± {row['minus_elbo_standard_error']:.5f}" for row in sets)]]
    for coder in dict.fromkeys(name for row in sets for name in row["bytes"]):
        sizes = [f"{8 * row['bytes'][coder] / row['values']:.5f}" if coder in row["bytes"] else "" for row in sets]
        lines.append([LABELS.get(coder, coder), *sizes])
        if coder == "npvae":
            lines.append(["above −ELBO", *map(above_bound, sets)])
    for name in ("−ELBO", "BB-ANS"):
        published = [f"{PUBLISHED[key][name]:.2f}" if key in PUBLISHED else "" for key in results]
        lines.append([f"{name}, Townsend et al., another model", *published])
    return table(["bits per dimension", *results], lines)


def above_bound(row):
    """By how much npvae's file exceeds −ELBO."""
    excess = 8 * row["bytes"]["npvae"] / row["values"] - row["minus_elbo"]
    return f"{excess:+.5f} ({excess / row['minus_elbo']:+.2%})"


def account_table(results):
    """Where the bits of npvae's files went, bits per dimension."""

    def cells(bits_of):
        return [f"{bits_of(row['account']) / row['values']:.6f}" for row in results.values()]

    lines = [[label, *cells(lambda account, part=part: account[part])] for part, label in ACCOUNT.items()]
    return table(["bits per dimension", *results], [*lines, ["the file", *cells(lambda account: sum(account.values()))]])


def time_table(results):
    """Medians of the seconds to encode and to decode."""
    lines = []
    for name, row in results.items():
        seconds = {key: f"{median(values):.2f}" for key, values in row["seconds"].items()}
        ways = [f"{way} {workers}" for way in ("encode", "decode") for workers in THREADS]
        lines.append([f"{name}, {row['images']:,} images", *map(seconds.get, ways)])
        if "constriction encode" in seconds:
            label = f"{name}, {LABELS['constriction']}"
            lines.append([label, seconds["constriction encode"], "", seconds["constriction decode"], ""])
    return table(["seconds", "encode, 1 thread", "2 threads", "decode, 1 thread", "2 threads"], lines)


def length_table(results):
    """The cost of more and more images, one thread."""
    lines = []
    for row in results.values():
        for n, cost in row["lengths"].items():
            n_values = int(n) * row["values"] // row["images"]
            micros = [f"{1e6 * cost[way] / int(n):.1f}" for way in ("encode", "decode")]
            lines.append([f"{int(n):,}", f"{8 * cost['bytes'] / n_values:.5f}", *micros])
    return table(["images", "bits per dimension", "encode, µs per image", "decode, µs per image"], lines)


def markdown(results):
    """The tables of the README."""
    with_lengths = any(row["lengths"] for row in results.values())
    tables = [size_table, account_table, time_table, *([length_table] if with_lengths else [])]
    return "\n\n".join(make(results) for make in tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="See the top of the script for the protocol.")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: downloaded once)")
    parser.add_argument("--frey", metavar="NPY", help="the Frey faces, uint8 (1965, 560); without them that set is left out")
    parser.add_argument("--runs", default="runs/bits_back", help="where the trained models are kept (default: %(default)s)")
    parser.add_argument("--only", choices=SETS, help="measure one set")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each time (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="threads of the training (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the results file and stop")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads(FILE.read_text(encoding="utf-8"))))
        return
    print_machine(machine())
    results = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name, images_of in SETS.items():
        if args.only not in (None, name) or (name == "Frey faces" and not args.frey):
            continue
        images = images_of(args)
        model = trained(images, Path(args.runs) / name.replace(" ", "-").lower(), args)
        results[name] = measure(images, model, args.repeats)
        results = {known: results[known] for known in SETS if known in results}
        RESULTS.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"\n{markdown({name: results[name]})}\n\nwritten: {FILE}", flush=True)


if __name__ == "__main__":
    main()
