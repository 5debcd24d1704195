"""Probabilities as whole numbers of slots for `npvae.ops.rans`, and symbols pushed and popped with them.

Every distribution shares out the 2^24 slots of a symbol, the uniform excepted, which needs as many as it has symbols. 24 bits
is where two losses are both small:

* Rounding. In a likelihood every symbol has at least one slot, since data may be unlikely but must be possible. For that K
  symbols give up a share of K/2^24: −log2(1 − K/2^24) is 2e-7 bits a symbol for a Bernoulli variable, 2e-5 for 256 levels.
  (Symbols that are less likely than a slot gain more than this: levels cost less in all than their −log2 p(x|z).)
* The coder's own, below 1e-6 bits a symbol at 24 bits, which grows fourfold with each further bit (`npvae.ops.rans`).

The posterior is another matter: from it z is drawn, by popping. A bucket must not get a slot that it does not deserve: z would
now and then be far from where the posterior is, and cost hundreds of bits in the likelihood. So there the distribution function
is rounded and nothing added. A bucket without a slot is never popped, and so it is never pushed. The prior of a latent that is
itself Gaussian, given the latent above it, is a likelihood in this: every bucket must be possible. There `least` slots are set
aside for each, two of them, since rounding errors of Φ may take one away.

Vectors are pushed from the last entry to the first, so that they are popped from the first to the last. `npvae.kernels.codes`
compiles the moves below as they stand here, and has twins of the tables. Shapes: D data, K levels, L latent.
"""

import functools

import numpy as np

from npvae.ops.rans import FAULTS, pop, push, slot
from npvae.ops.reproducible import exp, normal_cdf, normal_quantile, sigmoid

PRECISION = 24
N_SLOTS = 1 << PRECISION
LOG_MIN, LOG_MAX = -23.0, 23.0  # those of `npvae.ops.discrete`
SMALLEST_MASS = 1e-280  # what is below it, relative to the mode, is 0: smaller floats are slow

# ---- uniform: one of 2^bits ----


def push_uniform(message, symbols, bits):
    """Push whole numbers, symbols (n,) in [0, 2^bits), bits ≤ 31: no loss at all."""
    for i in range(len(symbols) - 1, -1, -1):
        push(message, np.int64(symbols[i]), 1, bits)


def pop_uniform(message, symbols, bits):
    """Pop what `push_uniform` pushed, to symbols (n,)."""
    for i in range(len(symbols)):
        symbols[i] = slot(message, bits)
        pop(message, np.int64(symbols[i]), 1, bits)


# ---- Bernoulli ----


def bernoulli_table(logits):
    """How many slots a one has, logits (D,) -> int64 (D,), from 1 to 2^24 − 1; they are the last ones."""
    return 1 + (sigmoid(logits) * (N_SLOTS - 2)).astype(np.int64)


def bernoulli_slots(table, d, symbol):
    """Start and frequency of symbol 0 or 1 of variable d."""
    zeros = N_SLOTS - table[d]
    return (zeros, table[d]) if symbol > 0 else (0, zeros)


def push_bernoulli(message, x, table):
    """Push zeros and ones, x (D,), with the slots of a `bernoulli_table`."""
    for d in range(len(x) - 1, -1, -1):
        start, frequency = bernoulli_slots(table, d, x[d])
        push(message, start, frequency, PRECISION)


def pop_bernoulli(message, x, table):
    """Pop what `push_bernoulli` pushed, to x (D,)."""
    for d in range(len(x)):
        x[d] = slot(message, PRECISION) >= N_SLOTS - table[d]
        start, frequency = bernoulli_slots(table, d, x[d])
        pop(message, start, frequency, PRECISION)


# ---- levels: categorical and beta-binomial ----


def levels_table(masses):
    """Where the slots of each level start: masses (K, D) ≥ 0, of any positive sum -> int64 (K + 1, D) from 0 to 2^24.

    start_k = k + ⌊(2^24 − K) S_k/S_K⌋ with S_k the sum of the masses before level k. A slot for each level is set aside, and
    neither sums of masses nor roundings ever decrease: so each level has at least one.
    """
    n_levels, n_data = masses.shape
    table, sums = np.empty((n_levels + 1, n_data), np.int64), np.zeros((n_levels + 1, n_data))
    for k in range(n_levels):
        sums[k + 1] = sums[k] + masses[k]
    scale = (N_SLOTS - n_levels) / sums[n_levels]
    for k in range(n_levels):
        table[k] = k + (sums[k] * scale).astype(np.int64)
    table[n_levels] = N_SLOTS
    return table


def categorical_masses(logits):
    """p_k of categorical variables, each relative to the largest: logits (D, K) -> (K, D). `ops.discrete`."""
    masses = np.empty(logits.shape[::-1])
    for d in range(len(logits)):
        masses[:, d] = exp(logits[d] - logits[d].max())
    return masses


def beta_binomial_masses(log_alpha, log_beta, n):
    """p(k) of beta-binomial variables in {0, …, n}, each relative to that of one level near the mode: (D,), (D,) -> (n + 1, D).

    From one level to the next, p(k + 1)/p(k) = (n − k) (α + k) / ((k + 1) (β + n − k − 1)): no Γ is needed. If α and β are
    above 1, this is at least 1 for k up to (n (α − 1) − (β − 1))/(α + β − 2); from there the masses fall in both directions,
    and none overflows. With other α and β the mode is at an end of the range, or no mass is large and any level will do.
    """
    alpha, beta = exp(bounded(log_alpha)), exp(bounded(log_beta))
    excess = alpha + beta - 2.0
    mode = np.floor((n * (alpha - 1.0) - (beta - 1.0)) / np.where(excess > 0.0, excess, 1.0)) + 1.0
    masses = np.ones((n + 1, len(alpha)))
    for k in range(n):  # upwards
        ratio = ((n - k) * (alpha + k)) / ((k + 1) * (beta + (n - 1 - k)))
        masses[k + 1] = np.where(k < mode, 1.0, nonnegligible(masses[k] * ratio))
    for k in range(n - 1, -1, -1):  # downwards
        ratio = ((k + 1) * (beta + (n - 1 - k))) / ((n - k) * (alpha + k))
        masses[k] = np.where(k < mode, nonnegligible(masses[k + 1] * ratio), masses[k])
    return masses


def bounded(logs):
    """log α or log β within the bounds of `npvae.ops.discrete`."""
    return np.where(logs > LOG_MIN, np.where(logs < LOG_MAX, logs, LOG_MAX), LOG_MIN)


def nonnegligible(masses):
    """0 for masses that would soon be subnormal, the others as they are."""
    return np.where(masses < SMALLEST_MASS, 0.0, masses)


def push_levels(message, x, table):
    """Push levels x (D,) in {0, …, K − 1}, with the slots of a `levels_table` (K + 1, D)."""
    for d in range(len(x) - 1, -1, -1):
        k = np.int64(x[d])
        push(message, table[k, d], table[k + 1, d] - table[k, d], PRECISION)


def pop_levels(message, x, table):
    """Pop what `push_levels` pushed, to x (D,)."""
    for d in range(len(x)):
        own, low, high = slot(message, PRECISION), 0, len(table) - 1
        while high - low > 1:  # table[low] ≤ own < table[high]
            middle = (low + high) // 2
            if table[middle, d] <= own:
                low = middle
            else:
                high = middle
        x[d] = low
        pop(message, table[low, d], table[low + 1, d] - table[low, d], PRECISION)


# ---- Gaussians over buckets of equal mass under N(0, 1) ----


@functools.cache
def buckets_of_equal_mass(bits):
    """Edges (2^bits + 1,), from −∞ to ∞, and medians (2^bits,) of 2^bits intervals that are equally probable under N(0, 1).
    The same arrays at each call: not to be written to.

    Townsend, Bird & Barber 2019, arXiv:1901.04866. Under the prior the number of a bucket is uniform. bits is at most 22.
    """
    n = 1 << bits
    edges = np.empty(n + 1)
    edges[0], edges[n] = -np.inf, np.inf
    edges[1:n] = normal_quantile(np.arange(1, n) / n)
    return edges, normal_quantile((np.arange(n) + 0.5) / n)


def normal_start(i, mu, sigma, edges, least=0):
    """The first slot of bucket i under N(mu, sigma²): 2^24 Φ((edge_i − mu)/sigma), rounded: 0 at edge 0, 2^24 at the last.

    With `least` slots for each of K buckets, i least + (2^24 − K least) Φ, rounded. Φ decreases nowhere by more than 1e-14, its
    rounding error, and so the second term by no more than one slot: with least = 2 each bucket has one at least.
    """
    spare = N_SLOTS - least * (len(edges) - 1)
    return i * least + int(normal_cdf((edges[i] - mu) / sigma) * spare + 0.5)


def bucket_of(own, mu, sigma, edges, centres, least=0):
    """The bucket i with normal_start(i) ≤ own < normal_start(i + 1).

    The slot's quantile of N(mu, sigma²) is near mu + sigma times that of N(0, 1), which the centres are a table of; from the
    bucket where this lies, steps that double and then halve find the right one.
    """
    n = len(centres)
    z = mu + sigma * centres[own * n >> PRECISION]
    low = min(int(normal_cdf(z) * n), n - 1)
    high, step = low + 1, 1
    while low > 0 and normal_start(low, mu, sigma, edges, least) > own:
        low, high, step = max(low - step, 0), low, 2 * step
    while high < n and normal_start(high, mu, sigma, edges, least) <= own:
        low, high, step = high, min(high + step, n), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if normal_start(middle, mu, sigma, edges, least) <= own:
            low = middle
        else:
            high = middle
    return low


def normal_slots(message, bucket, mu, sigma, edges, least=0):
    """Start and frequency of a bucket. One without a slot has not been popped from this distribution: then the message is
    damaged, which it counts as a fault, and all slots are taken for it."""
    start = normal_start(bucket, mu, sigma, edges, least)
    frequency = normal_start(bucket + 1, mu, sigma, edges, least) - start
    if frequency < 1:
        message.registers[FAULTS] += 1
        start, frequency = 0, N_SLOTS
    return start, frequency


def push_normal(message, bucket, mu, sigma, edges, least=0):
    """Push one bucket, a whole number, with its slots under N(mu, sigma²)."""
    start, frequency = normal_slots(message, bucket, mu, sigma, edges, least)
    push(message, start, frequency, PRECISION)


def pop_normal(message, mu, sigma, edges, centres, least=0):
    """Pop a bucket of N(mu, sigma²)."""
    bucket = bucket_of(slot(message, PRECISION), mu, sigma, edges, centres, least)
    start, frequency = normal_slots(message, bucket, mu, sigma, edges, least)
    pop(message, start, frequency, PRECISION)
    return bucket


def normal_mass(bucket, mu, sigma, edges, least=0):
    """The probability of a bucket under N(mu, sigma²), and how many slots it has."""
    low, high = (edges[bucket] - mu) / sigma, (edges[bucket + 1] - mu) / sigma
    if low > 0:
        low, high = -high, -low  # where Φ has all its digits
    mass = normal_cdf(high) - normal_cdf(low)
    return mass, normal_start(bucket + 1, mu, sigma, edges, least) - normal_start(bucket, mu, sigma, edges, least)
