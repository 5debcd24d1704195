"""The partition function of a restricted Boltzmann machine, log Z: exact by enumeration, or by annealed importance sampling.

    enumerated_log_partition   the sum over all states of the smaller layer; the other one is summed up in closed form
    anneal                     weights whose mean is the ratio of two partition functions (AIS), and backwards (reverse AIS)
    log_ratio                  what such weights say: the logarithm of their mean, and its error

Shapes: C chains, V visible units, H hidden units; parameters as in `npvae.ops.boltzmann`, whose energies these are.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core.numerics import log_sum_exp
from npvae.ops.boltzmann import gibbs_step, hidden_input
from npvae.ops.layers import softplus_forward
from npvae.ops.uniforms import normals, uniforms

STATES_PER_BLOCK = 4096  # of an enumeration


def states_of(start, stop, n_units):
    """The states of n_units zeros and ones of the numbers start to stop - 1, (stop − start, n_units): unit j is digit j."""
    return (np.arange(start, stop)[:, None] >> np.arange(n_units) & 1).astype(np.float64)


def enumerated_log_partition(visible_bias, hidden_bias, W, logvar=None):
    """log Z in nats, exact up to rounding: log Σ_h of the sums over x (or of Σ_x, where there are fewer binary visible units).

    Given h, the sum over x of e^−E is a product over the visible units, so that
        Z = Σ_h e^(b·h) Π_i (1 + e^(a_i + Σ_j w_ij h_j))                                                 for binary units
        Z = Σ_h e^(b·h) Π_i √(2π σ_i²) e^((m_i² + 2 a_i m_i)/(2σ_i²)),  m_i = Σ_j w_ij h_j               for Gaussian units
    """
    given = visible_bias, hidden_bias, W, 0.0 if logvar is None else logvar
    visible_bias, hidden_bias, W, wide_logvar = (np.asarray(value, np.result_type(value, np.float64)) for value in given)
    if logvar is None and len(visible_bias) < len(hidden_bias):  # the machine with its layers exchanged
        visible_bias, hidden_bias, W = hidden_bias, visible_bias, W.T
    n_units, largest = len(hidden_bias), []
    for start in range(0, 2**n_units, STATES_PER_BLOCK):
        h = states_of(start, min(start + STATES_PER_BLOCK, 2**n_units), n_units)  # (block, H)
        m = h @ W.T  # (block, H) @ (H, V) -> (block, V)
        if logvar is None:
            others = softplus_forward(visible_bias + m)[0].sum(axis=1)
        else:
            of_x = 0.5 * m * (m + 2 * visible_bias) * np.exp(-wide_logvar)
            others = (of_x + 0.5 * (wide_logvar + math.log(2 * math.pi))).sum(axis=1)
        largest.append(log_sum_exp(h @ hidden_bias + others))
    return log_sum_exp(np.array(largest))


# ---- annealed importance sampling ----


class Ratio(NamedTuple):
    """An estimate of the logarithm of a mean of weights, in nats."""

    log_mean: float
    error: float  # one standard error
    low: float  # logarithms of the mean minus and plus 3 standard errors; −inf where the former is not positive
    high: float


def base_log_partition(base_bias, hidden_bias, logvar=None):
    """log Z of the machine without weights and hidden biases, whose visible units are independent with the bias base_bias."""
    if logvar is None:
        own = softplus_forward(np.asarray(base_bias, np.float64))[0].sum()
    else:
        own = 0.5 * (np.asarray(logvar, np.float64) + math.log(2 * math.pi)).sum()
    return float(own + len(hidden_bias) * math.log(2))


def anneal(x, states, betas, base_bias, visible_bias, hidden_bias, W, logvar=None):
    """Annealed importance sampling: x (C, V) of the machine at betas[0] -> log weights (C,) in float64, and x at the end.

    Between the base machine (β = 0) and the machine itself (β = 1) lie those with the parameters a_β = (1 − β) a_0 + β a, β b
    and β W, with free energies F_β. A chain goes from one to the next: at each β of betas but the first

        log w += F_before(x) − F_β(x),      then a step of Gibbs sampling with the machine at β

    E[w] = Z_end/Z_start for x that is drawn from the machine at the start, whatever the number of steps (Neal 2001;
    Salakhutdinov & Murray 2008, algorithm 1). With falling betas from draws of the machine itself it is the reverse estimate,
    of Z_0/Z_1. As log E[w] ≥ E[log w], the logarithm of a mean of forward weights is too small on average, and that of reverse
    weights makes log Z too large (Grosse, Ghahramani & Adams 2015; Burda, Grosse & Salakhutdinov 2015): they bracket it.

    states: the chains' generators, advanced in place as by `npvae.ops.boltzmann.gibbs`.
    """
    dtype, visible_noise = x.dtype.type, uniforms if logvar is None else normals
    precision = 1.0 if logvar is None else np.exp(-logvar)
    log_weights = np.zeros(len(x))
    for before, beta in pairwise(betas):
        z = hidden_input(x, hidden_bias, W, logvar).astype(np.float64)  # (C, H), at β = 1
        gained = (softplus_forward(beta * z)[0] - softplus_forward(before * z)[0]).sum(axis=1)
        bias, bias_before = ((1 - b) * base_bias + b * visible_bias for b in (beta, before))
        step = (bias - bias_before) * precision  # (V,): of ½ (x − a_β)²/σ² the part without x, too
        gained += x @ step if logvar is None else (x - 0.5 * (bias + bias_before)) @ step
        log_weights += gained
        noise = uniforms(states, W.shape[1], dtype), visible_noise(states, W.shape[0], dtype)
        x, _ = gibbs_step(x, *noise, bias.astype(dtype), dtype(beta) * hidden_bias, dtype(beta) * W, logvar)
    return log_weights, x


def log_ratio(log_weights):
    """What weights say of the logarithm of their mean: log_weights (C,) -> Ratio. Its error is that of the mean over the mean,
    s/(√C mean); C = 1 says nothing of it."""
    n, largest = len(log_weights), log_weights.max()
    weights = np.exp(log_weights - largest)
    mean = weights.mean()
    error = weights.std(ddof=1) / math.sqrt(n) if n > 1 else math.inf
    low = math.log(mean - 3 * error) if mean > 3 * error else -math.inf
    edges = (float(largest + value) for value in (math.log(mean), low, math.log(mean + 3 * error)))
    log_mean, low, high = edges
    return Ratio(log_mean, float(error / mean), low, high)
