"""`npvae.ops.reproducible` compiled, with the same bits: what runs where a kernel calls a function of that file.

Each function below is the twin of one of that file, for a float64 or, `_dense`, for a row. Nothing is called by a name of this
file: kernels name the functions of `npvae.ops.reproducible`, and get these. No flag allows LLVM to round a product and a sum as
one, or to reorder what is written; so loops over these functions may run on vectors of any width without a change in any bit.
"""

import math

import numpy as np
from numba.extending import register_jitable

from npvae.kernels.compile import STRICT, stand_ins
from npvae.ops import reproducible
from npvae.ops.reproducible import (
    EXP_MAX,
    EXP_MIN,
    EXP_REST,
    LN2_HEAD,
    LN2_TAIL,
    LOG2_E,
    MILLS,
    POWERS_OF_TWO,
    ROOT_HALF,
    ROOT_TWO,
    SMALLEST_EXPONENT,
    exp,
    log_one_plus_small,
    polynomial,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)

inlined = register_jitable(**STRICT, forceinline=True)


@inlined
def _exp(x):
    x = (x if x < EXP_MAX else EXP_MAX) if x > EXP_MIN else EXP_MIN
    k = math.floor(x * LOG2_E + 0.5)
    r = (x - k * LN2_HEAD) - k * LN2_TAIL
    return (1.0 + (r + r * r * polynomial(r, EXP_REST))) * POWERS_OF_TWO[k - SMALLEST_EXPONENT]


@inlined
def _log(x):
    fraction, k = math.frexp(x)
    if fraction < ROOT_HALF:
        fraction, k = 2.0 * fraction, k - 1
    return k * LN2_HEAD + (k * LN2_TAIL + log_one_plus_small(fraction - 1.0))


@inlined
def _sigmoid(x):
    t = exp(-x if x > 0.0 else x)
    return (1.0 if x > 0.0 else t) / (1.0 + t)


@inlined
def _relu(x):
    return x if x > 0.0 else 0.0


@inlined
def _softplus(x):
    t = exp(-x if x > 0.0 else x)
    large = t > ROOT_TWO - 1.0
    rest = log_one_plus_small(0.5 * (t - 1.0) if large else t)
    return (x if x > 0.0 else 0.0) + ((LN2_HEAD + LN2_TAIL if large else 0.0) + rest)


@inlined
def _normal_cdf(x):
    size = -x if x < 0.0 else x
    size = size if size < 9.0 else 9.0
    lower = exp(-0.5 * (size * size)) * polynomial(20.0 / (size + 6.0) - 7.0 / 3.0, MILLS)
    return 1.0 - lower if x > 0.0 else lower


def _activate(pre, number):
    """In place, and one loop for each activation, so that each is a loop over vectors."""
    if number == 1:
        for j in range(pre.size):
            pre[j] = relu(pre[j])
    elif number == 2:
        for j in range(pre.size):
            pre[j] = tanh(pre[j])
    elif number == 3:
        for j in range(pre.size):
            pre[j] = sigmoid(pre[j])
    elif number == 4:
        for j in range(pre.size):
            pre[j] = softplus(pre[j])
    elif number == 5:
        for j in range(pre.size):
            pre[j] = silu(pre[j])
    return pre


def _dense(x, W, b, activation):
    """The additions of each output in the same order, all outputs side by side."""
    pre = np.empty(b.size)
    for j in range(b.size):
        pre[j] = 0.0 + b[j]
    for k in range(x.size):
        if x[k] != 0.0:
            for j in range(b.size):
                pre[j] += x[k] * W[k, j]
    return reproducible.activate(pre, activation)


stand_ins(reproducible, globals())
