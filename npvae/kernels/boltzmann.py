"""Compiled twin of `npvae.ops.boltzmann`: free energies over compiled layers, and all steps of Gibbs sampling in one call; and
the gradient of a binary machine in one call, both phases together.

A layer's input is a product with zeros and ones. Where few are ones, in binarised images and in trained hidden layers, it is a
sum of rows of W or of its transpose (`npvae.kernels.sparse`), else a product in tiles (`npvae.kernels.dense`).
"""

import functools
import math

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.dense import times, transposed_times
from npvae.kernels.elementary import exp_minus_abs, log1p_to_one, sigmoid
from npvae.kernels.layers import dense_backward, dense_forward
from npvae.kernels.sparse import SPARSE, WIDE, combine_rows, count_nonzeros, find, transpose
from npvae.kernels.uniforms import fill, padded
from npvae.kernels.views import set_rows
from npvae.ops import boltzmann
from npvae.ops.uniforms import LANES

binary_free_energy_forward = functools.partial(boltzmann.binary_free_energy_forward, dense_forward=dense_forward)
binary_free_energy_backward = functools.partial(boltzmann.binary_free_energy_backward, dense_backward=dense_backward)
gaussian_free_energy_forward = functools.partial(boltzmann.gaussian_free_energy_forward, dense_forward=dense_forward)
gaussian_free_energy_backward = functools.partial(boltzmann.gaussian_free_energy_backward, dense_backward=dense_backward)
BLOCK = 16  # rows and columns that are transposed at a time: whole cache lines on both sides


def gibbs(x, states, n_steps, visible_bias, hidden_bias, W, logvar=None):
    """`npvae.ops.boltzmann.gibbs`."""
    x = np.array(x, order="C")  # a copy, which the kernel moves
    gibbs_chains(x, states, n_steps, visible_bias, hidden_bias, W, none_or(logvar, x.dtype), *buffers(len(x), W))
    return x


def none_or(logvar, dtype):
    """logvar as a kernel takes it: an empty array for None."""
    return np.empty(0, dtype) if logvar is None else logvar


def buffers(n_rows, W):
    """What the kernels of chains write to: h, the inputs of both layers, W transposed, random numbers, lists of non-zeros."""
    (n_visible, n_hidden), dtype = W.shape, W.dtype
    widest = max(n_visible, n_hidden)
    h, hidden_pre, visible_pre = (np.empty((n_rows, n), dtype) for n in (n_hidden, n_hidden, n_visible))
    nonzeros = np.empty(n_rows + 1, np.int32), np.empty(n_rows * widest + 1, np.int32), np.empty(n_rows * widest + 1, dtype)
    return h, hidden_pre, visible_pre, np.empty((n_hidden, n_visible), dtype), np.empty((2, padded(widest)), dtype), *nonzeros


def _transpose_matrix(W, W_t):
    """W_t = Wᵀ, block by block."""
    n, m = W.shape
    for i in range(0, n, BLOCK):
        for j in range(0, m, BLOCK):
            for k in range(j, min(j + BLOCK, m)):
                for row in range(i, min(i + BLOCK, n)):
                    W_t[k, row] = W[row, k]


def _times_few(x, W, out, starts, columns, values):
    """out = x W, as a sum of rows of W where x has few non-zeros."""
    if W.shape[1] >= WIDE and count_nonzeros(x) <= SPARSE * x.size:
        find(x, starts, columns, values)
        combine_rows(starts, columns, values, W, out)
    else:
        times(x, W, out)


def _draw_binary(pre, bias, beta, states, numbers, out):
    """Zeros and ones with the probabilities σ(β pre + bias) of ones: pre, out (C, n), bias (n,), the generators' states."""
    zero, one, n = out.dtype.type(0), out.dtype.type(1), out.shape[1]
    for r in range(len(out)):
        fill(states[r], numbers[: -(-n // LANES) * LANES])
        for j in range(n):
            out[r, j] = one if numbers[j] < sigmoid(beta * pre[r, j] + bias[j]) else zero


def _draw_gaussian(pre, bias, beta, logvar, states, numbers, out):
    """As `draw_binary`, of N(β pre + bias, e^logvar): numbers (2, n) are the uniforms of Box and Muller."""
    half, two, turn, n = logvar.dtype.type(0.5), logvar.dtype.type(2), logvar.dtype.type(2 * math.pi), out.shape[1]
    for r in range(len(out)):
        fill(states[r], numbers[0, : -(-n // LANES) * LANES])
        fill(states[r], numbers[1, : -(-n // LANES) * LANES])
        for i in range(n):
            normal = np.sqrt(-two * np.log(numbers[0, i])) * np.cos(turn * numbers[1, i])
            out[r, i] = beta * pre[r, i] + bias[i] + np.exp(half * logvar[i]) * normal


def _scale_rows(x, logvar, out):
    """out = x/σ²: (C, V)."""
    for r in range(len(x)):
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] * np.exp(-logvar[i])


transpose_matrix, times_few, scale_rows = jit(_transpose_matrix), jit(_times_few), jit(_scale_rows)
draw_binary, draw_gaussian = jit(_draw_binary), jit(_draw_gaussian)


def _hidden_products(x, W, logvar, scaled, out, starts, columns, values):
    """out = u W with u = x, or x/σ², which is written to `scaled`: (C, V) -> (C, H)."""
    if logvar.size:
        scale_rows(x, logvar, scaled)
        times_few(scaled, W, out, starts, columns, values)
    else:
        times_few(x, W, out, starts, columns, values)


hidden_products = jit(_hidden_products)


def _draw_visible(pre, bias, beta, logvar, states, numbers, out):
    if logvar.size:
        draw_gaussian(pre, bias, beta, logvar, states, numbers, out)
    else:
        draw_binary(pre, bias, beta, states, numbers[0], out)


draw_visible = jit(_draw_visible)


def _gibbs_chains(x, states, n_steps, visible_bias, hidden_bias, W, logvar, h, hidden_pre, visible_pre, W_t, numbers, starts,
                  columns, values):  # fmt: skip
    """n_steps of each chain of x (C, V), in place."""
    one = x.dtype.type(1)
    transpose_matrix(W, W_t)
    for _ in range(n_steps):
        hidden_products(x, W, logvar, visible_pre, hidden_pre, starts, columns, values)
        draw_binary(hidden_pre, hidden_bias, one, states, numbers[0], h)
        times_few(h, W_t, visible_pre, starts, columns, values)
        draw_visible(visible_pre, visible_bias, one, logvar, states, numbers, x)


gibbs_chains = jit(_gibbs_chains)


# ---- the gradient in one call ----


def boltzmann_workspace(n_rows, n_visible, n_hidden, dtype):
    """The buffers of `boltzmann_gradient` for at most n_rows rows of data and chains together."""
    most = n_rows * n_visible + 1
    floats = [np.empty(shape, dtype) for shape in ((n_rows, n_visible), (n_rows, n_hidden), most, most)]
    integers = [np.empty(n, np.int32) for n in (n_rows + 1, most, n_visible + 1, most)]
    return (*floats, *integers)


def boltzmann_gradient(x, noise, machine, offsets, is_centred, dloss, grads, workspace):
    """`forward` and `backward` of `npvae.models.BoltzmannMachine` with binary units: x (B, V), noise (C, V) -> the mean free
    energies of both.

    machine: (visible_bias, hidden_bias, W) of the energy as the lectures write it; offsets: (V,), (H,), those of a centred
    machine; grads, of visible_bias, hidden_bias and W, are overwritten.
    """
    return both_phases(x, noise, *machine, *offsets, is_centred, machine[2].dtype.type(dloss), *grads, *workspace)


def _layer_of_phase(rows, pre, visible_bias, hidden_bias, weight, da, db):
    """The sum of F over rows (n, V) whose products with W are `pre` (n, H), which becomes dpre = −weight σ. What the rows give
    of the gradients of both biases is added to da (V,) and db (H,)."""
    zero, total = pre.dtype.type(0), 0.0
    for r in range(len(rows)):
        for j in range(hidden_bias.size):
            z = pre[r, j] + hidden_bias[j]
            total -= (z if z > zero else zero) + log1p_to_one(exp_minus_abs(z))
            pre[r, j] = -weight * sigmoid(z)
            db[j] += pre[r, j]
        for i in range(visible_bias.size):
            total -= visible_bias[i] * rows[r, i]
            da[i] -= weight * rows[r, i]
    return total


layer_of_phase = jit(_layer_of_phase)


def _both_phases(x, noise, visible_bias, hidden_bias, W, visible_offset, hidden_offset, is_centred, dloss, da, db, dW, rows,
                 pre, values, column_values, starts, columns, column_starts, row_numbers):  # fmt: skip
    """`boltzmann_gradient`: data and chains are the rows of one product; as dpre they have the signs of their phases."""
    n, n_rows = len(x), len(x) + len(noise)
    rows, pre, starts = rows[:n_rows], pre[:n_rows], starts[: n_rows + 1]
    set_rows(rows[:n], x)
    set_rows(rows[n:], noise)
    is_sparse = W.shape[1] >= WIDE and count_nonzeros(rows) <= SPARSE * rows.size
    if is_sparse:
        find(rows, starts, columns, values)
        combine_rows(starts, columns, values, W, pre)
    else:
        times(rows, W, pre)
    da[:], db[:] = 0, 0
    positive = layer_of_phase(rows[:n], pre[:n], visible_bias, hidden_bias, dloss / len(x), da, db)
    negative = layer_of_phase(rows[n:], pre[n:], visible_bias, hidden_bias, -dloss / len(noise), da, db)
    if is_sparse:
        transpose(starts, columns, values, column_starts, row_numbers, column_values)
        combine_rows(column_starts, row_numbers, column_values, pre, dW)
    else:
        transposed_times(rows, pre, dW)
    if is_centred:
        for i in range(da.size):
            for j in range(db.size):
                dW[i, j] -= da[i] * hidden_offset[j] + visible_offset[i] * db[j]  # (CENTRE-W)
    return positive / len(x), negative / len(noise)


both_phases = jit(_both_phases)
