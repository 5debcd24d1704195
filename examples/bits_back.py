"""Why the bound has three terms: lattices of spins as files, with and without bits back, beside the bound and the true p(x).

    python examples/bits_back.py [--out bits_back.png]

A model that gives x the probability p(x) is a code that spends −log2 p(x) bits on x. A VAE has p(x) only as an integral over z.
So the sender has to name a z as well, and a code of the pair (z, x) takes

    −log2 p(z) − log2 p(x|z)                                                              two terms: z has to be paid for.

z is a vector of L real numbers. Here each is rounded to one of 2^b intervals that are equally probable under the prior, which
takes b bits: L b bits for z, whatever x is. The finer z is told, the more it costs, without limit.

But much of what z tells is of no use. Every z that q(z|x) is likely to draw describes x about as well, and which of them is
taken is arbitrary. This choice can carry a message (Frey & Hinton 1997). The sender draws z ~ q(z|x) not by random numbers
but by bits of what has been written so far: they are decoded as if a code for q(z|x) had written them, and decoding random bits
gives draws of the code's distribution. What has been written becomes shorter by −log2 q(z|x) bits. The receiver decodes z, then
x. With x the receiver knows q(z|x), and so which bits lead to this z: they are back. In all an x adds to the file

    −log2 p(z) − log2 p(x|z) + log2 q(z|x)                                                three terms, the mean is −ELBO,

and a finer z is free: one bit more for −log2 p(z) is one bit more that comes back (Lamacraft's lecture, "Compression with VAEs:
bits back"; Townsend, Bird & Barber 2019). What cannot be had back is the start: the first x finds nothing written.

The data are lattices of the Ising model at its critical temperature, where Kaufman's solution gives the true p(x): no code is
shorter on average. The model needs more, as it is not perfect; −ELBO is above its −log p(x), as q(z|x) is not p(z|x); the file
is the largest, as the first x needs a start.
"""

import argparse
import lzma
import math
import time
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import npvae
from npvae import evaluate
from npvae.data import ising
from npvae.kernels import bits_back as compiled
from npvae.models import bits_back
from npvae.ops import bits_back as chain
from npvae.ops import codes, rans
from npvae.ops.reproducible import normal_cdf
from npvae.schedules import Cosine

SIZE, N_TRAIN, N_TEST = 8, 40_000, 5_000
N_LATENT, HIDDEN, EPOCHS, BATCH_SIZE = 12, (128,), 100, 100
BITS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)  # of each latent dimension
FINE = 14  # those of npvae's own files
N_SENT = 500  # lattices that are sent without bits back by the coder itself
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, N_TEST)  # lattices in a file
RED, BLUE, GREEN, GREY = "#ee6677", "#4477aa", "#228833", "0.6"


class Terms(NamedTuple):
    """The three terms, bits per lattice: means over the data."""

    nll: float  # −log2 p(x|z)
    prior: float  # −log2 p(z)
    posterior: float  # −log2 q(z|x), which comes back


def train(x):
    """A VAE of lattices x (n, D)."""
    model = npvae.VAE(x.shape[1], N_LATENT, HIDDEN, seed=0)
    rate = Cosine(2e-3, EPOCHS * len(x) // BATCH_SIZE)
    npvae.fit(model, x, epochs=EPOCHS, batch_size=BATCH_SIZE, optimizer=npvae.Adam(rate), progress=False)
    return model


def in_bits(nats):
    return nats / math.log(2)


def true_nll(x):
    """−log p(x) in nats of lattices x (n, D) under the distribution that they were drawn from: energy / T + log Z."""
    energy = x.shape[1] * ising.energy_per_spin(x, SIZE)
    return energy / ising.T_CRITICAL + ising.kaufman_log_partition(ising.T_CRITICAL, SIZE)


def terms_of(model, x, bits, rng=None):
    """The Terms where z ~ q(z|x) is rounded to 2^bits intervals for each dimension; without rng, z is the mean of q(z|x)."""
    mu, logvar = evaluate.posterior(model, x)  # (n, L) each
    sigma = np.exp(0.5 * logvar)
    z = mu if rng is None else mu + sigma * rng.standard_normal(mu.shape)
    edges, centres = codes.buckets_of_equal_mass(bits)
    bucket = np.searchsorted(edges[1:-1], z)  # (n, L)
    nll = model.nll(centres[bucket][None], x.astype(model.dtype))  # (1, n)
    mass = normal_cdf((edges[bucket + 1] - mu) / sigma) - normal_cdf((edges[bucket] - mu) / sigma)
    return Terms(in_bits(nll.mean(dtype=float)), N_LATENT * bits, -np.log2(mass).sum(axis=1).mean())


def sent(model, x, bits):
    """Bits per lattice where the coder writes x and z, the mean of q(z|x) in 2^bits intervals: measured on its message."""
    edges, centres = codes.buckets_of_equal_mass(bits)
    buckets = np.searchsorted(edges[1:-1], evaluate.posterior(model, x)[0])  # (n, L)
    logits = model.decoder_output(centres[buckets].astype(model.dtype)).astype(float)  # (n, D)
    message = rans.with_room(rans.new_message(), x.size + buckets.size)
    for row, bucket, of_row in zip(x, buckets, logits):
        codes.push_bernoulli(message, row, codes.bernoulli_table(of_row))
        codes.push_uniform(message, bucket, bits)
    return 32 * len(rans.written(message)) / len(x)


def with_bits_back(model, x, bits):
    """Bits per lattice where z is drawn by what has been written: measured on the message of all rows x, one chain."""
    coder = chain.coder_of(model.encoder, model.decoder, model.likelihood, model.posterior, np.array([0.0, 1.0]), bits)
    message, _ = compiled.encode(coder, x.astype(np.uint8), rans.new_message())
    return 32 * len(rans.written(message)) / len(x)


def files_of(model, x):
    """The accounts of the files of the first n rows, for each n of LENGTHS; each file is read again and compared."""
    accounts = []
    for n in LENGTHS:
        content, account = bits_back.compress(model, x[:n])
        if not np.array_equal(bits_back.decompress(model, content), x[:n]):
            raise AssertionError("the lattices have not come back as they were")
        accounts.append(account)
    return accounts


def draw_bits(axes, lines, curves):
    """Cost against b: a curve for each way of sending z, and levels that do not depend on b; enlarged in an inset."""
    near = axes.inset_axes([0.62, 0.2, 0.36, 0.34])
    for where in (axes, near):
        for (label, style, colour), values in curves.items():
            where.plot(BITS, values, style, ms=4, lw=1.5, label=label, color=colour)
        for (label, value), style in zip(lines.items(), ("-", "--", ":")):
            where.axhline(value, color="black", lw=0.9, ls=style, label=f"{label}, {value:.2f}", zorder=0)
    axes.set(xlabel=f"b, bits for each of {N_LATENT} latent dimensions", ylabel=f"bits per lattice of {SIZE * SIZE} spins",
             ylim=(0, 220))  # fmt: skip
    near.set_ylim(min(lines.values()) - 0.5, lines["−ELBO"] + 4)
    near.tick_params(labelsize=7)
    axes.indicate_inset_zoom(near)
    axes.set_title("With bits back a finer z costs nothing", fontsize=10)
    axes.legend(frameon=False, fontsize=7.5, loc="upper left")


def draw_terms(axes, terms, bound):
    """The three terms as steps, one after the other."""
    steps = [("−log p(x|z)", terms.nll, RED), ("−log p(z)", terms.prior, RED), ("log q(z|x)", -terms.posterior, GREEN)]
    level = 0.0
    for i, (_, value, colour) in enumerate(steps):
        axes.bar(i, value, bottom=level, color=colour, alpha=0.85)
        axes.text(i, level + value / 2, f"{value:+.1f}".replace("-", "−"), ha="center", va="center", color="white")
        level += value
        axes.plot([i - 0.4, i + 1.4], [level, level], color="0.3", lw=0.8)
    axes.bar(3, level, color=BLUE)
    axes.text(3, level / 2, f"{level:.1f}", ha="center", va="center", color="white")
    axes.set_xticks(range(4), [*(name for name, _, _ in steps), "sum"], fontsize=9)
    axes.set(ylabel="bits per lattice", ylim=(0, 1.05 * (terms.nll + terms.prior)))
    axes.set_title(f"The three terms at b = {FINE}; −ELBO is {bound:.1f}", fontsize=10)


def draw_lengths(axes, accounts, without, bound):
    """Bits per lattice of files of more and more lattices, in the parts of the account."""
    n = np.array(LENGTHS)
    data = np.array([account.total - account.start - account.heads - account.header for account in accounts]) / n
    start = np.array([account.start for account in accounts]) / n
    total = np.array([account.total for account in accounts]) / n
    axes.fill_between(n, 0, data, color=BLUE, alpha=0.25, lw=0, label="the three terms")
    axes.fill_between(n, data, data + start, color=GREEN, alpha=0.35, lw=0, label="start: bits for the first z")
    axes.fill_between(n, data + start, total, color=GREY, alpha=0.5, lw=0, label="header: shape, dtype, checks")
    axes.plot(n, total, "D-", color=BLUE, ms=4, label="the whole file")
    axes.axhline(without, color=RED, lw=1.2, label=f"the least without bits back, {without:.1f}")
    axes.axhline(bound, color="black", lw=0.9, ls="--", label=f"−ELBO, {bound:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="lattices in the file", ylabel="bits per lattice", ylim=(15, 2 * total.max()))
    axes.set_yticks([20, 50, 100, 200, 500, 1000])
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_title("Files of npvae: the start is paid once", fontsize=10)
    axes.legend(frameon=False, fontsize=7.5)


def draw(lines, curves, terms, accounts, without):
    bound = lines["−ELBO"]
    figure = Figure(figsize=(14.5, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 0.9, 1.1))
    draw_bits(left, lines, curves)
    draw_terms(middle, terms, bound)
    draw_lengths(right, accounts, without, bound)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="bits_back.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    started = time.perf_counter()
    x = ising.simulate(ising.T_CRITICAL, N_TRAIN + N_TEST, SIZE).spins
    model, x = train(x[:N_TRAIN]), x[N_TRAIN:]
    elbo = evaluate.elbo(model, x, 0, 10)
    lines = {
        "−ELBO": in_bits(-elbo.elbo),
        "−log p(x)": in_bits(-evaluate.log_likelihood(model, x, 300, 0).mean()),
        "−log p(x) of the true p": in_bits(true_nll(x).mean()),
    }
    print(f"{model}\ntrained on {N_TRAIN:,} lattices, {time.perf_counter() - started:.0f} s with their simulation\n")

    drawn = [sum(terms_of(model, x, bits, np.random.default_rng(0))[:2]) for bits in BITS]
    mean = [sum(terms_of(model, x, bits)[:2]) for bits in BITS]
    back = [with_bits_back(model, x, bits) for bits in BITS]
    print("Bits per lattice    without bits back, z drawn    z the mean of q(z|x)    with bits back, the coder's message")
    for row in zip(BITS, drawn, mean, back):
        print("b = {:2}{:38.2f}{:24.2f}{:39.2f}".format(*row))
    best = min(BITS, key=lambda bits: mean[BITS.index(bits)])
    terms = terms_of(model, x, FINE, np.random.default_rng(0))
    accounts = files_of(model, x)

    print(f"\nbits per lattice of {SIZE * SIZE} spins")
    xz = 8 * len(lzma.compress(np.packbits(x), preset=9)) / len(x)
    codings = {
        "one bit per spin": SIZE * SIZE,
        "xz": xz,
        f"without bits back, z the mean, b = {best}": min(mean),
        f"the same, message of {N_SENT} lattices": sent(model, x[:N_SENT], best),
        f"with bits back, file of {N_TEST:,} lattices": accounts[-1].total / N_TEST,
    }
    for name, value in {**codings, **lines}.items():
        print(f"{name:48}{value:8.2f}")
    print(f"\nb = {FINE}: −log2 p(x|z) {terms.nll:.2f}, −log2 p(z) {terms.prior:.2f}, log2 q(z|x) {-terms.posterior:.2f}: "
          f"together {terms.nll + terms.prior - terms.posterior:.2f}; −ELBO {lines['−ELBO']:.2f} ± "
          f"{in_bits(elbo.standard_error):.2f}")  # fmt: skip
    curves = {
        ("without bits back, z drawn from q(z|x)", "o-", RED): drawn,
        ("without bits back, z the mean of q(z|x)", "s:", RED): mean,
        ("with bits back, the coder's message", "D-", BLUE): back,
    }
    draw(lines, curves, terms, accounts, min(mean)).savefig(args.out, dpi=110)
    print(f"picture: {args.out} ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
