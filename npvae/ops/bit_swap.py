"""Bits-back coding with a chain of latents: rows of data on a message at the price of the bound, −ELBO.

Kingma, Abbeel & Ho 2019 (Bit-Swap, arXiv:1905.06845). With one latent, `npvae.ops.bits_back`, the encoder of a row pops
z ~ q(z|x), pushes x ~ p(x|z) and pushes z ~ p(z). With a chain, p(z_T) Π_t p(z_t|z_t+1) p(x|z_1) and q(z_1|x) Π_t q(z_t|z_t-1),
it may pop all latents first and then push x, z_1, ..., z_T, "all at once". Or it pushes as soon as it can, "interleaved":

    for t = 1, ..., T:   pop z_t ~ q(z_t|z_t-1),   push z_t-1 ~ p(z_t-1|z_t), where z_0 is x;      then push z_T ~ p(z_T).

Both orders have the same moves, and so the same cost. They differ in how many bits must be on the message before the first row.
All at once, it is what all latents pop, Σ_t −log2 q(z_t|z_t-1). Interleaved, z_2 is popped from what x has just put on the
message, z_3 from what z_1 has, and so on: it is what z_1 pops, and little more, however long the chain.

Before each number of a latent is popped the message is stirred (`rans.stir`). Else those of z_3 would be functions of those of
z_1, which was pushed just before, rather than draws, and those of z_1 of those of the row before. With one latent nothing is
stirred: what is pushed last is then the number of a bucket, and its last bits, which decide, are as good as random.

The topmost latent is rounded as that of a VAE is: to 2^16 buckets of equal mass under its prior N(0, I), of which one costs 16
bits. The prior of one in the middle is another for each z_t+1, which the decoder does not know yet when it needs the buckets of
z_t. So they are fixed: 2^10 buckets in each dimension, as many as in that paper, of equal mass under N(centre, scale²), where
centre and scale/2 are mean and standard deviation of draws down the chain. Both q(z_t|z_t-1) and p(z_t|z_t+1) are coded by
their masses of these buckets, p with two slots at least for each. Where the buckets are is a matter of the rate alone, never of
what comes back: they cost less than 1e-6 bits for each pixel of digits of 256 levels.

`npvae.kernels.bit_swap` compiles this file as it stands. Shapes: D data, T latents of L_t dimensions, L of all of them.
"""

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from npvae.ops import bits_back, codes
from npvae.ops.bits_back import BUCKET, BUCKET_CODED, KL, LOG_RATIO, Network, looked_up, run, spread_of
from npvae.ops.rans import WORD_MASK, start_word, stir, unstir, with_room
from npvae.ops.reproducible import LOG2_E, log, normal_quantile

ORDERS = ("interleaved", "all_at_once")
MIDDLE_BITS = 10  # 2^10 buckets for each dimension of a latent that has another one above it
LEAST_SLOTS = 2  # of each of them under p(z_t|z_t+1): see `codes.normal_start`
N_DRAWS, SEED = 100, 2**31  # the draws down the chain that buckets are placed by, and the seed of their noise
SCALE = 2.0  # in standard deviations: the outermost medians are at ±6.6 of them
SMALLEST_SCALE = 1e-9
SMALLEST_MASS = 1e-19  # what the normal distribution function has at its end, −9

TOTALS = bits_back.TOTALS  # "kl": of the topmost latent in closed form, of the others log q/p of the sample, as in "log_ratio"


class Coder(NamedTuple):
    """What the coding of a row needs of a model with T latents."""

    data: bits_back.Coder  # the networks q(z_1|x) and p(x|z_1), the likelihood, the buckets of z_T
    weights: np.ndarray  # float64: those of q(z_2|z_1), ..., q(z_T|z_T-1), p(z_1|z_2), ..., p(z_T-1|z_T) in turn
    starts: np.ndarray  # int64, (2T − 1,): where each of these networks begins, and the end
    widths: np.ndarray  # int64, (2T − 2, n_layers + 1): as in a Network
    first: np.ndarray  # int64, (T + 1,): z_t is z[first[t − 1] : first[t]]
    centre: np.ndarray  # float64, (L,): the buckets of z_t are intervals of (z_t − centre)/scale; not used for z_T
    scale: np.ndarray
    edges: np.ndarray  # of `codes.buckets_of_equal_mass`, for all latents but z_T
    centres: np.ndarray
    moves: np.ndarray  # int64, (2T,): what the encoder does in turn: t pops z_t, −t pushes what z_t generates
    stirred: bool  # whether the message is stirred before each number of a latent that is popped by q


class Latents(NamedTuple):
    """The latents of one row."""

    buckets: np.ndarray  # int64, (L,)
    z: np.ndarray  # float64, (L,): medians of the buckets
    posteriors: np.ndarray  # float64, (2L,): the output of q's network, of each latent in turn


def coder_of(encoders, priors, decoder, likelihood, inputs, order="interleaved", bits=MIDDLE_BITS):
    """The Coder of a model's layers, each a list of (W, b, activation): encoders of q(z_1|x), ..., q(z_T|z_T-1), priors of
    p(z_1|z_2), ..., p(z_T-1|z_T), decoder of p(x|z_1). likelihood and inputs as in `bits_back.coder_of`, order one of ORDERS,
    2^bits buckets for each dimension of the latents in the middle."""
    data = bits_back.coder_of(encoders[0], decoder, likelihood, "diagonal", inputs)
    latent = [len(layers[-1][1]) // 2 for layers in encoders]
    upwards, downwards = ([bits_back.network_of(layers) for layers in way] for way in (encoders[1:], priors))
    networks, n_widths = upwards + downwards, len(data.encoder.widths)
    return Coder(
        data,
        np.concatenate([np.zeros(0), *(network.weights for network in networks)]),
        np.array([0, *accumulate(len(network.weights) for network in networks)], np.int64),
        np.array([network.widths for network in networks], np.int64).reshape(-1, n_widths),
        np.array([0, *accumulate(latent)], np.int64),
        *places(downwards, latent),
        *codes.buckets_of_equal_mass(bits),
        moves_of(len(latent), order),
        len(latent) > 1,
    )


def moves_of(n_latents, order):
    """The moves of the encoder, (2T,), in one of ORDERS."""
    pops = np.arange(1, n_latents + 1)
    return np.stack([pops, -pops], axis=1).ravel() if order == "interleaved" else np.concatenate([pops, -pops])


def places(priors, latent):
    """centre and scale of each dimension, (L,) each: mean, and SCALE standard deviations, of draws from z_T ~ N(0, I) down to
    z_1. priors: the Networks of p(z_1|z_2), ..., p(z_T-1|z_T); latent: the widths L_t."""
    first, n_latent = [0, *accumulate(latent)], sum(latent)
    words = np.array([start_word(SEED, i & WORD_MASK) for i in range(N_DRAWS * n_latent)])
    draws = normal_quantile((words + 0.5) / (WORD_MASK + 1)).reshape(N_DRAWS, n_latent)  # the noise, and z in its place
    for z in draws:
        for t in range(len(latent) - 1, 0, -1):
            output = run(priors[t - 1], z[first[t] : first[t + 1]])  # (L_t+1,) -> (2L_t,)
            of_t = slice(first[t - 1], first[t])
            z[of_t] = output[: latent[t - 1]] + spread_of(output, latent[t - 1])[1] * z[of_t]
    centre = mean_of(draws)
    scale = SCALE * np.sqrt(mean_of((draws - centre) * (draws - centre)))
    return centre, np.where(scale > SMALLEST_SCALE, scale, SMALLEST_SCALE)


def mean_of(rows):
    """The mean of rows (n, L) -> (L,), added up in their order, so that it has the same bits everywhere."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total / len(rows)


def encode(coder, rows, message):
    """As `bits_back.encode`."""
    rows, message, totals = prepared(coder, rows, message)
    encode_rows(coder, rows, message, totals)
    return message, totals


def decode(coder, n_rows, message):
    """As `bits_back.decode`."""
    message, rows = room_for(coder, n_rows, message)
    decode_rows(coder, rows, message)
    return message, rows


def prepared(coder, rows, message):
    """What `encode_rows` takes: rows, checked; the message with room for them; totals of 0."""
    rows, message, totals = bits_back.prepared(coder.data, rows, message)
    return rows, with_room(message, len(rows) * int(rows.shape[1] + coder.first[-1])), totals


def room_for(coder, n_rows, message):
    """What `decode_rows` takes: the message with room, and rows to be filled."""
    message, rows = bits_back.room_for(coder.data, n_rows, message)
    return with_room(message, n_rows * int(coder.first[-1])), rows


def encode_rows(coder, rows, message, totals):
    """`encode` on a message with room; adds to totals."""
    latents, top = new_latents(coder), len(coder.first) - 1
    for i in range(len(rows)):
        for t in coder.moves:
            if t > 0:
                pop_latent(coder, message, rows[i], latents, t, totals)  # z_t ~ q(z_t|z_t-1)
            else:
                push_below(coder, message, rows[i], latents, -t, totals)  # z_t-1 ~ p(z_t-1|z_t)
        codes.push_uniform(message, part(latents.buckets, coder, top), coder.data.bits)  # z_T ~ p(z_T)


def decode_rows(coder, rows, message):
    """`decode`, to rows, on a message with room: the moves of `encode_rows` in opposite order."""
    latents, top = new_latents(coder), len(coder.first) - 1
    for i in range(len(rows) - 1, -1, -1):
        codes.pop_uniform(message, part(latents.buckets, coder, top), coder.data.bits)
        part(latents.z, coder, top)[:] = looked_up(coder.data.centres, part(latents.buckets, coder, top))
        for t in coder.moves[::-1]:
            if t > 0:
                push_latent(coder, message, rows[i], latents, t)
            else:
                pop_below(coder, message, rows[i], latents, -t)


def new_latents(coder):
    """Latents of nothing yet."""
    n_latent = coder.first[-1]
    return Latents(np.zeros(n_latent, np.int64), np.zeros(n_latent), np.zeros(2 * n_latent))


def part(values, coder, t):
    """The part of values (L,) that is z_t's, (L_t,)."""
    return values[coder.first[t - 1] : coder.first[t]]


def network(coder, i):
    """The i-th Network in coder.weights."""
    weights = coder.weights[coder.starts[i] : coder.starts[i + 1]]
    return Network(weights, coder.widths[i], coder.data.encoder.activation)


def posterior_of(coder, x, latents, t):
    """Mean and log-variance of q(z_t|z_t-1), or of q(z_1|x): (2L_t,)."""
    if t == 1:
        return run(coder.data.encoder, looked_up(coder.data.inputs, x))
    return run(network(coder, t - 2), part(latents.z, coder, t - 1))


def prior_of(coder, latents, t):
    """Mean and log-variance of p(z_t|z_t+1), t below T: (2L_t,)."""
    return run(network(coder, len(coder.first) + t - 3), part(latents.z, coder, t + 1))


def pop_latent(coder, message, x, latents, t, totals):
    """Pop z_t ~ q(z_t|z_t-1)."""
    posterior, buckets = posterior_of(coder, x, latents, t), part(latents.buckets, coder, t)
    if t == len(coder.first) - 1:
        bits_back.pop_latent(coder.data, message, posterior, buckets, totals, coder.stirred)
        part(latents.z, coder, t)[:] = looked_up(coder.data.centres, buckets)
        return
    latents.posteriors[2 * coder.first[t - 1] : 2 * coder.first[t]] = posterior
    pop_gaussian(coder, message, posterior, latents, t, 0, coder.stirred)


def push_latent(coder, message, x, latents, t):
    """Push z_t under q(z_t|z_t-1)."""
    posterior = posterior_of(coder, x, latents, t)
    if t == len(coder.first) - 1:
        bits_back.push_latent(coder.data, message, posterior, part(latents.buckets, coder, t), coder.stirred)
    else:
        push_gaussian(coder, message, posterior, latents, t, 0, coder.stirred)


def push_below(coder, message, x, latents, t, totals):
    """Push what z_t generates: z_t-1 ~ p(z_t-1|z_t), or x ~ p(x|z_1)."""
    if t == 1:
        bits_back.push_data(coder.data, message, run(coder.data.decoder, part(latents.z, coder, 1)), x, totals)
    else:
        prior = prior_of(coder, latents, t - 1)
        push_gaussian(coder, message, prior, latents, t - 1, LEAST_SLOTS, False)
        count_latent(coder, prior, latents, t - 1, totals)


def pop_below(coder, message, x, latents, t):
    """Pop what z_t generates, to latents, or to x (D,)."""
    if t == 1:
        bits_back.pop_data(coder.data, message, run(coder.data.decoder, part(latents.z, coder, 1)), x)
    else:
        pop_gaussian(coder, message, prior_of(coder, latents, t - 1), latents, t - 1, LEAST_SLOTS, False)


def pop_gaussian(coder, message, output, latents, t, least, stirred):
    """Pop z_t, not the topmost, of the Gaussian of a network's output (2L_t,), each bucket with `least` slots at least.
    stirred: whether the message is stirred before each pop."""
    n_latent, first = len(output) // 2, coder.first[t - 1]
    _, sigma = spread_of(output, n_latent)
    for l in range(n_latent):
        centre, scale = coder.centre[first + l], coder.scale[first + l]
        mean, width = (output[l] - centre) / scale, sigma[l] / scale
        if stirred:
            stir(message)
        bucket = codes.pop_normal(message, mean, width, coder.edges, coder.centres, least)
        latents.buckets[first + l], latents.z[first + l] = bucket, centre + scale * coder.centres[bucket]


def push_gaussian(coder, message, output, latents, t, least, stirred):
    """Push what `pop_gaussian` pops."""
    n_latent, first = len(output) // 2, coder.first[t - 1]
    _, sigma = spread_of(output, n_latent)
    for l in range(n_latent - 1, -1, -1):
        centre, scale = coder.centre[first + l], coder.scale[first + l]
        mean, width = (output[l] - centre) / scale, sigma[l] / scale
        codes.push_normal(message, latents.buckets[first + l], mean, width, coder.edges, least)
        if stirred:
            unstir(message)


def count_latent(coder, prior, latents, t, totals):
    """Add to totals what z_t, not the topmost, costs: log2 q(z_t|z_t-1)/p(z_t|z_t+1), of densities, of masses and of slots."""
    n_latent, first = len(prior) // 2, coder.first[t - 1]
    posterior = latents.posteriors[2 * first : 2 * (first + n_latent)]
    logvar_q, sigma_q = spread_of(posterior, n_latent)
    logvar_p, sigma_p = spread_of(prior, n_latent)
    for l in range(n_latent):
        bucket, z = latents.buckets[first + l], latents.z[first + l]
        eps_q, eps_p = (z - posterior[l]) / sigma_q[l], (z - prior[l]) / sigma_p[l]
        ratio = 0.5 * (eps_p * eps_p - eps_q * eps_q + logvar_p[l] - logvar_q[l]) * LOG2_E
        totals[KL] += ratio
        totals[LOG_RATIO] += ratio
        centre, scale = coder.centre[first + l], coder.scale[first + l]
        mass_q, slots_q = codes.normal_mass(bucket, (posterior[l] - centre) / scale, sigma_q[l] / scale, coder.edges)
        mass_p, slots_p = codes.normal_mass(bucket, (prior[l] - centre) / scale, sigma_p[l] / scale, coder.edges, LEAST_SLOTS)
        totals[BUCKET] += log(max(mass_q, SMALLEST_MASS) / max(mass_p, SMALLEST_MASS)) * LOG2_E
        totals[BUCKET_CODED] += log(slots_q / slots_p) * LOG2_E
