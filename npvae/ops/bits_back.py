"""Bits-back coding with a VAE: rows of data on a message at the price of the bound, −ELBO.

Frey & Hinton 1997; Townsend, Bird & Barber 2019 (arXiv:1901.04866). The model has p(x) only as an integral over z. So the
encoder of a row x

    1. pops   z ~ q(z|x)   from the message:  its bits are the random numbers, and it becomes shorter by −log2 q(z|x),
    2. pushes x ~ p(x|z):                     −log2 p(x|z) longer,
    3. pushes z ~ p(z):                       −log2 p(z) longer.

On average over z this adds −log2 p(x|z) − log2 p(z) + log2 q(z|x), which is −ELBO in bits. The decoder undoes it in opposite
order: it pops z, then x, and with x knows q(z|x), so that it can put back the bits that z was drawn with. Those bits are the
row that was coded before. Only the first row finds none: for it the message draws start words.

z is rounded to one of 2^bits buckets for each dimension, of equal mass under the prior, and is the median of its bucket. With
16 bits the outermost medians are at ±4.3, and what rounding costs is below 0.01 bits for a binarised digit; one bit more would
cost one more bit of start words for each dimension, once. All probabilities come from `npvae.ops.reproducible`, in float64,
since the decoder needs those of the encoder to the last bit. `npvae.kernels.bits_back` compiles this file as it stands.

Shapes: D data, L latent, K levels.
"""

from typing import NamedTuple

import numpy as np

from npvae.ops import codes
from npvae.ops.latent import LOGVAR_MAX, LOGVAR_MIN
from npvae.ops.rans import stir, unstir, with_room
from npvae.ops.reproducible import ACTIVATIONS, LOG2_E, dense, exp, log, softplus

LIKELIHOODS = ("bernoulli", "categorical", "beta_binomial")
BERNOULLI, CATEGORICAL, BETA_BINOMIAL = range(3)
BUCKET_BITS = 16
LARGEST_OUTPUT = 1e9
PIECE = 32  # pixels whose tables of levels are made at a time, so that they stay in the cache

# What `encode` counts, in bits and summed over rows and dimensions.
TOTALS = (
    "nll",  # −log2 p(x|z)
    "nll_coded",  # the same of the slots that x has
    "kl",  # KL(q(z|x) ‖ p(z)) in closed form
    "log_ratio",  # log2 q(z|x)/p(z) of the densities at z
    "bucket",  # the same of the masses of z's bucket
    "bucket_coded",  # the same of its slots
)
NLL, NLL_CODED, KL, LOG_RATIO, BUCKET, BUCKET_CODED = range(6)


class Network(NamedTuple):
    """Dense layers one after the other."""

    weights: np.ndarray  # float64: W (n_in, n_out) and b (n_out,) of each layer in turn, as in theta
    widths: np.ndarray  # int64: n_in of the first layer, then n_out of each
    activation: int  # of the hidden layers, a number of `reproducible.ACTIVATIONS`


class Coder(NamedTuple):
    """What the coding of a row needs of a VAE."""

    encoder: Network
    decoder: Network
    likelihood: int  # a number of LIKELIHOODS
    full: bool  # whether the posterior has full covariance
    inputs: np.ndarray  # float64, (K,): what the encoder's network sees for each value of x
    edges: np.ndarray  # of `codes.buckets_of_equal_mass`
    centres: np.ndarray
    bits: int


def network_of(layers):
    """The Network of a list of layers (W, b, activation), as `ops.mlp_forward` takes them, the last one without activation."""
    hidden = {activation for _, _, activation in layers[:-1]} or {"identity"}
    weights = np.concatenate([part.ravel() for W, b, _ in layers for part in (W, b)]).astype(np.float64)
    widths = np.array([len(layers[0][0]), *(len(b) for _, b, _ in layers)], np.int64)
    return Network(weights, widths, ACTIVATIONS.index(*hidden))


def coder_of(encoder, decoder, likelihood, posterior, inputs, bits=BUCKET_BITS):
    """The Coder of a VAE's layers: lists of (W, b, activation); likelihood one of LIKELIHOODS; posterior "diagonal" or "full";
    inputs (K,); 2^bits buckets for each latent dimension, bits from 1 to 22."""
    networks = network_of(encoder), network_of(decoder)
    buckets = codes.buckets_of_equal_mass(bits)
    return Coder(*networks, LIKELIHOODS.index(likelihood), posterior == "full", np.array(inputs, np.float64), *buckets, bits)


def encode(coder, rows, message):
    """Put rows of data on the message: rows uint8 (n, D) of whole numbers below K.

    Returns the message, which may be another one with more room, and what was counted, float64 (6,): the sums called TOTALS.
    ValueError for other rows.
    """
    rows, message, totals = prepared(coder, rows, message)
    encode_rows(coder, rows, message, totals)
    return message, totals


def decode(coder, n_rows, message):
    """Take the last n_rows rows off the message again: returns the message and uint8 (n_rows, D), in the order of `encode`.

    Start words drawn or faults counted (`rans.DRAWN`, `rans.FAULTS`) show that the message has no such rows: then they are
    nonsense, as they are where coder or message are not the encoder's.
    """
    message, rows = room_for(coder, n_rows, message)
    decode_rows(coder, rows, message)
    return message, rows


def prepared(coder, rows, message):
    """What `encode_rows` takes: the rows, checked and C-contiguous; the message with room for them; totals of 0."""
    n_data, n_values = coder.encoder.widths[0], len(coder.inputs)
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != n_data or (rows.size and rows.max() >= n_values):
        highest = f", up to {rows.max()}" if rows.size else ""
        raise ValueError(
            f"rows must be uint8 of shape (n, {n_data}) and below {n_values}; got {rows.dtype} of shape {rows.shape}{highest}"
        )
    room = len(rows) * int(n_data + coder.decoder.widths[0])  # one word for each push at most
    return np.require(rows, requirements="CW"), with_room(message, room), np.zeros(len(TOTALS))


def room_for(coder, n_rows, message):
    """What `decode_rows` takes: the message with room, and rows to be filled."""
    rows = np.zeros((n_rows, int(coder.encoder.widths[0])), np.uint8)
    return with_room(message, n_rows * int(coder.decoder.widths[0])), rows


def encode_rows(coder, rows, message, totals):
    """`encode` on a message with room; adds to totals."""
    n_latent = coder.decoder.widths[0]
    buckets = np.empty(n_latent, np.int64)
    for i in range(len(rows)):
        pop_latent(coder, message, run(coder.encoder, looked_up(coder.inputs, rows[i])), buckets, totals)  # z ~ q(z|x)
        push_data(coder, message, run(coder.decoder, looked_up(coder.centres, buckets)), rows[i], totals)  # x ~ p(x|z)
        codes.push_uniform(message, buckets, coder.bits)  # z ~ p(z)


def decode_rows(coder, rows, message):
    """`decode`, to rows, on a message with room: the lines of `encode_rows` in opposite order."""
    n_latent = coder.decoder.widths[0]
    buckets = np.empty(n_latent, np.int64)
    for i in range(len(rows) - 1, -1, -1):
        codes.pop_uniform(message, buckets, coder.bits)
        pop_data(coder, message, run(coder.decoder, looked_up(coder.centres, buckets)), rows[i])
        push_latent(coder, message, run(coder.encoder, looked_up(coder.inputs, rows[i])), buckets)


def looked_up(values, numbers):
    """values[numbers], (n,): values (K,), whole numbers (n,)."""
    return values[numbers]


def run(network, x):
    """The network's output: x (n_in,) -> (n_out,)."""
    position, last = 0, len(network.widths) - 2
    for i in range(last + 1):
        n_in, n_out = network.widths[i], network.widths[i + 1]
        W = network.weights[position : position + n_in * n_out].reshape(n_in, n_out)
        b = network.weights[position + n_in * n_out : position + (n_in + 1) * n_out]
        position += (n_in + 1) * n_out
        x = dense(x, W, b, network.activation if i < last else 0)
    return bounded(x)


def bounded(output):
    """The output (n,) with 0 for what is not below 10^9 in size, infinity and NaN included: no weights whatever may give the
    coder a number that it cannot use."""
    return np.where((output > -LARGEST_OUTPUT) & (output < LARGEST_OUTPUT), output, 0.0)


def conditional_mean(coder, posterior, eps, l):
    """The mean of z_l given those before it: mu_l + Σ_k<l F_lk eps_k, as in `npvae.ops.full_posterior`, or mu_l alone."""
    mean, n_latent = posterior[l], len(eps)
    if coder.full:
        first = 2 * n_latent + l * (l - 1) // 2
        for k in range(l):
            mean += posterior[first + k] * eps[k]
    return mean


def spread_of(posterior, n_latent):
    """Log-variance, clipped, and standard deviation of each z_l given those before it: (L,), (L,)."""
    raw = posterior[n_latent : 2 * n_latent]
    logvar = np.where(raw > LOGVAR_MIN, np.where(raw < LOGVAR_MAX, raw, LOGVAR_MAX), LOGVAR_MIN)
    return logvar, exp(0.5 * logvar)


def pop_latent(coder, message, posterior, buckets, totals, stirred=False):
    """Pop z ~ q(z|x), one dimension given those before it, to buckets (L,): posterior as the encoder's network gives it.
    stirred: whether the message is stirred before each pop, for `npvae.ops.bit_swap`."""
    n_latent = len(buckets)
    (logvar, sigma), eps = spread_of(posterior, n_latent), np.zeros(n_latent)
    for l in range(n_latent):
        mean = conditional_mean(coder, posterior, eps, l)
        if stirred:
            stir(message)
        buckets[l] = codes.pop_normal(message, mean, sigma[l], coder.edges, coder.centres)
        z = coder.centres[buckets[l]]
        eps[l] = (z - mean) / sigma[l]
        totals[LOG_RATIO] += 0.5 * (z * z - eps[l] * eps[l] - logvar[l]) * LOG2_E
        mass, slots = codes.normal_mass(buckets[l], mean, sigma[l], coder.edges)
        totals[BUCKET] += coder.bits + log(mass) * LOG2_E
        totals[BUCKET_CODED] += coder.bits - codes.PRECISION + log(1.0 * slots) * LOG2_E
    totals[KL] += kl_of(posterior, logvar, sigma) * LOG2_E


def push_latent(coder, message, posterior, buckets, stirred=False):
    """Push z under q(z|x): the last dimension first, but all means are known only from the first on."""
    n_latent = len(buckets)
    (_, sigma), eps, means = spread_of(posterior, n_latent), np.zeros(n_latent), np.empty(n_latent)
    for l in range(n_latent):
        means[l] = conditional_mean(coder, posterior, eps, l)
        eps[l] = (coder.centres[buckets[l]] - means[l]) / sigma[l]
    for l in range(n_latent - 1, -1, -1):
        codes.push_normal(message, buckets[l], means[l], sigma[l], coder.edges)
        if stirred:
            unstir(message)


def kl_of(posterior, logvar, sigma):
    """KL(q(z|x) ‖ N(0, I)) in nats: ½ Σ_l (mu_l² + σ_l² − 1 − log σ_l²), and half the squares of what is below the diagonal."""
    n_latent, kl = len(sigma), 0.0
    for l in range(n_latent):
        kl += 0.5 * (posterior[l] * posterior[l] + sigma[l] * sigma[l] - 1.0 - logvar[l])
    for below in posterior[2 * n_latent :]:
        kl += 0.5 * (below * below)
    return kl


def masses_of(coder, output, first, last):
    """p(x|z) of each level, up to a factor, for the pixels first to last − 1: the decoder's output -> (K, last − first)."""
    n_data, n_levels = coder.encoder.widths[0], len(coder.inputs)
    if coder.likelihood == CATEGORICAL:
        return codes.categorical_masses(output[first * n_levels : last * n_levels].reshape(last - first, n_levels))
    return codes.beta_binomial_masses(output[first:last], output[n_data + first : n_data + last], n_levels - 1)


def push_data(coder, message, output, x, totals):
    """Push x ~ p(x|z): the decoder's output, x (D,)."""
    if coder.likelihood == BERNOULLI:
        table = codes.bernoulli_table(output)
        codes.push_bernoulli(message, x, table)
        count_bernoulli(output, table, x, totals)
        return
    for first in range((len(x) - 1) // PIECE * PIECE, -1, -PIECE):
        last = min(first + PIECE, len(x))
        masses = masses_of(coder, output, first, last)
        table = codes.levels_table(masses)
        codes.push_levels(message, x[first:last], table)
        count_levels(masses, table, x[first:last], totals)


def pop_data(coder, message, output, x):
    """Pop x ~ p(x|z) to x (D,)."""
    if coder.likelihood == BERNOULLI:
        codes.pop_bernoulli(message, x, codes.bernoulli_table(output))
        return
    for first in range(0, len(x), PIECE):
        last = min(first + PIECE, len(x))
        codes.pop_levels(message, x[first:last], codes.levels_table(masses_of(coder, output, first, last)))


def count_bernoulli(logits, table, x, totals):
    """Add to totals what zeros and ones x (D,) cost, by their probabilities and by their slots."""
    exact = softplus(np.where(x > 0, -logits, logits))
    coded = log(1.0 * np.where(x > 0, table, codes.N_SLOTS - table))
    for d in range(len(x)):
        totals[NLL] += exact[d] * LOG2_E
        totals[NLL_CODED] += codes.PRECISION - coded[d] * LOG2_E


def count_levels(masses, table, x, totals):
    """Add to totals what levels x (D,) cost, by their probabilities and by their slots."""
    for d in range(len(x)):
        level, total = np.int64(x[d]), 0.0
        for k in range(len(masses)):
            total += masses[k, d]
        totals[NLL] += log(total / max(masses[level, d], codes.SMALLEST_MASS)) * LOG2_E
        totals[NLL_CODED] += codes.PRECISION - log(1.0 * (table[level + 1, d] - table[level, d])) * LOG2_E
