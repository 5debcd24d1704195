"""The noise in a grey level by Bayes' rule: a network says what a pixel may be, and the pixel's own noisy value decides.

A network of dense layers cannot pass hundreds of pixels on to its output to the last digit, and it need not. What it says of a
pixel, from everything that it sees, is a prior of x_0: black with probability w_0, or one of K Gaussians,

    p(v) = w_0 [v = −1] + Σ_k w_k N(v; m_k, q_k).

Beside it stands the pixel's own x_t = a v + s ε. With y = x_t/a and r = s/a = e^(γ/2) its likelihood is N(y; v, r²), and the
prediction is the exact mean of the noise under both, ε̂ = E[(y − v)/r | y]. The ELBO allows any function of x_t, so it stays a
bound. Where there is little noise the pixel alone decides, and it costs what its prior says: −log w_0, or that of a density.

Grey levels v_l = lΔ − 1 stand Δ = 2/255 apart. Where r < Δ they can be told from each other: there the Gaussians stand for
the levels alone, Δ N(v_l; m_k, q_k) each, and an integral over v becomes a sum over the levels. (A peak and a wide density as a
prior: "spike and slab", Mitchell & Beauchamp 1988; ε̂ is also −s d log p(x_t)/dx_t, Tweedie's formula, Efron 2011.)

See `npvae.ops.diffusion` for γ, a and s, `npvae.ops.layers` for how to read a pair. Shapes: B batch, D pixels, K Gaussians,
C = K + 1 components, the first of them black.
"""

import math

import numpy as np

from npvae.ops.diffusion import LEVEL_SPACING, signal_and_noise
from npvae.ops.layers import sigmoid_and_complement

N_GAUSSIANS = 2
N_OUTPUTS = 3 * N_GAUSSIANS + 1  # of the network for each pixel
BLACK = -1.0
LEAST_VARIANCE = (0.5 * LEVEL_SPACING) ** 2  # of a Gaussian: a narrower one could fall between two levels
REACH = 6  # levels added on each side of the nearest one; the weights of the others are below e^−21 of its own
CENTRES, SCALES = (0.0, 0.985), (1.0, 0.02)  # of the means: a Gaussian for grey, and a narrow one near white
START = (0.0, -2.0, -2.5, 0.0, 0.0, -0.5, -9.5)  # a pixel's outputs at first: what pixels of written digits are together


def pixel_mixture_forward(x_t, output, gamma):
    """The noise ε̂ = E[ε|x_t] under a prior of each pixel: x_t (B, D), output (B, D (3K + 1)), gamma (B,) -> (B, D).

    output: D columns for each of K + 1 logits of w, K numbers n and K numbers u, with m = CENTRES + SCALES n and
    q = LEAST_VARIANCE + σ(u). So a step of training moves the wide and the narrow Gaussian by like parts of their widths.

    With z = (y − v)/r, the noise that a value v means, component j and v have the posterior probability ∝ w_j p_j(v) e^(−z²/2),
    and ε̂ is its mean of z. The derivative of a mean is a covariance, dE[z] = Cov(z, d log of that product). So, with
    ρ_j = p(j|y) and E_j, S_j, T_j the mean, variance and third central moment of z given j, and g_k = E_k[v − m_k]/q_k,
        (MIXTURE-logit)  dlogit_j = dε̂ ρ_j (E_j − ε̂)
        (MIXTURE-mean)   dn_k = dε̂ ρ_k [(E_k − ε̂) g_k − r S_k/q_k] SCALES_k
        (MIXTURE-width)  du_k = dε̂ ρ_k ½ [(E_k − ε̂) (g_k² + (r² S_k − q_k)/q_k²) − 2 g_k r S_k/q_k + r² T_k/q_k²] σ(u)σ(−u)
    and, with V and W the variance and third central moment of z over all components,
        (MIXTURE-x)      dx_t = dε̂ (1 − V)/s
        (MIXTURE-gamma)  dgamma_b = ½ Σ_d dε̂ [s x_t (1 − V) − ε̂ + W + 2 ε̂ V]
    """
    D, n = x_t.shape[1], N_GAUSSIANS + 1
    parts = output.reshape(len(x_t), N_OUTPUTS, D)
    logits, moved, u = np.split(parts, [n, n + N_GAUSSIANS], axis=1)  # (B, C, D), (B, K, D), (B, K, D)
    m = column_of(CENTRES, moved) + column_of(SCALES, moved) * moved
    share, rest = sigmoid_and_complement(u)
    q = LEAST_VARIANCE + share
    a, s = (column[:, :, None] for column in signal_and_noise(gamma))  # (B, 1, 1)
    r, y = s / a, x_t[:, None] / a  # (B, 1, D)
    of_levels, of_reals = level_posteriors(y, m, q, r), gaussian_posteriors(y, m, q, r)
    log_evidence, E, S, T, g = (np.where(r.real < LEVEL_SPACING, *both) for both in zip(of_levels, of_reals))  # (B, K, D)
    black = (y - BLACK) / r
    log_weights = logits + np.concatenate([-0.5 * black * black, log_evidence], axis=1)
    weights = np.exp(log_weights - log_weights.real.max(axis=1, keepdims=True))
    rho = weights / weights.sum(axis=1, keepdims=True)
    means = np.concatenate([black, E], axis=1)
    eps_hat = (rho * means).sum(axis=1)  # (B, C, D) -> (B, D)
    return eps_hat, (rho, means - eps_hat[:, None], S, T, g, q, share * rest, r, eps_hat, x_t, s[:, 0])


def pixel_mixture_backward(deps_hat, cache):
    """Backward of ε̂ = E[ε|x_t]: deps_hat (B, D) -> dx_t (B, D), doutput (B, D (3K + 1)), dgamma (B,)."""
    rho, apart, S, T, g, q, dq, r, eps_hat, x_t, s = cache  # apart = E_j − ε̂
    doutput = deps_hat[:, None] * rho  # (B, C, D), what all three have in common
    dlogits = doutput * apart  # (MIXTURE-logit)
    common, apart_k, c = doutput[:, 1:], apart[:, 1:], r * S / q
    dmoved = common * (apart_k * g - c) * column_of(SCALES, r)  # (MIXTURE-mean)
    of_width = apart_k * (g * g + (r * r * S - q) / (q * q)) - 2 * g * c + r * r * T / (q * q)
    du = 0.5 * common * of_width * dq  # (MIXTURE-width)
    rho_k = rho[:, 1:]
    V = (rho * apart * apart).sum(axis=1) + (rho_k * S).sum(axis=1)  # (B, C, D) -> (B, D)
    W = (rho * apart**3).sum(axis=1) + (rho_k * (T + 3 * S * apart_k)).sum(axis=1)
    dx_t = deps_hat * (1 - V) / s  # (MIXTURE-x)
    dgamma = 0.5 * (deps_hat * (s * x_t * (1 - V) - eps_hat + W + 2 * eps_hat * V)).sum(axis=1)  # (MIXTURE-gamma) -> (B,)
    return dx_t, np.concatenate([dlogits, dmoved, du], axis=1).reshape(len(x_t), -1), dgamma


def column_of(numbers, like):
    """Numbers of the K Gaussians beside arrays (B, K, D), in the real dtype of `like`: (K, 1)."""
    return np.array(numbers, like.real.dtype)[:, None]


def gaussian_posteriors(y, m, q, r):
    """Of v ~ N(m, q) seen as y ~ N(v, r²), all (B, K, D): log N(y; m, q + r²) − log N(0; 0, r²), and of z = (y − v)/r the mean,
    variance and third central moment, and E[v − m]/q."""
    variance = q + r * r
    g = (y - m) / variance
    return 0.5 * (np.log(r * r / variance) - g * (y - m)), r * g, q / variance, np.zeros_like(g), g


def level_posteriors(y, m, q, r):
    """As `gaussian_posteriors`, of the levels alone: their posterior probabilities are ∝ e^(−(v_l − M)²/2τ²), M and τ² the mean
    and variance of v there. Each side of the nearest level the weights fall by factors e^(−(Δ² ± 2Δ(v_l − M))/2τ²)."""
    variance = q + r * r
    M, precision = m + (y - m) * q / variance, variance / (q * r * r)
    h = (np.rint((M.real + 1) / LEVEL_SPACING) * LEVEL_SPACING - 1) - M  # from M to the nearest level
    moments = [1, 0, 0, 0]  # Σ_j w_j j^n over levels j steps from the nearest one
    for side in (1, -1):
        first = np.exp(-(0.5 * LEVEL_SPACING + side * h) * LEVEL_SPACING * precision)  # of the next level beside the nearest
        weight, fall = first, np.exp(-LEVEL_SPACING * LEVEL_SPACING * precision)
        for j in range(1, REACH + 1):
            moments = [moment + weight * (side * j) ** n for n, moment in enumerate(moments)]
            first = first * fall
            weight = weight * first
    c_0, *c = moments
    c_1, c_2, c_3 = (moment / c_0 for moment in c)
    step = LEVEL_SPACING / r  # of z from a level to the one below
    E = r * (y - m) / variance - h / r - step * c_1
    S, T = step**2 * (c_2 - c_1 * c_1), -(step**3) * (c_3 - 3 * c_1 * c_2 + 2 * c_1**3)
    log_evidence = -0.5 * ((y - m) ** 2 / variance + h * h * precision) + np.log(LEVEL_SPACING * c_0 / np.sqrt(2 * math.pi * q))
    return log_evidence, E, S, T, (h + LEVEL_SPACING * c_1 + (y - m) * q / variance) / q
