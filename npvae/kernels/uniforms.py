"""Compiled twin of `npvae.ops.uniforms`: the same bits."""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.ising import xoshiro128
from npvae.ops import uniforms as ops
from npvae.ops.uniforms import BITS, LANES, generators  # noqa: F401  (of the table, too)


def uniforms(states, n, dtype=np.float64):
    """`npvae.ops.uniforms.uniforms`."""
    numbers = np.empty((len(states), padded(n)), dtype)
    fill_rows(states, numbers)
    return numbers[:, :n]


def normals(states, n, dtype=np.float64):
    """`npvae.ops.uniforms.normals`."""
    return ops.normals(states, n, dtype)


def padded(n):
    """n rounded up to whole rounds of the lanes."""
    return -(-n // LANES) * LANES


def _fill(state, numbers):
    """Uniform numbers of one chain: state (4, LANES) is advanced, numbers (n,) of whole rounds of the lanes are overwritten.

    All integers are of 64 bits, held to 32, so that nothing overflows where this runs uncompiled.
    """
    half, unit = numbers.dtype.type(0.5), numbers.dtype.type(2.0**-BITS)
    for start in range(0, numbers.size, LANES):
        for lane in range(LANES):
            a, b, c, d = int(state[0, lane]), int(state[1, lane]), int(state[2, lane]), int(state[3, lane])
            number, a, b, c, d = xoshiro128(a, b, c, d)
            state[0, lane], state[1, lane], state[2, lane], state[3, lane] = a, b, c, d
            numbers[start + lane] = (numbers.dtype.type(number >> (32 - BITS)) + half) * unit


fill = jit(_fill)


def _fill_rows(states, numbers):
    for r in range(len(numbers)):
        fill(states[r], numbers[r])


fill_rows = jit(_fill_rows)
