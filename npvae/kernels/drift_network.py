"""The network of particles in a block of few walkers: forward and backward with all arrays in one buffer, which stays in a
core's own cache. `npvae.ops.pair_features` derives it.

Shapes: n rows of a layer; B walkers, N particles, d dimensions, D = N d, A centres, M widths of q.
"""

import functools

import numpy as np

from npvae.kernels.compile import inlined, jit
from npvae.kernels.dense import times, times_transposed, transposed_times
from npvae.kernels.layers import BACKWARD, FORWARD, identity_backward, identity_forward
from npvae.kernels.mlp import matrix
from npvae.kernels.particles import (
    add_mean_of_others,
    features,
    features_backward,
    mean_of_others,
    pushes,
    pushes_backward,
)

# One layer: its widths, whether it has an activation, where W and b start in theta; where its arrays start in floats: pre and h
# of both ends of a step, `stage` numbers apart, then dpre, dx, db and dW of one.
LAYER = np.dtype([(name, np.int64) for name in (
    "n_in", "n_out", "activated", "W", "b", "stage", "pre", "h", "dpre", "dx", "db", "dW",
)])  # fmt: skip


def layer_table(layers, n_rows, parameters, floats):
    """The table, of LAYER, of layers (W, b, activation) for n_rows rows; its arrays are taken from two Places."""
    table = np.zeros(len(layers), LAYER)
    for layer, (W, _, activation) in zip(table, layers):
        n_in, n_out = layer["n_in"], layer["n_out"] = W.shape
        layer["activated"], layer["stage"] = activation != "identity", n_rows * n_out
        layer["W"], layer["b"] = parameters.take(n_in * n_out), parameters.take(n_out)
        layer["pre"] = floats.take(2 * n_rows * n_out)
        layer["h"] = floats.take(2 * n_rows * n_out) if layer["activated"] else layer["pre"]
        layer["dpre"], layer["dx"] = floats.take(n_rows * n_out), floats.take(n_rows * n_in)
        layer["db"], layer["dW"] = floats.take(n_out), floats.take(n_in * n_out)
    return table


def _output_of(layers, i, floats, stage, n):
    """What layer i has left, (n, n_out)."""
    return matrix(floats, layers[i]["h"] + stage * layers[i]["stage"], n, layers[i]["n_out"])


def _add_to(total, values):
    for i in range(len(total)):
        total[i] += values[i]


output_of, add_to = inlined(_output_of), jit(_add_to)


@functools.cache
def layers_forward_kernel(activation):
    """Layers one after the other whose activation is this one or none, compiled."""
    activation_forward = FORWARD[activation]

    def _layers_forward(theta, layers, x, floats, stage):
        """x (n, n_in) -> the output of the last layer (n, n_out), a view of floats."""
        h = x
        for i in range(len(layers)):
            layer = layers[i]
            n_out = layer["n_out"]
            b = theta[layer["b"] : layer["b"] + n_out]
            pre = matrix(floats, layer["pre"] + stage * layer["stage"], len(x), n_out)
            times(h, matrix(theta, layer["W"], layer["n_in"], n_out), pre)
            h = output_of(layers, i, floats, stage, len(x))
            if layer["activated"]:
                activation_forward(pre, b, h)
            else:
                identity_forward(pre, b, h)
        return h

    return jit(_layers_forward)


@functools.cache
def layers_backward_kernel(activation):
    """The backward pass that belongs to `layers_forward_kernel`, compiled."""
    activation_backward = BACKWARD[activation]

    def _layers_backward(theta, layers, x, dh, floats, stage, adds, grad):
        """dh (n, n_out) -> dx (n, n_in), a view of floats; adds: dW and db are added to grad (P,)."""
        n = len(x)
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            n_in, n_out = layer["n_in"], layer["n_out"]
            pre, h = matrix(floats, layer["pre"] + stage * layer["stage"], n, n_out), output_of(layers, i, floats, stage, n)
            db, dpre = floats[layer["db"] : layer["db"] + n_out], dh
            if layer["activated"]:
                dpre = matrix(floats, layer["dpre"], n, n_out)
                activation_backward(dh, pre, h, dpre, db)
            else:
                identity_backward(dh, pre, h, dh, db)
            if adds:
                below = x if i == 0 else output_of(layers, i - 1, floats, stage, n)
                transposed_times(below, dpre, matrix(floats, layer["dW"], n_in, n_out))
                add_to(grad[layer["W"] : layer["W"] + n_in * n_out], floats[layer["dW"] : layer["dW"] + n_in * n_out])
                add_to(grad[layer["b"] : layer["b"] + n_out], db)
            dh = matrix(floats, layer["dx"], n, n_in)
            times_transposed(dpre, matrix(theta, layer["W"], n_in, n_out), dh)
        return dh

    return jit(_layers_backward)


@functools.cache
def network_forward_kernel(activation):
    """u of walkers, compiled."""
    layers_forward = layers_forward_kernel(activation)

    def _network_forward(theta, networks, physics, r, joined, pairs, floats, stage, u):
        """u (B, D) of places r (B, D); what f and g read is left in joined (B N, A + M) and pairs (B N (N − 1), 2 A + 1)."""
        f, g, w = networks
        N, d, centres, is_bounded = physics[0], physics[1], physics[2], physics[-1]
        features(r, N, d, centres, joined, pairs)
        beta = pairs  # of which there are none where there is one particle
        if N > 1:
            q = layers_forward(theta, g, pairs, floats, stage)  # (B N (N − 1), M)
            mean_of_others(q, N, joined)
            beta = layers_forward(theta, w, q, floats, stage)
        pushes(r, N, d, centres, joined, pairs, layers_forward(theta, f, joined, floats, stage), beta, is_bounded, u)

    return jit(_network_forward)


@functools.cache
def network_backward_kernel(activation):
    """The backward pass that belongs to `network_forward_kernel`, compiled."""
    layers_backward = layers_backward_kernel(activation)

    def _network_backward(theta, networks, physics, r, joined, pairs, du, floats, stage, adds, grad, dr):
        """du (B, D) -> added to dr (B, D); adds: the parameters' gradient is added to grad (P,)."""
        f, g, w = networks
        N, d, centres, is_bounded = physics[0], physics[1], physics[2], physics[-1]
        alpha = output_of(f, len(f) - 1, floats, stage, len(joined))
        beta = output_of(w, 0, floats, stage, len(pairs)) if N > 1 else pairs
        dalpha, dbeta = np.empty_like(alpha), np.empty((len(pairs), 1), r.dtype)
        pushes_backward(r, N, d, centres, joined, pairs, alpha, beta, is_bounded, du, dalpha, dbeta, dr)
        djoined, dpairs = layers_backward(theta, f, joined, dalpha, floats, stage, adds, grad), pairs
        if N > 1:
            q = output_of(g, len(g) - 1, floats, stage, len(pairs)) if len(g) else pairs
            dq = layers_backward(theta, w, q, dbeta, floats, stage, adds, grad)
            add_mean_of_others(djoined, N, dq)
            dpairs = layers_backward(theta, g, pairs, dq, floats, stage, adds, grad)
        features_backward(r, N, d, centres, djoined, dpairs, dr)

    return jit(_network_backward)
