"""Compiled twin of `npvae.ops.partition`: enumeration by a Gray code and annealing of many chains, on all cores.

An enumeration walks through the states of the smaller layer so that one unit changes from each to the next: then the inputs of
the other layer change by one row of W. A block of states is walked through by itself, from inputs that are computed anew.
"""

import math

import numpy as np

from npvae.core.numerics import log_sum_exp
from npvae.core.workers import Workers, workers_for
from npvae.kernels.boltzmann import buffers, draw_binary, draw_visible, hidden_products, none_or, times_few, transpose_matrix
from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp_minus_abs, log1p_to_one
from npvae.ops import partition

STATES_PER_BLOCK = 2**12
FACTORS = 512  # of numbers from 1 to 2, whose product is a float64
CHAINS_PER_CALL = 50  # of an annealing: so many rows share each row of W that is read


def enumerated_log_partition(visible_bias, hidden_bias, W, logvar=None):
    """`npvae.ops.partition.enumerated_log_partition`."""
    if np.result_type(visible_bias, hidden_bias, W).kind == "c":
        return partition.enumerated_log_partition(visible_bias, hidden_bias, W, logvar)
    if logvar is None and len(visible_bias) < len(hidden_bias):  # the machine with its layers exchanged
        visible_bias, hidden_bias, W = hidden_bias, visible_bias, W.T
    visible_bias, hidden_bias, rows = (np.array(value, np.float64, order="C") for value in (visible_bias, hidden_bias, W.T))
    logvar = none_or(None if logvar is None else np.asarray(logvar, np.float64), np.float64)
    n_states = 2 ** len(hidden_bias)
    starts = range(0, n_states, STATES_PER_BLOCK)

    def of_block(i):
        return log_sum_of_states(starts[i], min(STATES_PER_BLOCK, n_states), visible_bias, hidden_bias, rows, logvar)

    with Workers(workers_for(n_states * len(visible_bias))) as workers:
        sums = workers.deal(of_block, range(len(starts)))
    of_gaussians = 0.5 * (logvar + math.log(2 * math.pi)).sum()
    return log_sum_exp(np.array(sums)) + of_gaussians


def _log_sum_of_binary(inputs):
    """Σ_i log(1 + e^inputs_i), one logarithm for FACTORS of them: Σ_i max(inputs_i, 0) + log Π_i (1 + e^−|inputs_i|)."""
    total = 0.0
    for start in range(0, inputs.size, FACTORS):
        product = 1.0
        for i in range(start, min(start + FACTORS, inputs.size)):
            total += max(inputs[i], 0.0)
            product *= 1 + exp_minus_abs(inputs[i])
        total += np.log(product)
    return total


def _log_sum_of_gaussian(inputs, bias, logvar):
    """Σ_i (m_i² + 2 a_i m_i)/(2σ_i²) of the inputs a + m: what Gaussian units add beside √(2π σ²)."""
    total = 0.0
    for i in range(inputs.size):
        total += 0.5 * (inputs[i] - bias[i]) * (inputs[i] + bias[i]) * np.exp(-logvar[i])
    return total


log_sum_of_binary, log_sum_of_gaussian = jit(_log_sum_of_binary), jit(_log_sum_of_gaussian)


def _add_row(inputs, row, sign):
    for i in range(inputs.size):
        inputs[i] += sign * row[i]


add_row = jit(_add_row)


def _log_sum_of_states(first, n_states, visible_bias, hidden_bias, rows, logvar):
    """log of the sum of e^−F(h) over n_states states h, a power of two, from number `first` on, a multiple of it; rows (H, V)
    is W transposed. State k of a Gray code is the number first + (k ^ k >> 1)."""
    inputs, own = visible_bias.copy(), 0.0
    for j in range(hidden_bias.size):
        if first >> j & 1:
            add_row(inputs, rows[j], 1.0)
            own += hidden_bias[j]
    state, largest, total = first, -np.inf, 0.0
    for k in range(1, n_states + 1):
        others = log_sum_of_gaussian(inputs, visible_bias, logvar) if logvar.size else log_sum_of_binary(inputs)
        value = own + others
        if value > largest:
            total = total * np.exp(largest - value) + 1
            largest = value
        else:
            total += np.exp(value - largest)
        if k < n_states:
            j = 0
            while not k >> j & 1:
                j += 1
            sign = -1.0 if state >> j & 1 else 1.0
            state ^= 1 << j
            add_row(inputs, rows[j], sign)
            own += sign * hidden_bias[j]
    return largest + np.log(total)


log_sum_of_states = jit(_log_sum_of_states)


# ---- annealed importance sampling ----


def anneal(x, states, betas, base_bias, visible_bias, hidden_bias, W, logvar=None):
    """`npvae.ops.partition.anneal`, the chains shared by all cores: what a chain gives does not depend on the others."""
    x, log_weights = np.array(x, order="C"), np.zeros(len(x))
    vectors = [np.asarray(value, np.float64) for value in (betas, base_bias, visible_bias, hidden_bias)]
    arrays = *vectors, np.ascontiguousarray(W), none_or(logvar, x.dtype)

    def of_part(rows):
        room = buffers(rows.stop - rows.start, W)
        anneal_chains(x[rows], states[rows], log_weights[rows], *arrays, *room)

    parts = [slice(start, min(start + CHAINS_PER_CALL, len(x))) for start in range(0, len(x), CHAINS_PER_CALL)]
    with Workers(workers_for(len(betas) * x.size * W.shape[1])) as workers:
        workers.deal(lambda i: of_part(parts[i]), range(len(parts)))
    return log_weights, x


def _weigh_hidden(pre, hidden_bias, before, beta, log_weights):
    """log_weights += Σ_j log(1 + e^(β z_j)) − log(1 + e^(β' z_j)) with z = pre + b: from β' (before) to β."""
    for r in range(len(pre)):
        total = 0.0
        for j in range(hidden_bias.size):
            z = pre[r, j] + hidden_bias[j]
            after, earlier = beta * z, before * z
            total += max(after, 0.0) - max(earlier, 0.0)
            total += log1p_to_one(exp_minus_abs(after)) - log1p_to_one(exp_minus_abs(earlier))
        log_weights[r] += total


def _weigh_visible(x, bias_before, bias, logvar, log_weights):
    """log_weights += (a_β − a_β')·x, or, of Gaussian units, what ½ (x − a)²/σ² changes from a_β' to a_β."""
    for r in range(len(x)):
        total = 0.0
        for i in range(bias.size):
            step = bias[i] - bias_before[i]
            if logvar.size:
                total += (x[r, i] - 0.5 * (bias[i] + bias_before[i])) * step * np.exp(-logvar[i])
            else:
                total += x[r, i] * step
        log_weights[r] += total


weigh_hidden, weigh_visible = jit(_weigh_hidden), jit(_weigh_visible)


def _anneal_chains(x, states, log_weights, betas, base_bias, visible_bias, hidden_bias, W, logvar, h, hidden_pre, visible_pre,
                   W_t, numbers, starts, columns, values):  # fmt: skip
    """The chains x (C, V) through all betas, in place; their log weights are added to log_weights (C,)."""
    number = x.dtype.type
    scaled_bias, bias_in_dtype = np.empty(hidden_bias.size, x.dtype), np.empty(visible_bias.size, x.dtype)
    bias_before, bias = np.empty(visible_bias.size), np.empty(visible_bias.size)
    bias[:] = (1 - betas[0]) * base_bias + betas[0] * visible_bias
    transpose_matrix(W, W_t)
    for k in range(1, betas.size):
        before, beta = betas[k - 1], betas[k]
        bias_before[:] = bias
        bias[:] = (1 - beta) * base_bias + beta * visible_bias
        scaled_bias[:] = beta * hidden_bias
        bias_in_dtype[:] = bias
        hidden_products(x, W, logvar, visible_pre, hidden_pre, starts, columns, values)
        weigh_hidden(hidden_pre, hidden_bias, before, beta, log_weights)
        weigh_visible(x, bias_before, bias, logvar, log_weights)
        draw_binary(hidden_pre, scaled_bias, number(beta), states, numbers[0], h)
        times_few(h, W_t, visible_pre, starts, columns, values)
        draw_visible(visible_pre, bias_in_dtype, number(beta), logvar, states, numbers, x)


anneal_chains = jit(_anneal_chains)
