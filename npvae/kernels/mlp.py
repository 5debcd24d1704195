"""Compiled twin of `npvae.ops.mlp`; and the same passes in the buffers of a workspace, for a gradient in one call.

`mlp_forward` and `mlp_backward` are those of the ops over compiled layers. The others are themselves compiled: they call the
kernels of a layer one after the other, and all their arrays are pieces of two long ones, `floats` and `integers`, which are
allocated once. The table `layers` says where each piece starts.
"""

import functools

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.dense import times, times_transposed, transposed_times
from npvae.kernels.layers import BACKWARD, FORWARD, dense_backward, dense_forward, identity_backward, identity_forward
from npvae.kernels.sparse import SPARSE, WIDE, combine_rows, count_nonzeros, find, transpose
from npvae.ops import mlp

mlp_forward = functools.partial(mlp.mlp_forward, dense_forward=dense_forward)
mlp_backward = functools.partial(mlp.mlp_backward, dense_backward=dense_backward)

# One layer: its widths; whether it has an activation, whether its dx is wanted, and whether its input was found to be sparse;
# and where its arrays start: W and b in theta, pre to dx in floats, the non-zeros of its input and of the transposed input, as
# `npvae.kernels.sparse` lists them, in integers and (the values) in floats.
LAYER = np.dtype([(name, np.int64) for name in (
    "n_in", "n_out", "activated", "need_dx", "is_sparse", "W", "b", "pre", "h", "dpre", "dx",
    "starts", "columns", "values", "column_starts", "rows", "column_values",
)])  # fmt: skip


class Places:
    """Gives out pieces of an array that is allocated when all of them are known: take(n) is where the next n elements start."""

    def __init__(self):
        self.size = 0

    def take(self, n):
        start, self.size = self.size, self.size + n
        return start


def layer_table(layers, n_rows, parameters, floats, integers):
    """The table, of LAYER, of layers (W, b, activation) for at most n_rows rows; its arrays are taken from the three Places."""
    table = np.zeros(len(layers), LAYER)
    for layer, (W, _, activation) in zip(table, layers):
        n_in, n_out = W.shape
        most_nonzeros = int(SPARSE * n_rows * n_in) + 1  # `find` needs room for one more
        layer["n_in"], layer["n_out"], layer["activated"], layer["need_dx"] = n_in, n_out, activation != "identity", True
        layer["W"], layer["b"] = parameters.take(n_in * n_out), parameters.take(n_out)
        layer["pre"], layer["dpre"] = floats.take(n_rows * n_out), floats.take(n_rows * n_out)
        layer["dx"] = floats.take(n_rows * n_in)
        layer["h"] = floats.take(n_rows * n_out) if layer["activated"] else layer["pre"]
        layer["starts"], layer["column_starts"] = integers.take(n_rows + 1), integers.take(n_in + 1)
        layer["columns"], layer["rows"] = integers.take(most_nonzeros), integers.take(most_nonzeros)
        layer["values"], layer["column_values"] = floats.take(most_nonzeros), floats.take(most_nonzeros)
    return table


def _matrix(flat, start, n_rows, n_columns):
    return flat[start : start + n_rows * n_columns].reshape(n_rows, n_columns)


def _norm2(a):
    flat = a.reshape(-1)
    return np.dot(flat, flat)


def _nonzeros(layer, n_rows, floats, integers):
    """starts, columns, values of the non-zeros of the layer's input."""
    return integers[layer["starts"] :][: n_rows + 1], integers[layer["columns"] :], floats[layer["values"] :]


def _transposed_nonzeros(layer, floats, integers):
    """column_starts, rows, values of the non-zeros of the layer's transposed input."""
    return integers[layer["column_starts"] :][: layer["n_in"] + 1], integers[layer["rows"] :], floats[layer["column_values"] :]


matrix, norm2, nonzeros, transposed_nonzeros = jit(_matrix), jit(_norm2), jit(_nonzeros), jit(_transposed_nonzeros)


@functools.cache
def layers_forward_kernel(activation):
    """The forward pass of a table of layers whose activation is this one or none, compiled."""
    activation_forward = FORWARD[activation]

    def _layers_forward(theta, layers, x, floats, integers):
        """x (B, n_in) -> the output of the last layer (B, n_out), a view of floats."""
        h = x
        for i in range(len(layers)):
            layer = layers[i]
            W, b = matrix(theta, layer["W"], layer["n_in"], layer["n_out"]), theta[layer["b"] : layer["b"] + layer["n_out"]]
            pre = matrix(floats, layer["pre"], len(x), layer["n_out"])
            layer["is_sparse"] = layer["n_out"] >= WIDE and count_nonzeros(h) <= SPARSE * h.size
            if layer["is_sparse"]:
                starts, columns, values = nonzeros(layer, len(x), floats, integers)
                find(h, starts, columns, values)
                combine_rows(starts, columns, values, W, pre)
            else:
                times(h, W, pre)
            h = matrix(floats, layer["h"], len(x), layer["n_out"])
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

    def _layers_backward(theta, layers, x, dh, floats, integers, grad):
        """dh (B, n_out) -> dx (B, n_in), and a bound on the sum of squares of the layers' gradient, which is written to grad.

        By Cauchy and Schwarz ‖dW‖² + ‖db‖² ≤ (‖x‖² + B) ‖dpre‖².
        """
        bound = grad.dtype.type(0)
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            n_in, n_out = layer["n_in"], layer["n_out"]
            pre, h = matrix(floats, layer["pre"], len(x), n_out), matrix(floats, layer["h"], len(x), n_out)
            dpre = matrix(floats, layer["dpre"], len(x), n_out) if layer["activated"] else dh
            below = x if i == 0 else matrix(floats, layers[i - 1]["h"], len(x), n_in)
            dW, db = matrix(grad, layer["W"], n_in, n_out), grad[layer["b"] : layer["b"] + n_out]
            if layer["activated"]:
                activation_backward(dh, pre, h, dpre, db)
            else:
                identity_backward(dh, pre, h, dpre, db)
            if layer["is_sparse"]:
                starts, columns, values = nonzeros(layer, len(x), floats, integers)
                column_starts, rows, column_values = transposed_nonzeros(layer, floats, integers)
                transpose(starts, columns, values, column_starts, rows, column_values)
                combine_rows(column_starts, rows, column_values, dpre, dW)
            else:
                transposed_times(below, dpre, dW)
            bound += (norm2(below) + len(x)) * norm2(dpre)
            if layer["need_dx"]:
                dh = matrix(floats, layer["dx"], len(x), n_in)
                times_transposed(dpre, matrix(theta, layer["W"], n_in, n_out), dh)
        return dh, bound

    return jit(_layers_backward)
