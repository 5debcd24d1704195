"""Rows of data as they lie in memory, and how a minibatch of model input is made of them.

Grey images under the Bernoulli likelihood are binarised afresh for every minibatch: each pixel is a one with the probability
of its grey level. That is "dynamic binarisation", which the published numbers use (Burda et al. 2016).
"""

import math
from dataclasses import dataclass
from types import ModuleType

import numpy as np

import npvae.ops
from npvae.core import checks
from npvae.data.arrays import as_rows, grey_scale

ROWS_PER_CHECK = 1000


@dataclass(frozen=True)
class Rows:
    """A tuple of arrays with the same rows, checked once: the data, and what else a model's batch holds (a condition)."""

    arrays: tuple  # the first is the data x (n, D) bool, uint8 or float; others (n, ...) are handed over as they are
    scale: float  # of the data: 1/255 for grey levels
    binarize: bool  # draw ones with the probability of the grey level
    dtype: np.dtype  # of the batches
    ops: ModuleType  # the table of ops, whose `binarize` is called

    @classmethod
    def of(cls, model, data, name, binarize=True):
        """Check data, an array (n, D) or a tuple of arrays, for `model`; ValueError calls it `name`. uint8 grey levels 0–255
        stay bytes and mean 0–1. binarize=False leaves grey levels as they are. Rows that were checked before are returned."""
        if isinstance(data, cls):
            return data
        data = data if isinstance(data, tuple) else (data,)
        dtype, ops = model.theta.dtype, getattr(model, "ops", npvae.ops)
        if not data:
            return cls((), 1.0, False, dtype, ops)
        is_for_binary = getattr(model, "data_kind", "real") == "binary"
        x = as_rows(data[0], name)
        n_features = getattr(model, "n_features", x.shape[1])
        if x.shape[1] != n_features:
            raise ValueError(f"{name} must have {n_features} columns, the model's n_features; got shape {x.shape}")
        others = tuple(np.asarray(array) for array in data[1:])
        if any(len(array) != len(x) for array in others):
            lengths = ", ".join(str(len(array)) for array in (x, *others))
            raise ValueError(f"{name} must be arrays with the same number of rows; got {lengths}")
        scale = grey_scale(x)
        if is_for_binary and scale == 1:
            checks.unit_interval(name, x)
        rows = cls((x, *others), scale, binarize and is_for_binary and not is_binary(x), dtype, ops)
        rows.check(model, name)
        return rows

    def __len__(self):
        return len(self.arrays[0]) if self.arrays else 0

    def check(self, model, name):
        """Put every row before the model's own check; its ValueError is raised with the name of the data."""
        rng = np.random.default_rng(0)
        for start in range(0, len(self), ROWS_PER_CHECK):
            index = np.arange(start, min(start + ROWS_PER_CHECK, len(self)))
            try:
                model.check(*self.batch(index, rng))
            except ValueError as error:
                raise ValueError(f"{name} cannot be used: {error}") from None

    def batch(self, index, rng, out=None):
        """Rows `index` (B,) as a tuple of model input, x (B, D) first, binarised with numbers from rng if grey; x is written to
        `out` if given."""
        if not self.arrays:
            return ()
        x, *others = self.arrays
        return (self.model_input(x, index, rng, out), *(array[index] for array in others))

    def model_input(self, x, index, rng, out):
        """The data of some rows, (n, D) -> (B, D)."""
        shape = (len(index), x.shape[1])
        out = np.empty(shape, self.dtype) if out is None else out
        if self.binarize:
            bits = rng.bit_generator.random_raw(math.ceil(out.size / 4))  # each draw of 64 bits gives four 16-bit uniforms
            noise = bits.view(np.uint16)[: out.size].reshape(shape)
            return self.ops.binarize(x, index, noise, self.scale, out)
        out[:] = x[index]
        if self.scale != 1:
            out *= self.dtype.type(self.scale)
        return out


def is_binary(x):
    """Whether an array holds nothing but zeros and ones (chunk by chunk, so that no large mask is made)."""
    return x.dtype == bool or all(((rows == 0) | (rows == 1)).all() for rows in np.array_split(x, len(x) // 1000 + 1))


def model_input(model, x, rng=None, name="x"):
    """All of x (n, D) as the model sees it, (n, D) of its dtype: grey levels scaled to 0–1 and, under the Bernoulli likelihood,
    one draw of zeros and ones with those probabilities. rng is a Generator or a seed; ValueError, with `name`, for bad x."""
    rows = Rows.of(model, x, name)
    return rows.batch(np.arange(len(rows)), np.random.default_rng(rng))[0]
