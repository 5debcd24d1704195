"""`npvae.ops.codes` compiled: the moves from the same source, the tables in loops with the same bits.

Nothing is called by a name of this file: kernels name the functions of `npvae.ops.codes`, and get these twins of them.
"""

import math

import numpy as np
from numba.extending import register_jitable

import npvae.kernels.rans
import npvae.kernels.reproducible  # noqa: F401  in place of the functions of npvae.ops
from npvae.kernels.compile import STRICT, stand_ins
from npvae.ops import codes
from npvae.ops.codes import LOG_MAX, LOG_MIN, N_SLOTS, SMALLEST_MASS
from npvae.ops.reproducible import exp, sigmoid

inlined = register_jitable(**STRICT, forceinline=True)


def _bernoulli_table(logits):
    table = np.empty(logits.size, np.int64)
    for d in range(logits.size):
        table[d] = 1 + int(sigmoid(logits[d]) * (N_SLOTS - 2))
    return table


def _levels_table(masses):
    n_levels, n_data = masses.shape
    table, sums, scale = np.empty((n_levels + 1, n_data), np.int64), np.zeros(n_data), np.zeros(n_data)
    for k in range(n_levels):
        for d in range(n_data):
            scale[d] += masses[k, d]
    for d in range(n_data):
        scale[d] = (N_SLOTS - n_levels) / scale[d]
    for k in range(n_levels):
        for d in range(n_data):
            table[k, d] = k + int(sums[d] * scale[d])
            sums[d] += masses[k, d]
    for d in range(n_data):
        table[n_levels, d] = N_SLOTS
    return table


def _categorical_masses(logits):
    n_data, n_levels = logits.shape
    masses, row = np.empty((n_levels, n_data)), np.empty(n_levels)
    for d in range(n_data):
        largest = logits[d, 0]
        for k in range(n_levels):
            largest = max(largest, logits[d, k])
        for k in range(n_levels):
            row[k] = exp(logits[d, k] - largest)
        for k in range(n_levels):
            masses[k, d] = row[k]
    return masses


@inlined
def _bounded(log):
    return (log if log < LOG_MAX else LOG_MAX) if log > LOG_MIN else LOG_MIN


@inlined
def _nonnegligible(mass):
    return 0.0 if mass < SMALLEST_MASS else mass


def _beta_binomial_masses(log_alpha, log_beta, n):
    """One division for each mass: its ratio to the neighbour on the mode's side is kept for the way down."""
    n_data = log_alpha.size
    alpha, beta, mode = np.empty(n_data), np.empty(n_data), np.empty(n_data)
    masses, ratios = np.ones((n + 1, n_data)), np.empty((n, n_data))
    for d in range(n_data):
        alpha[d], beta[d] = exp(_bounded(log_alpha[d])), exp(_bounded(log_beta[d]))
        excess = alpha[d] + beta[d] - 2.0
        mode[d] = math.floor((n * (alpha[d] - 1.0) - (beta[d] - 1.0)) / (excess if excess > 0.0 else 1.0)) + 1.0
    for k in range(n):
        for d in range(n_data):
            up, down, below = (n - k) * (alpha[d] + k), (k + 1) * (beta[d] + (n - 1 - k)), k < mode[d]
            ratios[k, d] = (down if below else up) / (up if below else down)
            masses[k + 1, d] = 1.0 if below else _nonnegligible(masses[k, d] * ratios[k, d])
    for k in range(n - 1, -1, -1):
        for d in range(n_data):
            masses[k, d] = _nonnegligible(masses[k + 1, d] * ratios[k, d]) if k < mode[d] else masses[k, d]
    return masses


stand_ins(codes, globals())
