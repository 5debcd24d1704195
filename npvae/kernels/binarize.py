"""Compiled twin of `npvae.ops.binarize`."""

import numpy as np

from npvae.kernels.compile import jit


def binarize(grey, index, noise, scale, x):
    """`npvae.ops.binarize.binarize`."""
    binarize_rows(grey, index, noise, np.float32(scale * 2**16), x)
    return x


def _binarize_rows(grey, index, noise, scale, x):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(len(index)):
        row = grey[index[b]]
        for d in range(x.shape[1]):
            x[b, d] = one if np.float32(noise[b, d]) < np.float32(row[d]) * scale else zero


binarize_rows = jit(_binarize_rows)
