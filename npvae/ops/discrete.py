"""Likelihoods of whole numbers, such as the grey levels 0 … 255 of an image: categorical and beta-binomial.

Both are exact probabilities: a row's nll is a code length, nll / (D log 2) bits per dimension, and no noise is added to x.
See `npvae.ops.likelihood` for the other likelihoods, and `npvae.ops.layers` for how to read a pair.

Shapes: B batch, D data, K levels; the decoder's output may carry a leading axis of S samples per datum over the same x (B, D),
which holds whole numbers, of an integer or floating-point dtype. Any other x is outside the support and gives nonsense.
"""

import functools
import math

import numpy as np

from npvae.core.numerics import accumulator

LOG_MIN, LOG_MAX = -23.0, 23.0  # α and β from 1e-10 to 1e10: from all mass on two levels to a binomial in all digits


def categorical_nll_forward(logits, x):
    """−log p(x|z) for independent categorical variables with K levels each, in nats.

    logits (..., B, D K), x (B, D) in {0, …, K − 1} -> nll (..., B). Column d K + k is the logit l_k of level k of pixel d, and
    p_k = e^l_k / Σ_j e^l_j. With the largest logit m, e_k = e^(l_k − m) and `rest`, their sum without the largest one (which
    is 1),
        −log p_x = (m − l_x) + log(1 + rest),
    which never overflows and keeps its digits when p_x is nearly 1.

    With 1[k = x] for 1 where k is x, else 0,
        (CATEGORICAL-logits)  dlogits_k = dnll ∂/∂l_k (log Σ_j e^l_j − l_x) = dnll (p_k − 1[k = x]).
    At k = x it is −(1 − p_x), which is written −((1 − e_x) + rest)/(1 + rest) and so does not cancel.
    """
    index = x.astype(np.intp)[..., None]  # (B, D, 1)
    l = logits.reshape(*logits.shape[:-1], x.shape[-1], -1)  # (..., B, D K) -> (..., B, D, K)
    index = np.broadcast_to(index, (*l.shape[:-1], 1))
    largest = l.real.argmax(axis=-1, keepdims=True)  # (..., B, D, 1)
    m = np.take_along_axis(l, largest, axis=-1)
    e = np.exp(l - m)
    np.put_along_axis(e, largest, 0, axis=-1)
    rest = e.sum(axis=-1, keepdims=True, dtype=accumulator(logits)).astype(logits.dtype)  # (..., B, D, K) -> (..., B, D, 1)
    np.put_along_axis(e, largest, 1, axis=-1)
    per_pixel = (m - np.take_along_axis(l, index, axis=-1) + np.log1p(rest))[..., 0]
    nll = per_pixel.sum(axis=-1, dtype=accumulator(logits))  # (..., B, D) -> (..., B)
    return nll, (e, rest, index)


def categorical_nll_backward(dnll, cache):
    """Backward of the categorical nll: dnll (..., B) -> dlogits (..., B, D K)."""
    e, rest, index = cache
    e_x = np.take_along_axis(e, index, axis=-1)  # (..., B, D, 1)
    dlogits = e / (1 + rest)  # p_k
    np.put_along_axis(dlogits, index, -((1 - e_x) + rest) / (1 + rest), axis=-1)  # (CATEGORICAL-logits)
    dlogits *= dnll[..., None, None].astype(e.dtype)  # (..., B, D, K) * (..., B, 1, 1)
    return dlogits.reshape(*dnll.shape, -1)  # (..., B, D, K) -> (..., B, D K)


def categorical_probabilities(logits, n_levels):
    """p_k of every pixel: logits (..., D K) -> (..., D, K)."""
    l = logits.reshape(*logits.shape[:-1], -1, n_levels)
    e = np.exp(l - l.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def categorical_mean(logits, n_levels):
    """E[x|z] = Σ_k k p_k: logits (..., D K) -> (..., D)."""
    return categorical_probabilities(logits, n_levels) @ np.arange(n_levels, dtype=logits.dtype)


def categorical_variance(logits, n_levels):
    """Var[x|z] = Σ_k (k − E[x|z])² p_k: logits (..., D K) -> (..., D)."""
    distance = np.arange(n_levels, dtype=logits.dtype) - categorical_mean(logits, n_levels)[..., None]  # (..., D, K)
    return (distance * distance * categorical_probabilities(logits, n_levels)).sum(axis=-1)


def categorical_sample(logits, uniform):
    """Levels drawn from p(x|z), in the logits' dtype: logits (..., D K), uniform (..., D) in [0, 1) -> x (..., D).

    The level is how many of the cumulative sums p_0, p_0 + p_1, … are at most `uniform`.
    """
    n_levels = logits.shape[-1] // uniform.shape[-1]
    cumulative = categorical_probabilities(logits.astype(np.float64), n_levels).cumsum(axis=-1)  # (..., D, K)
    below = cumulative[..., :-1] <= uniform[..., None]  # the last sum is 1 but for rounding
    return below.sum(axis=-1).astype(logits.dtype)


def beta_binomial_nll_forward(output, x, n=255):
    """−log p(x|z) for independent beta-binomial variables, in nats: x of n coins that share a success probability ~ Beta(α, β).

    output (..., B, 2D): D columns of log α, then D of log β, clipped to [−23, 23]; x (B, D) in {0, …, n} -> nll (..., B).
    With y = n − x, s = α + β, the beta function B and log Γ(a + k)/Γ(a) = R(a, k) = Σ_{j<k} log(a + j),
        p(x) = C(n, x) B(x + α, y + β) / B(α, β),    −log p(x) = R(s, n) − R(α, x) − R(β, y) − log C(n, x).
    Each R is near k log a where a is large, and these cancel. So `log_rising` leaves k log(a + 8) − k out, and the three make
    x log((s + 8)/(α + 8)) + y log((s + 8)/(β + 8)). Absolute error per pixel at most 1e-12 max(1, nll).

    With D(a, k) = ∂R/∂a = ψ(a + k) − ψ(a), ψ = (log Γ)', and dα/dlog α = α,
        (BETABINOMIAL-logalpha)  dlog_alpha = dnll α (D(s, n) − D(α, x))
        (BETABINOMIAL-logbeta)   dlog_beta  = dnll β (D(s, n) − D(β, y))
        (BETABINOMIAL-clip)      0 where the network's own value lies beyond the bounds.
    """
    x = x.astype(np.float64)
    alpha, beta, inside = beta_parameters(output)  # (..., B, 2D) -> (..., B, D), (..., B, D)
    nll = nll_per_pixel(alpha, beta, x, n).sum(axis=-1)  # (..., B, D) -> (..., B)
    return nll, (alpha, beta, inside, x, n, output.dtype)


def beta_binomial_nll_backward(dnll, cache):
    """Backward of the beta-binomial nll: dnll (..., B) -> doutput (..., B, 2D)."""
    alpha, beta, inside, x, n, dtype = cache
    of_all = digamma_difference(alpha + beta, n)  # (..., B, D)
    dlog_alpha = alpha * (of_all - digamma_difference(alpha, x))  # (BETABINOMIAL-logalpha)
    dlog_beta = beta * (of_all - digamma_difference(beta, n - x))  # (BETABINOMIAL-logbeta)
    draw = np.concatenate([dlog_alpha, dlog_beta], axis=-1)  # (..., B, D), (..., B, D) -> (..., B, 2D)
    return np.where(inside, draw * dnll[..., None], 0).astype(dtype)  # (BETABINOMIAL-clip)


def beta_parameters(output):
    """α and β (..., D), in float64 or complex128, of the decoder's output (..., 2D), and where it lies inside the bounds."""
    above, below = output.real > LOG_MAX, output.real < LOG_MIN
    logs = np.where(above, LOG_MAX, np.where(below, LOG_MIN, output)).astype(accumulator(output))
    alpha, beta = np.split(np.exp(logs), 2, axis=-1)  # (..., 2D) -> (..., D), (..., D)
    return alpha, beta, ~(above | below)


def nll_per_pixel(alpha, beta, x, n):
    """−log p(x) of the docstring above, of each pixel: any shapes that broadcast."""
    s, y = alpha + beta, n - x
    binomial = x * np.log((s + 8) / (alpha + 8)) + y * np.log((s + 8) / (beta + 8))
    return binomial + log_rising(s, n) - log_rising(alpha, x) - log_rising(beta, y) - log_binomials(n)[x.astype(np.intp)]


def log_rising(a, k):
    """log Γ(a + k)/Γ(a) − k log(a + 8) + k for a > 0 and k ≥ 0: of the product a (a + 1) … (a + k − 1).

    Γ(a) = Γ(a + 8) / (a (a + 1) … (a + 7)) leads to arguments of at least 8, and there, with z = a + 8,
        log Γ(z) = (z − ½) log z − z + ½ log 2π + stirling(z),
    whose difference between z + k and z is k log z + (z + k − ½) log(1 + k/z) − k + stirling(z + k) − stirling(z).
    """
    z = a + 8
    shifted = (z + k - 0.5) * log_1_plus(k, z) + (stirling(z + k) - stirling(z))
    return shifted - np.log(product_of_8(a + k) / product_of_8(a))


def digamma_difference(a, k):
    """ψ(a + k) − ψ(a) = Σ_{j<k} 1/(a + j), the derivative of log Γ(a + k)/Γ(a) with respect to a: `log_rising` term by term."""
    z = a + 8
    shifted = log_1_plus(k, z) + (log_minus_digamma(z) - log_minus_digamma(z + k))
    return shifted + (reciprocals_of_8(a) - reciprocals_of_8(a + k))


def log_1_plus(k, z):
    """log(1 + k/z) for k ≥ 0 and z ≥ 8. (NumPy's log1p of complex numbers loses the digits of small real parts.)"""
    return 2 * np.arctanh(k / (2 * z + k)) if np.iscomplexobj(z) else np.log1p(k / z)


def stirling(z):
    """log Γ(z) − ((z − ½) log z − z + ½ log 2π) = Σ_m B_2m / (2m (2m − 1) z^(2m − 1)), to 2e-14 where z ≥ 8.

    B_2m are the Bernoulli numbers 1/6, −1/30, 1/42, −1/30, 5/66, −691/2730 (Abramowitz & Stegun 1964, 6.1.40).
    """
    r = 1 / (z * z)
    series = r * (r * (r * (r * (r * (-691 / 360360) + 1 / 1188) - 1 / 1680) + 1 / 1260) - 1 / 360) + 1 / 12
    return series / z


def log_minus_digamma(z):
    """log z − ψ(z) = 1/(2z) + Σ_m B_2m / (2m z^2m), the derivative of the lines above (Abramowitz & Stegun 1964, 6.3.18)."""
    r = 1 / (z * z)
    series = r * (r * (r * (r * (r * (-691 / 32760) + 1 / 132) - 1 / 240) + 1 / 252) - 1 / 120) + 1 / 12
    return 0.5 / z + series * r


def product_of_8(z):
    """Γ(z + 8)/Γ(z) = z (z + 1) … (z + 7): with w = z (z + 7), (z + 1)(z + 6) = w + 6, and so on."""
    w = z * (z + 7)
    return w * (w + 6) * (w + 10) * (w + 12)


def reciprocals_of_8(z):
    """1/z + 1/(z + 1) + … + 1/(z + 7), the derivative of log z (z + 1) … (z + 7): two at a time as in `product_of_8`."""
    w = z * (z + 7)
    return (2 * z + 7) * (1 / w + 1 / (w + 6) + 1 / (w + 10) + 1 / (w + 12))


@functools.cache
def log_binomials(n):
    """log C(n, k) for k = 0, …, n: (n + 1,), read-only."""
    table = np.array([math.log(math.comb(n, k)) for k in range(n + 1)])
    table.flags.writeable = False
    return table


def beta_binomial_mean(output, n=255):
    """E[x|z] = n α/(α + β): output (..., 2D) -> (..., D)."""
    alpha, beta, _ = beta_parameters(output)
    return (n * alpha / (alpha + beta)).astype(output.dtype)


def beta_binomial_variance(output, n=255):
    """Var[x|z] = n p (1 − p) (s + n)/(s + 1) with p = α/s, s = α + β: output (..., 2D) -> (..., D)."""
    alpha, beta, _ = beta_parameters(output)
    s = alpha + beta
    return (n * (alpha / s) * (beta / s) * (s + n) / (s + 1)).astype(output.dtype)


def beta_binomial_sample(output, uniform, n=255):
    """Levels drawn from p(x|z), in the output's dtype: output (..., 2D), uniform (..., D) in [0, 1) -> x (..., D).

    As `categorical_sample`, with p(k + 1)/p(k) = (n − k)/(k + 1) (α + k)/(β + n − k − 1) from one level to the next; in
    logarithms, because p(0) may be too small for a float.
    """
    alpha, beta, _ = beta_parameters(output)
    log_p = -nll_per_pixel(alpha, beta, np.zeros(uniform.shape), n)  # (..., D)
    cumulative, x = np.exp(log_p), np.zeros(uniform.shape, output.dtype)
    for k in range(n):
        x += cumulative <= uniform
        log_p += np.log((n - k) / (k + 1) * ((alpha + k) / (beta + (n - 1 - k))))
        cumulative += np.exp(log_p)
    return x


def beta_binomial_from_moments(mean, variance, n=255):
    """log α and log β of the beta-binomial with this mean and variance, any shape: what an output bias may start from.

    Var[x] = n p (1 − p) ρ with p = mean/n and ρ = (s + n)/(s + 1), so that s = (n − ρ)/(ρ − 1), α = p s and β = (1 − p) s.
    p is kept in [1e-4, 1 − 1e-4] and ρ in [1.01, 0.99 n]: levels that never vary have no such distribution.
    """
    p = np.clip(mean / n, 1e-4, 1 - 1e-4)
    rho = np.clip(variance / (n * p * (1 - p)), 1.01, 0.99 * n)
    s = (n - rho) / (rho - 1)
    return np.log(p * s), np.log((1 - p) * s)
