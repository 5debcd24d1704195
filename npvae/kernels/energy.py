"""Compiled twin of `npvae.ops.energy`: an activation with both derivatives in one pass, and whole chains of Langevin steps.

A chain goes through all its steps in a block of few rows, whose hidden units stay in a core's own cache.
"""

import functools
import math

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.dense import times
from npvae.kernels.elementary import exp_minus_abs, log1p_to_one, sigmoid_and_complement, tanh
from npvae.kernels.layers import BACKWARD, FORWARD, identity_forward
from npvae.kernels.mlp import InTheta, Places
from npvae.kernels.views import matrix
from npvae.ops import energy

ROWS = 64  # of a block


# ---- activations with two derivatives ----


def _tanh_derivatives(pre, h, slope, curvature):
    one, two = pre.dtype.type(1), pre.dtype.type(2)
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            value = tanh(pre[i, j])
            h[i, j], slope[i, j] = value, one - value * value
            curvature[i, j] = -two * value * slope[i, j]  # (TANH-second)


def _sigmoid_derivatives(pre, h, slope, curvature):
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            sigma, complement = sigmoid_and_complement(pre[i, j])
            h[i, j], slope[i, j] = sigma, sigma * complement
            curvature[i, j] = slope[i, j] * (complement - sigma)  # (SIGMOID-second)


def _softplus_derivatives(pre, h, slope, curvature):
    zero = pre.dtype.type(0)
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            sigma, complement = sigmoid_and_complement(pre[i, j])
            h[i, j] = (pre[i, j] if pre[i, j].real > 0 else zero) + log1p_to_one(exp_minus_abs(pre[i, j]))
            slope[i, j], curvature[i, j] = sigma, sigma * complement  # (SOFTPLUS-second)


def _silu_derivatives(pre, h, slope, curvature):
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            sigma, complement = sigmoid_and_complement(pre[i, j])
            value = pre[i, j] * sigma
            h[i, j], slope[i, j] = value, sigma + value * complement
            curvature[i, j] = complement * (sigma + slope[i, j] - value * sigma)  # (SILU-second)


tanh_derivatives, sigmoid_derivatives = jit(_tanh_derivatives), jit(_sigmoid_derivatives)
softplus_derivatives, silu_derivatives = jit(_softplus_derivatives), jit(_silu_derivatives)


def in_one_pass(kernel):
    """A function like those of `npvae.ops.energy.DERIVATIVES`."""

    def derivatives(pre):
        h, slope, curvature = np.empty_like(pre), np.empty_like(pre), np.empty_like(pre)
        kernel(pre, h, slope, curvature)
        return h, slope, curvature

    return derivatives


DERIVATIVES = {
    "identity": energy.identity_derivatives,
    "tanh": in_one_pass(tanh_derivatives),
    "sigmoid": in_one_pass(sigmoid_derivatives),
    "softplus": in_one_pass(softplus_derivatives),
    "silu": in_one_pass(silu_derivatives),
}
score_forward, score_backward = functools.partial(energy.score_forward, derivatives=DERIVATIVES), energy.score_backward


# ---- Langevin steps ----

# One layer: its widths, where W, its transpose and b start in the parameters, and its pre, h and q in the buffers.
LAYER = np.dtype([(name, np.int64) for name in ("n_in", "n_out", "W", "transposed", "b", "pre", "h", "q", "g")])


def energy_chain(x, layers, confinement, eps, u, step_size, temperature=1.0):
    """`npvae.ops.energy.energy_chain`."""
    dtype, parameters, floats = x.dtype, [], Places()
    table, places = np.zeros(len(layers), LAYER), InTheta()
    for layer, (W, b, _) in zip(table, layers):
        n_in, n_out = layer["n_in"], layer["n_out"] = W.shape
        layer["W"], layer["transposed"], layer["b"] = places.take(W.size), places.take(W.size), places.take(n_out)
        parameters += [W.ravel(), W.T.ravel(), b]
        layer["pre"], layer["h"], layer["q"] = (floats.take(ROWS * n_out) for _ in range(3))
        layer["g"] = floats.take(ROWS * n_in)
    activation = layers[0][2] if len(layers) > 1 else "tanh"  # of a single layer, which has none, any kernel is right
    kernel, x, taken = chain_kernel(activation), np.array(x, order="C"), np.zeros(len(x))
    adjusted = u is not None
    kernel(np.concatenate(parameters).astype(dtype, copy=False), table, confinement, x, np.ascontiguousarray(eps, dtype),
           np.ascontiguousarray(u if adjusted else np.empty((len(eps), 0)), dtype), adjusted, step_size,
           math.sqrt(temperature) * step_size, temperature, taken, np.empty(floats.size, dtype))  # fmt: skip
    return x, taken / len(eps) if adjusted else np.ones(len(x))


@functools.cache
def score_kernel(activation):
    """Energy and score where the hidden layers have this activation, compiled."""
    activation_forward, activation_backward = FORWARD[activation], BACKWARD[activation]

    def _energy_and_score(flat, layers, confinement, x, floats, energies, score):
        """E (n,) and −∂E/∂x (n, D) of x (n, D)."""
        n, last = len(x), len(layers) - 1
        h = x
        for i in range(last + 1):
            layer = layers[i]
            pre, b = matrix(floats, layer["pre"], n, layer["n_out"]), flat[layer["b"] : layer["b"] + layer["n_out"]]
            times(h, matrix(flat, layer["W"], layer["n_in"], layer["n_out"]), pre)
            h = matrix(floats, layer["h"], n, layer["n_out"])
            if i < last:
                activation_forward(pre, b, h)
            else:
                h = pre
                identity_forward(pre, b, h)
        for r in range(n):
            squares = x.dtype.type(0)
            for d in range(x.shape[1]):
                squares += x[r, d] * x[r, d]
            energies[r] = x.dtype.type(0.5 * confinement) * squares + h[r, 0]
        g = matrix(floats, layers[last]["q"], n, 1)
        g[:] = 1
        for i in range(last, -1, -1):
            layer = layers[i]
            q = g
            if i < last:
                q = matrix(floats, layer["q"], n, layer["n_out"])
                db = np.empty(layer["n_out"], x.dtype)  # which nobody reads
                activation_backward(g, matrix(floats, layer["pre"], n, layer["n_out"]),
                                    matrix(floats, layer["h"], n, layer["n_out"]), q, db)  # fmt: skip
            g = matrix(floats, layer["g"], n, layer["n_in"])
            times(q, matrix(flat, layer["transposed"], layer["n_out"], layer["n_in"]), g)
        for r in range(n):
            for d in range(x.shape[1]):
                score[r, d] = -(x.dtype.type(confinement) * x[r, d] + g[r, d])

    return jit(_energy_and_score)


@functools.cache
def chain_kernel(activation):
    """The steps of all chains where the hidden layers have this activation, compiled."""
    energy_and_score = score_kernel(activation)

    def _block(flat, layers, confinement, x, eps, u, adjusted, step_size, scale, temperature, taken, floats):
        """All steps of the chains x (n, D), in place; eps (K, n, D), u (K, n)."""
        n, D = x.shape
        half_square, width = x.dtype.type(0.5 * step_size * step_size), x.dtype.type(scale)
        energies, energies_y = np.empty(n, x.dtype), np.empty(n, x.dtype)
        score, score_y, y = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        energy_and_score(flat, layers, confinement, x, floats, energies, score)
        for k in range(len(eps)):
            for r in range(n):
                for d in range(D):
                    y[r, d] = x[r, d] + half_square * score[r, d] + width * eps[k, r, d]
            energy_and_score(flat, layers, confinement, y, floats, energies_y, score_y)
            for r in range(n):
                takes = True
                if adjusted:
                    log_ratio = (energies[r] - energies_y[r]) / temperature
                    for d in range(D):
                        back = (x[r, d] - y[r, d] - half_square * score_y[r, d]) / width
                        log_ratio += 0.5 * (eps[k, r, d] * eps[k, r, d] - back * back)
                    takes = u[k, r] < math.exp(min(log_ratio, 0.0))
                if takes:
                    taken[r] += 1
                    energies[r] = energies_y[r]
                    for d in range(D):
                        x[r, d], score[r, d] = y[r, d], score_y[r, d]

    block = jit(_block)

    def _chains(flat, layers, confinement, x, eps, u, adjusted, step_size, scale, temperature, taken, floats):
        for start in range(0, len(x), ROWS):
            stop = min(start + ROWS, len(x))
            block(flat, layers, confinement, x[start:stop], eps[:, start:stop].copy(), u[:, start:stop].copy(), adjusted,
                  step_size, scale, temperature, taken[start:stop], floats)  # fmt: skip

    return jit(_chains)
