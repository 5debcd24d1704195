"""Compiled twins of the ops in `npvae.ops.likelihood`: value and gradient in one pass over the decoder's output.

A kernel fills nll with the value of each row, and its gradient for the upstream gradient `dnll`, a number. The terms of a row
are stored before they are summed in float64: the loop that computes them then stays in float32, which is twice as fast.
"""

import numpy as np

from npvae.core.numerics import accumulator
from npvae.kernels.compile import inlined, jit, widest_vectors
from npvae.kernels.elementary import exp_minus_abs, log1p_to_one


def nll_and_gradient(kernel, output, x, *numbers):
    """nll of each row, and its gradient with respect to the output (..., ·) but for the row's upstream factor, by a kernel."""
    rows = output.reshape(-1, output.shape[-1])  # (S B, ·); sample s of datum b is row s B + b
    nll, unit = np.empty(len(rows), accumulator(output)), np.empty_like(rows)
    kernel(rows, x, *numbers, nll, 1.0, unit)
    return nll.reshape(output.shape[:-1]), unit.reshape(output.shape)


def bernoulli_nll_forward(logits, x):
    """`npvae.ops.likelihood.bernoulli_nll_forward`; the cache is the gradient itself but for its row's upstream factor."""
    return nll_and_gradient(bernoulli_rows, logits, x)


def bernoulli_nll_backward(dnll, cache):
    """`npvae.ops.likelihood.bernoulli_nll_backward`."""
    return cache * dnll[..., None].astype(cache.dtype)


def gaussian_nll_forward(mean, x, variance):
    """`npvae.ops.likelihood.gaussian_nll_forward`; the cache as in `bernoulli_nll_forward`."""
    return nll_and_gradient(gaussian_rows, mean, x, variance)


gaussian_nll_backward = bernoulli_nll_backward


def _bernoulli_rows(logits, x, nll, dnll, dlogits):
    widest_vectors()
    zero, one, upstream = logits.dtype.type(0), logits.dtype.type(1), logits.dtype.type(dnll)
    least = smallest_factor(abs(upstream), logits)
    terms = np.empty(logits.shape[1], logits.dtype)
    for r in range(len(logits)):
        l, y, dl = logits[r], x[r % len(x)], dlogits[r]
        for d in range(terms.size):
            t = exp_minus_abs(l[d])
            terms[d] = (l[d] if l[d].real > 0 else zero) - y[d] * l[d] + log1p_to_one(t)
            larger = one / (one + t)
            smaller = t * larger
            smaller = smaller if smaller.real >= least else zero
            p, one_minus_p = (larger, smaller) if l[d].real > 0 else (smaller, larger)
            dl[d] = upstream * ((one - y[d]) * p - y[d] * one_minus_p)  # (BERNOULLI-logits)
        total = nll.dtype.type(0)
        for d in range(terms.size):
            total += terms[d]
        nll[r] = total


def _smallest_factor(size, like):
    """The smallest number, of the type of `like`, whose product with `size` is normal: products below are made 0, since
    subnormal numbers are slow."""
    tiny = np.finfo(like.dtype).tiny
    return tiny / size if 0 < size < 1 else tiny


def _gaussian_rows(mean, x, variance, nll, dnll, dmean):
    constant = 0.5 * mean.shape[1] * np.log(2 * np.pi * variance)
    terms, upstream = np.empty(mean.shape[1], mean.dtype), mean.dtype.type(dnll / variance)
    for r in range(len(mean)):
        m, y, dm = mean[r], x[r % len(x)], dmean[r]
        for d in range(terms.size):
            residual = m[d] - y[d]
            terms[d] = residual * residual
            dm[d] = residual * upstream  # (GAUSSIAN-mean)
        total = nll.dtype.type(0)
        for d in range(terms.size):
            total += terms[d]
        nll[r] = total / (2 * variance) + constant


smallest_factor = inlined(_smallest_factor)
bernoulli_rows = jit(_bernoulli_rows)
gaussian_rows = jit(_gaussian_rows)
