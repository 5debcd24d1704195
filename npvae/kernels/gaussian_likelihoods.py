"""Compiled twins of the ops in `npvae.ops.gaussian_likelihoods`, as those of `npvae.kernels.likelihood`."""

import numpy as np

from npvae.core.numerics import accumulator
from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp
from npvae.kernels.likelihood import bernoulli_nll_backward, gaussian_nll_forward, nll_and_gradient
from npvae.ops.gaussian_likelihoods import MIN_LOGVAR, bounded_logvar
from npvae.ops.latent import LOGVAR_MAX


def gaussian_learned_nll_forward(output, x, min_logvar=MIN_LOGVAR):
    """`npvae.ops.gaussian_likelihoods.gaussian_learned_nll_forward`; the cache as in `bernoulli_nll_forward`."""
    return nll_and_gradient(gaussian_learned_rows, output, x, float(min_logvar))


gaussian_learned_nll_backward = bernoulli_nll_backward


def gaussian_global_nll_forward(mean, logvar, x, min_logvar=MIN_LOGVAR):
    """`npvae.ops.gaussian_likelihoods.gaussian_global_nll_forward`: the nll of the fixed variance e^logvar, and its slope."""
    bounded, inside = bounded_logvar(logvar, min_logvar)
    bounded = bounded.astype(accumulator(bounded)).item()
    nll, unit = gaussian_nll_forward(mean.astype(np.result_type(mean, logvar), copy=False), x, np.exp(bounded))
    slope = 0.5 * x.shape[1] * (1 + np.log(2 * np.pi) + bounded) - nll  # ½ (D − Σ_d r_d² e^−v), from the nll
    return nll, (unit, slope, inside, logvar.dtype)


def gaussian_global_nll_backward(dnll, cache):
    """`npvae.ops.gaussian_likelihoods.gaussian_global_nll_backward`."""
    unit, slope, inside, dtype = cache
    dmean = unit * dnll[..., None].astype(unit.dtype)
    return dmean, np.where(inside, (dnll * slope).sum(), 0).astype(dtype)  # (GAUSSIAN-global-logvar)


def _gaussian_learned_rows(output, x, min_logvar, nll, dnll, doutput):
    n, number = x.shape[1], output.dtype.type
    zero, half, one, upstream = number(0), number(0.5), number(1), number(dnll)
    low, high = number(min_logvar), number(LOGVAR_MAX)
    constant = 0.5 * n * np.log(2 * np.pi)
    terms, precision, distance = np.empty(n, output.dtype), np.empty(n, output.dtype), np.empty(n, output.dtype)
    for r in range(len(output)):  # the loops over d apart, so that LLVM vectorises them
        mean, raw, y = output[r, :n], output[r, n:], x[r % len(x)]
        dmean, draw = doutput[r, :n], doutput[r, n:]
        for d in range(n):
            terms[d] = high if raw[d].real > high.real else (low if raw[d].real < low.real else raw[d])
        for d in range(n):
            precision[d] = exp(-terms[d])
        for d in range(n):
            residual = mean[d] - y[d]
            dmean[d] = upstream * (residual * precision[d])  # (GAUSSIAN-learned-mean)
            distance[d] = residual * residual * precision[d]
        for d in range(n):
            slope = upstream * (half * (one - distance[d]))  # (GAUSSIAN-learned-logvar)
            draw[d] = zero if raw[d].real > high.real else (zero if raw[d].real < low.real else slope)
        for d in range(n):
            terms[d] = half * (distance[d] + terms[d])
        total = nll.dtype.type(0)
        for d in range(n):
            total += terms[d]
        nll[r] = total + constant


gaussian_learned_rows = jit(_gaussian_learned_rows)
