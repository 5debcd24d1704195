"""The compiled twin of the pair in `npvae.ops.pixel_mixture`: prediction and derivatives in one pass over the network's output.

A kernel fills eps_hat, and the derivatives of each ε̂ with respect to its pixel's outputs, x_t and γ; what is left for backward
is a product. Its loops over a row are apart, so that LLVM vectorises them. A weight is an exponential times a factor, where the
op has a logarithm in the exponent.
"""

import math

import numpy as np
from numba.extending import register_jitable

from npvae.kernels.compile import FASTMATH, jit
from npvae.kernels.elementary import exp, sigmoid_and_complement
from npvae.ops import pixel_mixture
from npvae.ops.diffusion import LEVEL_SPACING, signal_and_noise
from npvae.ops.pixel_mixture import BLACK, CENTRES, LEAST_VARIANCE, N_GAUSSIANS, N_OUTPUTS, REACH, SCALES

inlined = register_jitable(fastmath=FASTMATH, error_model="numpy", forceinline=True, no_cfunc_wrapper=True)


def pixel_mixture_forward(x_t, output, gamma):
    """`npvae.ops.pixel_mixture.pixel_mixture_forward`; the cache holds the derivatives, and complex arguments take the op."""
    dtype = np.result_type(x_t, output, gamma)
    if np.issubdtype(dtype, np.complexfloating):
        eps_hat, cache = pixel_mixture.pixel_mixture_forward(x_t, output, gamma)
        return eps_hat, (pixel_mixture.pixel_mixture_backward, cache)
    x_t = np.ascontiguousarray(x_t, dtype)
    output = np.ascontiguousarray(output, dtype).reshape(len(x_t), N_OUTPUTS, -1)  # -> (B, 3K + 1, D)
    eps_hat, slope_x, slope_gamma, unit = (np.empty_like(like) for like in (x_t, x_t, x_t, output))
    a, s = (column[:, 0].astype(dtype, copy=False) for column in signal_and_noise(gamma))  # (B,)
    pixel_mixture_rows(x_t, output, a, s, eps_hat, unit, slope_x, slope_gamma)
    return eps_hat, (multiplied, (unit, slope_x, slope_gamma))


def pixel_mixture_backward(deps_hat, cache):
    """`npvae.ops.pixel_mixture.pixel_mixture_backward`."""
    backward, contents = cache
    return backward(deps_hat, contents)


def multiplied(deps_hat, derivatives):
    """dx_t (B, D), doutput (B, D (3K + 1)) and dgamma (B,) of deps_hat (B, D) and the derivatives of ε̂."""
    unit, slope_x, slope_gamma = derivatives
    doutput = (unit * deps_hat[:, None]).reshape(len(unit), -1)  # (B, 3K + 1, D) -> (B, D (3K + 1))
    return deps_hat * slope_x, doutput, (deps_hat * slope_gamma).sum(axis=1)


@inlined
def _of_reals(distance, q, v, r):
    """Of y − m: the exponent and the factor of a component's weight, then E, S, T and g as `gaussian_posteriors` says."""
    inverse = 1 / (q + v)
    g = distance * inverse
    return g * distance, r * np.sqrt(inverse), r * g, q * inverse, 0 * g, g


@inlined
def _of_levels(distance, m, q, v, r, number):
    """As `_of_reals`, of the levels alone."""
    spacing = number(LEVEL_SPACING)
    inverse = 1 / (q + v)
    beside_m = distance * q * inverse  # M − m
    M, precision = m + beside_m, (q + v) / (q * v)
    h = np.floor((M + number(1)) * number(1 / LEVEL_SPACING) + number(0.5)) * spacing - number(1) - M
    up = exp(-(number(0.5) * spacing + h) * spacing * precision)
    down = exp(-(number(0.5) * spacing - h) * spacing * precision)
    fall = up * down
    c_0, c_1, c_2, c_3 = number(1), number(0), number(0), number(0)
    first, second = up, down
    for j in range(1, REACH + 1):
        step = number(j)
        plus, minus = up + down, step * (up - down)
        c_0 += plus
        c_1 += minus
        c_2 += step * step * plus
        c_3 += step * step * minus
        first *= fall
        second *= fall
        up *= first
        down *= second
    inverse_c = 1 / c_0
    c_1, c_2, c_3 = c_1 * inverse_c, c_2 * inverse_c, c_3 * inverse_c
    ratio, shift = spacing / r, h + spacing * c_1
    variance, third = c_2 - c_1 * c_1, c_3 - number(3) * c_1 * c_2 + number(2) * c_1 * c_1 * c_1
    exponent = distance * distance * inverse + h * h * precision
    factor = number(LEVEL_SPACING / math.sqrt(2 * math.pi)) * c_0 / np.sqrt(q)
    E = (distance - beside_m) / r - shift / r
    return exponent, factor, E, ratio * ratio * variance, -ratio * ratio * ratio * third, (shift + beside_m) / q


@inlined
def _gaussian(logits, moved, u, k, y, r, number, log_weight, factor, E, of_k):
    """One Gaussian of every pixel: fills rows (D,) of logarithms of weights, of factors and of means, and of_k (5, D): q,
    dq/du, and S, T, g as `gaussian_posteriors` says."""
    D, v, centre, scale, half = len(y), r * r, number(CENTRES[k]), number(SCALES[k]), number(0.5)
    q, dq, S, T, g = of_k[0], of_k[1], of_k[2], of_k[3], of_k[4]
    for d in range(D):
        share, rest = sigmoid_and_complement(u[d])
        q[d], dq[d] = number(LEAST_VARIANCE) + share, share * rest
    if r < number(LEVEL_SPACING):
        for d in range(D):
            m = centre + scale * moved[d]
            exponent, factor[d], E[d], S[d], T[d], g[d] = _of_levels(y[d] - m, m, q[d], v, r, number)
            log_weight[d] = logits[d] - half * exponent
    else:
        for d in range(D):
            exponent, factor[d], E[d], S[d], T[d], g[d] = _of_reals(y[d] - (centre + scale * moved[d]), q[d], v, r)
            log_weight[d] = logits[d] - half * exponent


@inlined
def _mean(log_weights, weights, E, number, eps_hat):
    """ε̂ of every pixel, (D,); weights (C, D), at first the factors, become the probabilities ρ."""
    for d in range(len(eps_hat)):
        largest = log_weights[0, d]
        for j in range(1, N_GAUSSIANS + 1):
            largest = log_weights[j, d] if log_weights[j, d] > largest else largest
        total, mean = number(0), number(0)
        for j in range(N_GAUSSIANS + 1):
            weights[j, d] *= exp(log_weights[j, d] - largest)
            total += weights[j, d]
            mean += weights[j, d] * E[j, d]
        inverse = number(1) / total
        for j in range(N_GAUSSIANS + 1):
            weights[j, d] *= inverse
        eps_hat[d] = mean * inverse


@inlined
def _slopes(rho, E, of_gaussians, eps_hat, r, number, unit, V, W):
    """The derivatives with respect to the outputs, unit (3K + 1, D), and the moments V and W (D,)."""
    one, two, three, half, K = number(1), number(2), number(3), number(0.5), N_GAUSSIANS
    for d in range(len(eps_hat)):
        apart = E[0, d] - eps_hat[d]
        unit[0, d] = rho[0, d] * apart
        V[d], W[d] = rho[0, d] * apart * apart, rho[0, d] * apart * apart * apart
    for k in range(K):
        q, dq, S, T, g = of_gaussians[k, 0], of_gaussians[k, 1], of_gaussians[k, 2], of_gaussians[k, 3], of_gaussians[k, 4]
        scale = number(SCALES[k])
        for d in range(len(eps_hat)):
            probability, apart, inverse = rho[k + 1, d], E[k + 1, d] - eps_hat[d], one / q[d]
            c, square = r * S[d] * inverse, apart * apart
            V[d] += probability * (square + S[d])
            W[d] += probability * (square * apart + three * S[d] * apart + T[d])
            unit[k + 1, d] = probability * apart  # (MIXTURE-logit)
            unit[K + 1 + k, d] = probability * (apart * g[d] - c) * scale  # (MIXTURE-mean)
            of_width = apart * (g[d] * g[d] + (r * r * S[d] * inverse - one) * inverse)
            of_width += r * r * T[d] * inverse * inverse - two * g[d] * c
            unit[2 * K + 1 + k, d] = half * probability * of_width * dq[d]  # (MIXTURE-width)


def _pixel_mixture_rows(x_t, output, a, s, eps_hat, unit, slope_x, slope_gamma):
    D, K, number = x_t.shape[1], N_GAUSSIANS, x_t.dtype.type
    one, two, half = number(1), number(2), number(0.5)
    y, of_components = np.empty(D, x_t.dtype), np.empty((3, K + 1, D), x_t.dtype)
    log_weights, weights, E = of_components[0], of_components[1], of_components[2]
    of_gaussians = np.empty((K, 5, D), x_t.dtype)
    for b in range(len(x_t)):
        r = s[b] / a[b]
        for d in range(D):
            y[d] = x_t[b, d] / a[b]
            E[0, d], weights[0, d] = (y[d] - number(BLACK)) / r, one
            log_weights[0, d] = output[b, 0, d] - half * E[0, d] * E[0, d]
        for k in range(K):
            logits, moved, u = output[b, k + 1], output[b, K + 1 + k], output[b, 2 * K + 1 + k]
            _gaussian(logits, moved, u, k, y, r, number, log_weights[k + 1], weights[k + 1], E[k + 1], of_gaussians[k])
        _mean(log_weights, weights, E, number, eps_hat[b])
        V, W = slope_x[b], slope_gamma[b]
        _slopes(weights, E, of_gaussians, eps_hat[b], r, number, unit[b], V, W)
        for d in range(D):
            rest = one - V[d]
            of_gamma = s[b] * x_t[b, d] * rest - eps_hat[b, d] + W[d] + two * eps_hat[b, d] * V[d]
            slope_x[b, d] = rest / s[b]  # (MIXTURE-x)
            slope_gamma[b, d] = half * of_gamma  # (MIXTURE-gamma)


pixel_mixture_rows = jit(_pixel_mixture_rows)
