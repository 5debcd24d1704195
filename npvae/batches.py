"""Minibatches: rows of data as model input, and the random numbers that go with them.

Everything random is a pure function of the seed and of counters: the order of rows of (seed, epoch), noise and binarisation of
(seed, shard, step). What a step draws does not depend on what was drawn before.

Grey images under the Bernoulli likelihood are binarised afresh for every minibatch: each pixel is a one with the probability
of its grey level. That is "dynamic binarisation", which the published numbers use (Burda et al. 2016).
"""

import math
from typing import NamedTuple

import numpy as np

from npvae import checks
from npvae.data.arrays import as_rows, grey_scale
from npvae.vae import VAE

# The streams of random numbers that one seed gives.
PERMUTATION, STEP, VALIDATION, FULL_BATCH = range(4)


def generator(seed, stream, *counters):
    """A generator of its own for each set of arguments: a pure function of them."""
    return np.random.default_rng([seed, stream, *counters])


class Stream:
    """The random numbers of one shard, step by step; `at(step)` is as good as a `generator` of the step, and 10 times as fast.

    One sequence of PCG64DXSM, of period 2^128, in which step t begins at t times a stride of about 2^128 (√5 − 1)/2: wherever
    a run goes on, any two of up to 10^12 steps are more than 10^25 numbers apart (the jumps of NumPy's parallel streams).
    """

    STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835

    def __init__(self, seed, stream, *counters):
        self.bits = np.random.PCG64DXSM([seed, stream, *counters])
        self.beginning = self.bits.state
        self.generator = np.random.Generator(self.bits)

    def at(self, step):
        """The generator, moved to where the numbers of `step` begin."""
        self.bits.state = self.beginning
        self.bits.advance(step * self.STRIDE)
        return self.generator


class Rows(NamedTuple):
    """Data as it lies in memory, checked once, and how a minibatch of model input is made of it."""

    x: np.ndarray  # (n, D) bool, uint8 or float
    scale: float  # 1/255 for grey levels
    binarize: bool  # draw ones with the probability of the grey level
    model: VAE  # whose dtype and back end a batch is made for

    @classmethod
    def of(cls, model, x, name, binarize=True):
        """Check x (n, D) for `model`; ValueError names it. uint8 grey levels 0–255 stay bytes and mean 0–1."""
        x = as_rows(x, name)
        if x.shape[1] != model.n_features:
            raise ValueError(f"{name} must have {model.n_features} columns, the model's n_features; got shape {x.shape}")
        scale = grey_scale(x)
        if model.likelihood == "bernoulli" and scale == 1:
            checks.unit_interval(name, x)
        return cls(x, scale, binarize and model.likelihood == "bernoulli" and not is_binary(x), model)

    def batch(self, index, rng, out=None):
        """Rows `index` (B,) as model input (B, D), binarised with numbers from rng if grey; written to `out` if given."""
        shape, dtype = (len(index), self.x.shape[1]), self.model.dtype
        x = np.empty(shape, dtype) if out is None else out
        if self.binarize:
            bits = rng.bit_generator.random_raw(math.ceil(x.size / 4))  # 64 bits are four numbers of 16
            noise = bits.view(np.uint16)[: x.size].reshape(shape)
            return self.model.ops.binarize(self.x, index, noise, self.scale, x)
        x[:] = self.x[index]  # (n, D) -> (B, D)
        if self.scale != 1:
            x *= dtype.type(self.scale)
        return x


def is_binary(x):
    """Whether an array holds nothing but zeros and ones (chunk by chunk, so that no large mask is made)."""
    return x.dtype == bool or all(((rows == 0) | (rows == 1)).all() for rows in np.array_split(x, len(x) // 1000 + 1))


def model_input(model, x, rng=None, name="x"):
    """All of x (n, D) as the model sees it, (n, D) of its dtype: grey levels scaled to 0–1 and, under the Bernoulli likelihood,
    one draw of zeros and ones with those probabilities. rng is a Generator or a seed; ValueError, with `name`, for bad x."""
    rows = Rows.of(model, x, name)
    return rows.batch(np.arange(len(rows.x)), np.random.default_rng(rng))
