"""A condition beside data or latent: what the layers of a conditional model are given.

See `npvae.ops.layers` for how to read a pair. Shapes: B batch, C condition, S samples per datum.
"""

import numpy as np


def joined(a, condition):
    """The rows of a (S B, n), row s B + b sample s of datum b, each followed by its datum's condition (B, C): (S B, n + C)."""
    return np.hstack([a, np.tile(condition, (len(a) // len(condition), 1))])


def join_forward(a, condition):
    """`joined` where a needs a gradient: a (S B, n), condition (B, C) -> out (S B, n + C).

    (JOIN)  da = the first n columns of dout. The condition is data: nothing needs its gradient.
    """
    return joined(a, condition), a.shape


def join_backward(dout, cache):
    """Backward of join: dout (S B, n + C) -> da (S B, n)."""
    _, n = cache
    return dout[:, :n].copy()  # (JOIN)
