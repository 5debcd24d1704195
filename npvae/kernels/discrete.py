"""Compiled twins of the ops in `npvae.ops.discrete`: value and gradient in one pass over the decoder's output.

A kernel fills nll with the value of each row, and its gradient for the upstream gradient `dnll`, a number. The beta-binomial
computes in float64 whatever the dtype, as its op does. Its loops over a row are apart, so that LLVM vectorises them.
"""

import numpy as np
from numba.extending import register_jitable

from npvae.kernels.compile import FASTMATH, jit
from npvae.kernels.elementary import exp, log1p
from npvae.kernels.likelihood import bernoulli_nll_backward, nll_and_gradient
from npvae.ops import discrete

inlined = register_jitable(fastmath=FASTMATH, error_model="numpy", forceinline=True, no_cfunc_wrapper=True)


def categorical_nll_forward(logits, x):
    """`npvae.ops.discrete.categorical_nll_forward`; the cache as in `npvae.kernels.likelihood.bernoulli_nll_forward`."""
    return nll_and_gradient(categorical_rows, logits, x)


def beta_binomial_nll_forward(output, x, n=255):
    """`npvae.ops.discrete.beta_binomial_nll_forward`; the cache as above, and complex output takes the op."""
    if np.iscomplexobj(output):
        nll, cache = discrete.beta_binomial_nll_forward(output, x, n)
        return nll, discrete.beta_binomial_nll_backward(np.ones_like(nll), cache)
    return nll_and_gradient(beta_binomial_rows, output, x, discrete.log_binomials(n), discrete.LOG_MIN, discrete.LOG_MAX)


categorical_nll_backward = beta_binomial_nll_backward = bernoulli_nll_backward


@inlined
def _index(level, top):
    """`level` as an index of 0 … top; one outside of the support would read or write memory that belongs to something else."""
    return top if level > top else (int(level) if level > 0 else 0)  # NaN is 0


def _categorical_rows(logits, x, nll, dnll, dlogits):
    n_data, n_levels = x.shape[1], logits.shape[1] // x.shape[1]
    one, upstream = logits.dtype.type(1), logits.dtype.type(dnll)
    margins, rests = np.empty(n_data, logits.dtype), np.empty(n_data, logits.dtype)
    for r in range(len(logits)):
        for d in range(n_data):
            l, e = logits[r, d * n_levels : (d + 1) * n_levels], dlogits[r, d * n_levels : (d + 1) * n_levels]
            level, largest = _index(x[r % len(x), d], n_levels - 1), 0
            for k in range(n_levels):
                largest = k if l[k].real > l[largest].real else largest
            margins[d] = l[largest] - l[level]
            for k in range(n_levels):
                e[k] = exp(l[k] - l[largest])
            rest = nll.dtype.type(0)
            e[largest] = rest
            for k in range(n_levels):
                rest += e[k]
            e[largest] = one
            rests[d] = rest
            e_x, scale = e[level], upstream / (one + rests[d])
            for k in range(n_levels):
                e[k] *= scale
            e[level] = -((one - e_x) + rests[d]) * scale  # (CATEGORICAL-logits)
        for d in range(n_data):
            margins[d] += log1p(rests[d])
        total = nll.dtype.type(0)
        for d in range(n_data):
            total += margins[d]
        nll[r] = total


@inlined
def _stirling(v, r):
    """`npvae.ops.discrete.stirling` of 1/v, with r = v²."""
    return v * (r * (r * (r * (r * (r * (-691 / 360360) + 1 / 1188) - 1 / 1680) + 1 / 1260) - 1 / 360) + 1 / 12)


@inlined
def _log_minus_digamma(v, r):
    """`npvae.ops.discrete.log_minus_digamma` of 1/v, with r = v²."""
    return 0.5 * v + r * (r * (r * (r * (r * (r * (-691 / 32760) + 1 / 132) - 1 / 240) + 1 / 252) - 1 / 120) + 1 / 12)


@inlined
def _product_of_8(a, v, r):
    """`npvae.ops.discrete.product_of_8` of a, over (a + 8)^8, and its derivative over that: v = 1/(a + 8), r = v².

    The powers keep all products of a row's pixel between 1e-14 and 1: they are reordered freely, and none may overflow.
    """
    w = (a * v) * ((a + 7) * v)
    low, high = w * (w + 6 * r), (w + 10 * r) * (w + 12 * r)
    return low * high, (2 * a + 7) * r * ((2 * w + 6 * r) * high + low * (2 * w + 22 * r))


@inlined
def _rising(a, k):
    """`log_rising(a, k)` but for its last logarithm, the argument of that, and `digamma_difference(a, k)`; and 1/(a + 8).

    Divisions are what this costs, so that two share one. The argument is divided by (1 + k/(a + 8))^8, whose log is 8 l.
    """
    z = a + 8
    inverse = 1 / (z * (z + k))
    v, v_k = inverse * (z + k), inverse * z  # 1/z, 1/(z + k)
    r, r_k = v * v, v_k * v_k
    l = log1p(k * v)
    log_part = (z + k - 8.5) * l + (_stirling(v_k, r_k) - _stirling(v, r))
    slope = l + (_log_minus_digamma(v, r) - _log_minus_digamma(v_k, r_k))
    product, derivative = _product_of_8(a, v, r)
    product_k, derivative_k = _product_of_8(a + k, v_k, r_k)
    inverse = 1 / (product * product_k)
    slope += (derivative * product_k - derivative_k * product) * inverse  # derivative/product is `reciprocals_of_8`
    return log_part, product_k * product_k * inverse, slope, v


def _beta_binomial_rows(output, x, log_binomials, low, high, nll, dnll, doutput):
    n_data, n = x.shape[1], float(log_binomials.size - 1)
    dlog_alpha, dlog_beta, terms = np.empty(n_data), np.empty(n_data), np.empty(n_data)
    for r in range(len(output)):
        log_alpha, log_beta, levels = output[r, :n_data], output[r, n_data:], x[r % len(x)]
        for d in range(n_data):
            dlog_alpha[d] = exp(low if log_alpha[d] < low else (high if log_alpha[d] > high else np.float64(log_alpha[d])))
            dlog_beta[d] = exp(low if log_beta[d] < low else (high if log_beta[d] > high else np.float64(log_beta[d])))
        for d in range(n_data):
            alpha, beta, level = dlog_alpha[d], dlog_beta[d], float(levels[d])
            of_alpha, ratio_alpha, slope_alpha, v_alpha = _rising(alpha, level)
            of_beta, ratio_beta, slope_beta, v_beta = _rising(beta, n - level)
            of_all, ratio_all, slope_all, _ = _rising(alpha + beta, n)
            binomial = level * log1p(beta * v_alpha) + (n - level) * log1p(alpha * v_beta)
            terms[d] = binomial + (of_all - of_alpha - of_beta) + log1p(ratio_alpha * ratio_beta / ratio_all - 1)
            dlog_alpha[d] = dnll * alpha * (slope_all - slope_alpha)  # (BETABINOMIAL-logalpha)
            dlog_beta[d] = dnll * beta * (slope_all - slope_beta)  # (BETABINOMIAL-logbeta)
        for d in range(n_data):  # (BETABINOMIAL-clip)
            doutput[r, d] = dlog_alpha[d] if low <= log_alpha[d] <= high else 0.0
            doutput[r, n_data + d] = dlog_beta[d] if low <= log_beta[d] <= high else 0.0
        total = 0.0
        for d in range(n_data):
            total += terms[d] - log_binomials[_index(levels[d], log_binomials.size - 1)]
        nll[r] = total


categorical_rows = jit(_categorical_rows)
beta_binomial_rows = jit(_beta_binomial_rows)
