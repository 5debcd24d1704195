"""Langevin sampling of p(x) ∝ e^−E(x)/T: a gradient step with noise, and the Metropolis test that makes it exact.

The overdamped Langevin equation dx = −½ ∇E dt + √T dW has p as its stationary density, whatever E is: its Fokker–Planck
equation ∂p/∂t = ½ ∇·(p ∇E + T ∇p) is zero where ∇ log p = −∇E/T. That ties the drift to the noise: with a time step ε²,

    y = x + ½ ε² score(x) + √T ε η,        η ~ N(0, I),  score = −∇E                        (Du & Mordatch 2019, equation 1)

so that a drift of ½ ε² has noise of standard deviation √T ε, no other. Where the two are set apart, as is often done for
images, the chain has another temperature: noise of s beside a drift of ½ ε² score samples e^−E/T with T = s²/ε².

A finite ε leaves an error. Of N(0, 1), x → (1 − ½ ε²) x + ε η has the variance 1/(1 − ε²/4), too wide, and none for ε ≥ 2. The
Metropolis-adjusted algorithm (MALA: Roberts & Tweedie 1996, section 1.4; Besag 1994) takes y with the probability

    min(1, p(y) q(x|y)/p(x) q(y|x)),        q(y|x) = N(y; x + ½ ε² score(x), T ε² I),

else it stays at x. Then p(x) q(y|x) a(y|x) is the same with x and y exchanged, detailed balance, and p is stationary for
every ε.

All functions are pure: the noise is an argument. Shapes: B chains, D columns of the state, K steps.
"""

import math

import numpy as np

from npvae.core.numerics import accumulator


def langevin_step(x, score, eps, step_size, temperature=1.0):
    """y = x + ½ ε² score + √T ε η: state, score and noise η (B, D) -> (B, D)."""
    return x + 0.5 * step_size**2 * score + math.sqrt(temperature) * step_size * eps


def log_acceptance(x, energy, score, y, energy_y, score_y, step_size, temperature=1.0):
    """log p(y) q(x|y)/p(x) q(y|x) of each chain, (B,), at most 0 where a proposal may be refused: states, scores (B, D),
    energies (B,).

    η = (y − x − ½ ε² score(x))/√T ε is the noise that led from x to y, η' that which would lead back. The densities q have
    −½ ‖η‖² in the exponent, so that the logarithm is −(E(y) − E(x))/T + ½ (‖η‖² − ‖η'‖²).
    """
    scale = math.sqrt(temperature) * step_size
    there = (y - x - 0.5 * step_size**2 * score) / scale
    back = (x - y - 0.5 * step_size**2 * score_y) / scale
    of_proposals = 0.5 * (there * there - back * back).sum(axis=1, dtype=accumulator(x))  # (B, D) -> (B,)
    return (energy - energy_y) / temperature + of_proposals


def langevin_chain(energy_and_score, x, eps, step_size, temperature=1.0):
    """The states after K steps without a test, (B, D): x (B, D), noise eps (K, B, D); energy_and_score is a function
    (B, D) -> (B,), (B, D)."""
    for noise in eps:
        x = langevin_step(x, energy_and_score(x)[1], noise, step_size, temperature)
    return x


def adjusted_chain(energy_and_score, x, eps, u, step_size, temperature=1.0):
    """The states after K Metropolis-adjusted steps, (B, D), and the share of them that each chain took, (B,): x (B, D),
    noise eps (K, B, D), and u (K, B) uniform in [0, 1), which decide: a step is taken where log u < `log_acceptance`."""
    (energy, score), taken = energy_and_score(x), np.zeros(len(x))
    for noise, uniform in zip(eps, u):
        y = langevin_step(x, score, noise, step_size, temperature)
        energy_y, score_y = energy_and_score(y)
        log_ratio = log_acceptance(x, energy, score, y, energy_y, score_y, step_size, temperature)
        takes = uniform < np.exp(np.minimum(log_ratio, 0))  # (B,); not where the ratio is not a number
        x, score = np.where(takes[:, None], y, x), np.where(takes[:, None], score_y, score)
        energy = np.where(takes, energy_y, energy)
        taken += takes
    return x, taken / len(eps)
