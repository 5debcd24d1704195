"""Compiled twins of the ops in `npvae.likelihood`: value and gradient in one pass over the logits."""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, log1p
from npvae.likelihood import accumulator


def bernoulli_nll_forward(logits, x):
    """`npvae.likelihood.bernoulli_nll_forward`; the cache is the gradient itself, but for the upstream factor of its row."""
    rows = logits.reshape(-1, x.shape[1])  # (S B, D); sample s of datum b is row s B + b
    nll, unit = np.empty(len(rows), accumulator(logits)), np.empty_like(rows)
    _bernoulli(rows, x, nll, unit)
    return nll.reshape(logits.shape[:-1]), unit.reshape(logits.shape)


def bernoulli_nll_backward(dnll, cache):
    """`npvae.likelihood.bernoulli_nll_backward`."""
    return cache * dnll[..., None].astype(cache.dtype)


def _bernoulli_rows(logits, x, nll, unit):
    one = logits.dtype.type(1)
    for r in range(len(logits)):
        b = r % len(x)
        total = nll.dtype.type(0)
        for d in range(logits.shape[1]):
            l, target = logits[r, d], x[b, d]
            positive = l.real > 0
            t = exp(-l if positive else l)  # e^−|l| in (0, 1]
            larger = one / (one + t)
            p, one_minus_p = (larger, t * larger) if positive else (t * larger, larger)
            total += (l if positive else l - l) - target * l + log1p(t)
            unit[r, d] = (one - target) * p - target * one_minus_p  # (BERNOULLI-logits)
        nll[r] = total


_bernoulli = jit(_bernoulli_rows)


def binarize(grey, index, noise, scale, dtype):
    """`npvae.likelihood.binarize`."""
    x = np.empty(noise.shape, dtype)
    _binarize(grey, index, noise, np.float32(scale * 2**16), x)
    return x


def _binarize_rows(grey, index, noise, scale, x):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(len(index)):
        row = grey[index[b]]
        for d in range(x.shape[1]):
            x[b, d] = one if np.float32(noise[b, d]) < np.float32(row[d]) * scale else zero


_binarize = jit(_binarize_rows)
