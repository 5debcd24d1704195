"""Rows of data as they lie in memory, and how a minibatch of model input is made of them.

Grey images under the Bernoulli likelihood are binarised afresh for every minibatch: each pixel is a one with the probability
of its grey level. That is "dynamic binarisation", which the published numbers use (Burda et al. 2016).
"""

import math
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

import npvae.ops
from npvae.core import checks, levels
from npvae.data.arrays import Mapped, as_rows, can_be_mapped

ROWS_PER_CHECK = 1000


@dataclass(frozen=True)
class Rows:
    """A tuple of arrays with the same rows, checked once: the data, and what else a model's batch holds (a condition)."""

    arrays: tuple  # the first is the data x (n, D) bool, uint8 or float; others (n, ...) are as model.check returned them
    scale: float  # of the data: 1/255 for uint8 grey levels
    binarize: bool  # draw ones with the probability of the grey level
    dtype: np.dtype  # of the batches
    ops: ModuleType  # the table of ops, whose `binarize` is called
    numbers: np.ndarray | None = None  # (n,) of the rows in the user's file, where they are a part of it

    @classmethod
    def of(cls, model, data, name, binarize=True, decides=True, ranks=None):
        """Check data, an array (n, D) or a tuple of arrays, for `model`; ValueError calls it `name`.

        uint8 data stay bytes. What they mean is read as in `npvae.core.levels`; decides: these are rows to be trained on, which
        decide it for a model that keeps no decision yet. binarize=False leaves grey levels as they are. Rows that were checked
        before are returned. Of several `ranks` (`npvae.core.ranks`) the first checks what is mapped from a file for all.
        """
        x = data[0] if isinstance(data, tuple) and len(data) == 1 else data
        if isinstance(data, cls):
            rows = data
        elif ranks is not None and ranks.all(isinstance(x, Mapped) or can_be_mapped(x)) and ranks.n > 1:
            rows = cls._checked_by_first(model, x, name, binarize, decides, ranks)
        else:
            rows = cls._checked(model, data, name, binarize, decides)
        if decides and rows.arrays and rows.arrays[0].dtype == np.uint8:
            levels.keep(model, rows.scale, name)
        return rows

    @classmethod
    def _checked_by_first(cls, model, x, name, binarize, decides, ranks):
        def verdict():
            rows = cls._checked(model, x, name, binarize, decides)
            return rows.scale, rows.binarize

        scale, binarize = ranks.first(verdict)
        x = x if isinstance(x, Mapped) else Mapped(x)
        return cls((x,), scale, binarize, model.theta.dtype, getattr(model, "ops", npvae.ops))

    @classmethod
    def _checked(cls, model, data, name, binarize, decides):
        data = data if isinstance(data, tuple) else (data,)
        dtype, ops = model.theta.dtype, getattr(model, "ops", npvae.ops)
        if not data:
            return cls((), 1.0, False, dtype, ops)
        is_for_binary = getattr(model, "data_kind", "real") == "binary"
        x = as_rows(data[0], name)
        n_features = getattr(model, "n_features", x.shape[1])
        if x.shape[1] != n_features:
            raise ValueError(f"{name} must have {n_features} columns, the model's n_features; got shape {x.shape}")
        others = tuple(checks.plain_array(f"array {i} of {name}", array) for i, array in enumerate(data) if i > 0)
        if any(array.ndim == 0 or len(array) != len(x) for array in others):
            lengths = ", ".join(str(len(array)) if array.ndim else "a single value" for array in (x, *others))
            raise ValueError(f"{name} must be arrays with the same number of rows; got {lengths}")
        scale = levels.scale_of(x, name, levels.kept_by(model), decides)
        if is_for_binary and scale == 1:
            x = checks.unit_interval(name, x, dtype)
        binarize = binarize and is_for_binary and not (scale == 1 and is_binary(x))
        rows = cls((x, *others), scale, binarize, dtype, ops)
        return replace(rows, arrays=(x, *rows.others_checked(model, name)))

    def __len__(self):
        return len(self.arrays[0]) if self.arrays else 0

    def others_checked(self, model, name):
        """Put every row before the model's own check, whose ValueError is raised with the name of the data; returns what it
        makes of the arrays beside the data x, which is made anew for each minibatch."""
        rng, parts = np.random.default_rng(0), []
        for start in range(0, len(self), ROWS_PER_CHECK):
            index = np.arange(start, min(start + ROWS_PER_CHECK, len(self)))
            try:
                checked = model.check(*self.batch(index, rng))
            except ValueError as error:
                raise ValueError(f"{name} cannot be used: {error}") from None
            if len(self.arrays) > 1:
                if not isinstance(checked, tuple) or len(checked) != len(self.arrays):
                    raise ValueError(f"check of {type(model).__name__} must return a tuple of the {len(self.arrays)} arrays")
                parts.append(checked[1:])
        return map(np.concatenate, zip(*parts, strict=True))

    def batch(self, index, rng, out=None):
        """Rows `index` (B,) as a tuple of model input, x (B, D) first, binarised with numbers from rng if grey; x is written to
        `out` if given."""
        if not self.arrays:
            return ()
        x, *others = self.arrays
        return (self.model_input(x, index, rng, out), *(array[index] for array in others))

    def model_input(self, x, index, rng, out):
        """The data of some rows, (n, D) -> (B, D)."""
        if isinstance(x, Mapped):
            x, index = x[index], np.arange(len(index))
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
    chunks = x.blocks() if isinstance(x, Mapped) else np.array_split(x, len(x) // 1000 + 1)
    return x.dtype == bool or all(((rows == 0) | (rows == 1)).all() for rows in chunks)


def model_input(model, x, rng=None, name="x"):
    """All of x (n, D) as the model sees it, (n, D) of its dtype: uint8 grey levels as level/255 (`npvae.core.levels`) and, for
    the Bernoulli likelihood, one draw of zeros and ones with the levels as probabilities. Of a conditional model x is given as
    (x, condition). rng is a Generator or a seed; bad x is a ValueError that calls it `name`."""
    rows = Rows.of(model, x, name, decides=False)
    return rows.batch(np.arange(len(rows)), np.random.default_rng(rng))[0]
