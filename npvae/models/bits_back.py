"""Bits-back coding: a trained VAE or chain of VAEs compresses data to nearly its −ELBO, and every bit of them comes back.

Told z, a decoder needs −log p(x|z) bits for a datum x; z itself needs −log p(z). But any z will do, and which one it is can
carry a message. So the coder lets what it has written so far choose z ~ q(z|x), which makes that shorter by −log q(z|x) bits.
They are not lost: with x and z at hand, the decoder knows which bits would choose that z. In all a datum costs

    −log p(x|z) − log p(z) + log q(z|x),    the mean of which over z is −ELBO = nll + KL(q(z|x) ‖ p(z)),

the three terms of the bound (Hinton & van Camp 1993; Townsend, Bird & Barber 2019, section 2.2). Only the first z of a chain of
data finds nothing written: its bits are made up, and are part of the file. A model with several latents, one above the other,
has the choice between two orders of the same moves, of which one needs fewer such bits (`npvae.ops.bit_swap`).

The rows are cut into a few chains, which threads code side by side; how many there are is a matter of the data, never of the
machine, and stands in the file. The coder and a chain's steps are in `npvae.ops.rans`, `codes`, `bits_back` and `bit_swap`, the
file format is in `npvae.data.packed`.

Shapes: n rows, D data (n_features), L latent.
"""

import json
import math
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, files
from npvae.core.cores import cores_available
from npvae.core.progress import progress_bar
from npvae.data import packed
from npvae.models.backend import compilation_announced
from npvae.models.hierarchical import HierarchicalVAE
from npvae.models.vae import VAE
from npvae.ops import bit_swap, rans
from npvae.ops import bits_back as chain

ORDERS = bit_swap.ORDERS
N_SYMBOLS = {"bernoulli": 2, "beta_binomial": 256, "categorical": 256}  # likelihoods of whole numbers, and how many
SYMBOLS_PER_CHAIN = {2: 2**22, 256: 2**20}  # so that what a chain costs, some 600 bits, is less than a thousandth of it
SYMBOLS_PER_BIT = 2**24  # more than there can be: a symbol with all slots but one of 2^24 costs 8.6e-8 bits
SYMBOLS_PER_BLOCK = 2**16  # coded in one call: between two of them the bar moves, and an interruption is noticed
ARCHITECTURE = {
    VAE: ("n_features", "n_latent", "hidden", "decoder_hidden", "activation", "likelihood", "posterior", "dtype"),
    HierarchicalVAE: ("n_features", "latent", "hidden", "depth", "activation", "likelihood", "dtype"),
}  # what of a model's config its probabilities depend on


class Account(NamedTuple):
    """Where the bits of a file went, all of them: the parts add up to its size."""

    nll: float  # −log2 p(x|z) of these data at the coded z
    kl: float  # KL(q(z|x) ‖ p(z)), of a latent below another one log2 q/p at the coded z; nll + kl is −ELBO of these data
    sampling: float  # log2 q(z|x)/p(z) at the coded z, less its mean, the KL: chance, of either sign
    discretisation: float  # of z: the mass of a bucket is not the density at its centre times its width
    rounding: float  # of probabilities to whole numbers of slots; negative where data had less than the one that all have
    coder: float  # what rANS writes beyond −log2 of these
    start: float  # made up for the first z of each chain
    heads: float  # two words for the last bits of each chain, which are fewer
    header: float  # dtype, shape and checks

    @property
    def bound(self):
        """−ELBO of these data."""
        return self.nll + self.kl

    @property
    def total(self):
        """The size of the file."""
        return math.fsum(self)


def compress(model, x, n_chains=None, workers=None, progress=False, name="x", order=ORDERS[0]):
    """The bytes of a file from which `decompress` restores the array x, and the Account of its bits.

    model     a VAE or a HierarchicalVAE with the likelihood bernoulli, beta_binomial or categorical
    x         (n, ...) with D values in each row, of bool, integers or floats: zeros and ones for bernoulli, else whole numbers
              0 to 255 or these divided by 255 (`npvae.data.packed.symbols_of`)
    n_chains  that are coded side by side; by the size of the data if None
    workers   threads, the cores available if None. The file does not depend on them, nor on the model's back end
    progress  whether to show a bar on a terminal
    order     of the latents of a HierarchicalVAE: "interleaved" (Bit-Swap), whose first row needs fewer made-up bits, or
              "all_at_once". With one latent they are the same

    ValueError, calling x `name`, for a model or data that cannot be coded without loss.
    """
    x = checks.plain_array(name, x)
    checks.choice("order", order, ORDERS)
    symbols, meaning = symbols_of(model, x, name)  # (n, ...) -> (n, D)
    n, coder, coding = len(symbols), coder_of(model, order), coding_ops(model)
    edges = edges_of_chains(n, default_chains(model, n) if n_chains is None else checks.integer("n_chains", n_chains, 1, n))

    def encode(number, rows_done):
        message, totals = rans.new_message(number), np.zeros(len(chain.TOTALS))
        for rows in blocks(model, *edges[number]):
            message, of_block = coding.encode(coder, symbols[rows], message)
            if message.registers[rans.FAULTS]:
                raise ValueError(f"the posterior of {name} is not finite: this model cannot code it")
            totals += of_block
            rows_done(rows.stop - rows.start)
        return message, totals

    coded = side_by_side(encode, len(edges), workers, model, n, progress)
    chains = [rans.written(message) for message, _ in coded]
    digests = digest_of(model), check_of(message for message, _ in coded), packed.digest_of_array(x)
    content = packed.to_bytes(packed.Packed(*digests, x.dtype, x.shape, meaning, order, chains))
    return content, account_of(coded, len(content) - 4 * sum(map(len, chains)))


def decompress(model, content, workers=None, progress=False, name="content"):
    """The array that `compress` was given, to the bit, from the bytes of its file; model and the other arguments as there.

    ValueError, calling the content `name`, for what is no such file, is damaged or was compressed with another model, and where
    the probabilities are not those that the encoder had.
    """
    check(model)
    file, messages = opened(model, content, name)
    n, coder, coding = file.shape[0], coder_of(model, file.order), coding_ops(model)
    edges = edges_of_chains(n, len(messages))

    def decode(number, rows_done):
        message, parts = messages[number], []
        for rows in blocks(model, *edges[number]):  # of these only the number counts: the last rows come off first
            message, symbols = coding.decode(coder, rows.stop - rows.start, message)
            if message.registers[rans.DRAWN] or message.registers[rans.FAULTS]:  # there are no such rows
                raise mismatch(name)
            parts.append(symbols)
            rows_done(len(symbols))
        return message, np.concatenate(parts[::-1])

    messages, symbols = zip(*side_by_side(decode, len(edges), workers, model, n, progress))
    if not all(map(rans.is_start, messages)) or check_of(messages) != file.probabilities:
        raise mismatch(name)
    x = packed.values_of(np.concatenate(symbols), file.meaning, file.dtype, file.shape)
    if packed.digest_of_array(x) != file.array:
        raise mismatch(name)
    return x


def opened(model, content, name):
    """The file that these bytes are, and the messages of its chains; ValueError for what cannot be decoded with this model.
    No memory is set aside for an array that the file only claims to hold: it grows with what is decoded."""
    file = packed.from_bytes(content, name)
    if file.model != digest_of(model):
        raise ValueError(f"{name} was compressed with another model than {model} with its present parameters")
    n_symbols = math.prod(file.shape)
    if n_symbols != file.shape[0] * model.n_features or n_symbols > 8 * len(content) * SYMBOLS_PER_BIT:
        raise ValueError(f"{name} is damaged: it claims an array of shape {file.shape}")
    try:
        return file, [rans.read(words, number) for number, words in enumerate(file.chains)]
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}") from None


def mismatch(name):
    """What to raise where a sound file does not give what was compressed."""
    return ValueError(f"{name} cannot be restored: the probabilities computed here are not those that it was written with, "
                      "though file and model are whole. Please report this, with your machine and versions")  # fmt: skip


def check(model):
    """ValueError for a model that cannot code data without loss."""
    if not isinstance(model, tuple(ARCHITECTURE)):
        raise ValueError(f"bits-back coding needs a VAE or a HierarchicalVAE, not {type(model).__name__}")
    if model.likelihood not in N_SYMBOLS:
        raise ValueError(f"the likelihood {model.likelihood} is a density, which codes nothing without loss: train with one of "
                         f"{', '.join(N_SYMBOLS)} (npvae train --likelihood)")  # fmt: skip
    if model.dtype.kind == "c":
        raise ValueError("the dtype of the model must be float32 or float64; got complex128")
    checks.finite("theta", model.theta)


def symbols_of(model, x, name="x"):
    """x (n, ...) as symbols (n, D) uint8, and what they mean (`npvae.data.packed`); ValueError, calling it `name`, for what the
    model cannot code."""
    check(model)
    x = checks.plain_array(name, x)
    if math.prod(x.shape[1:]) != model.n_features:
        raise ValueError(f"{name} must have {model.n_features} values in each row, the model's n_features; got shape {x.shape}")
    try:
        return packed.symbols_of(x, N_SYMBOLS[model.likelihood], name)
    except ValueError as error:
        hint = (". Of grey levels, draw zeros and ones first (npvae compress --binarize, npvae.model_input), or train a model "
                "of levels (npvae train --likelihood beta_binomial)")  # fmt: skip
        raise ValueError(f"{error}{hint if model.likelihood == 'bernoulli' else ''}") from None


def coder_of(model, order=ORDERS[0]):
    """What the chain needs of a model."""
    inputs = np.arange(N_SYMBOLS[model.likelihood]) / (N_SYMBOLS[model.likelihood] - 1)
    if isinstance(model, HierarchicalVAE):
        return bit_swap.coder_of(model.encoders, model.priors, model.decoder_layers, model.likelihood, inputs, order)
    return chain.coder_of(model.encoder, model.decoder, model.likelihood, model.posterior, inputs)


def coding_ops(model):
    """`npvae.ops.bits_back` or `bit_swap`, or its compiled twin, by the kind of model and its back end."""
    several = isinstance(model, HierarchicalVAE)
    if model.backend == "numpy":
        return bit_swap if several else chain
    import npvae.kernels.bit_swap  # which brings npvae.kernels.bits_back

    return npvae.kernels.bit_swap if several else npvae.kernels.bits_back


def digest_of(model):
    """What tells models apart that give other probabilities: BLAKE2b over parameters and architecture, 8 bytes."""
    config = {name: model.config[name] for kind in ARCHITECTURE if isinstance(model, kind) for name in ARCHITECTURE[kind]}
    return packed.digest(files.digest({"theta": model.theta}).encode(), json.dumps(config).encode())


def check_of(messages):
    """The digest of the coders' checks of all slots that were used."""
    return packed.digest(*(int(message.registers[rans.CHECK]).to_bytes(8, "little") for message in messages))


def default_chains(model, n):
    """How many chains n rows are cut into: one for so many symbols that its own costs are little beside them."""
    return max(1, min(n, round(n * model.n_features / SYMBOLS_PER_CHAIN[N_SYMBOLS[model.likelihood]])))


def edges_of_chains(n, n_chains):
    """(first row, row behind the last) of each chain."""
    return list(pairwise(n * number // n_chains for number in range(n_chains + 1)))


def blocks(model, first, last):
    """The rows from first to last − 1 in slices to be coded in one call each."""
    n_rows = max(1, SYMBOLS_PER_BLOCK // model.n_features)
    return (slice(start, min(start + n_rows, last)) for start in range(first, last, n_rows))


def side_by_side(work, n_chains, workers, model, n, progress):
    """[work(number, rows_done) for each chain], in threads, with a bar of n rows in which `rows_done` counts. An error, or
    Ctrl-C, ends all of them at the end of their blocks."""
    lock, ended = threading.Lock(), threading.Event()

    def rows_done(n_rows):
        with lock:
            bar.update(n_rows)
        if ended.is_set():
            raise CancelledError

    n_threads = min(cores_available() if workers is None else checks.integer("workers", workers, 1), n_chains)
    with progress_bar(progress, total=n) as bar, compilation_announced(model, progress), ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(work, number, rows_done) for number in range(n_chains)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def account_of(coded, n_header_bytes):
    """The Account of a file from its chains, (message, totals) each."""
    totals = dict(zip(chain.TOTALS, sum(of_chain for _, of_chain in coded).tolist()))
    registers = [message.registers for message, _ in coded]
    start = math.fsum(rans.WORD_BITS * int(each[rans.DRAWN]) + math.log2(rans.start_head(int(each[rans.SEED])))
                      for each in registers)  # fmt: skip
    held = math.fsum(rans.WORD_BITS * int(each[rans.COUNT]) + math.log2(int(each[rans.HEAD])) for each in registers)
    stored = rans.WORD_BITS * sum(len(rans.written(message)) for message, _ in coded)
    return Account(
        nll=totals["nll"],
        kl=totals["kl"],
        sampling=totals["log_ratio"] - totals["kl"],
        discretisation=totals["bucket"] - totals["log_ratio"],
        rounding=totals["nll_coded"] + totals["bucket_coded"] - totals["nll"] - totals["bucket"],
        coder=held - start - totals["nll_coded"] - totals["bucket_coded"],
        start=start,
        heads=stored - held,
        header=8 * n_header_bytes,
    )
