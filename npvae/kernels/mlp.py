"""Compiled twin of `npvae.ops.mlp`; and the same passes in the buffers of a workspace, for a gradient in one call.

`mlp_forward` and `mlp_backward` are those of the ops over compiled layers. The others are themselves compiled: they call the
kernels of a layer one after the other, and all their arrays are pieces of two long ones, `floats` and `integers`, which are
allocated once. The table `layers` says where each piece starts.
"""

import functools

import numpy as np

from npvae.kernels.compile import inlined, jit
from npvae.kernels.convolution import filter_backward, filter_forward
from npvae.kernels.dense import part_transposed_times, times, times_transposed
from npvae.kernels.layers import BACKWARD, FORWARD, dense_backward, dense_forward, identity_backward, identity_forward
from npvae.kernels.sparse import SPARSE, WIDE, add_rows, count_nonzeros, find, transpose
from npvae.kernels.updates import PARTS
from npvae.kernels.views import matrix, vector
from npvae.ops import mlp

mlp_forward = functools.partial(mlp.mlp_forward, dense_forward=dense_forward, filter_forward=filter_forward)
mlp_backward = functools.partial(mlp.mlp_backward, dense_backward=dense_backward, filter_backward=filter_backward)

# One layer: its widths; whether it has an activation, and whether its dx is wanted; the rows and non-zeros that a shard has at
# most; and where its arrays start: W and b in theta, the net's input to the shards' sums of db in floats, the non-zeros of its
# input and of the transposed input, as `npvae.kernels.sparse` lists them, in integers and (the values) in floats. The rows of
# all shards lie one after the other; of what is no row each shard has its own.
LAYER = np.dtype([(name, np.int64) for name in (
    "n_in", "n_out", "activated", "need_dx", "most_rows", "most_nonzeros", "W", "b", "x", "pre", "h", "dpre", "dx", "db",
    "is_sparse", "starts", "columns", "values", "column_starts", "rows", "column_values",
)])  # fmt: skip


class Places:
    """Gives out pieces of an array that is allocated when all of them are known: take(n) is where the next n elements start.
    Each has cache lines of its own."""

    multiple = 16  # of elements

    def __init__(self):
        self.size = 0

    def take(self, n):
        start, self.size = self.size, self.size + -(-n // self.multiple) * self.multiple
        return start


class InTheta(Places):
    """Pieces that lie one after the other, as W and b of the layers do in theta."""

    multiple = 1


def layer_table(layers, n_rows, parameters, floats, integers, n_shards=1):
    """The table, of LAYER, of layers (W, b, activation) for at most n_rows rows, in so many shards of about the same size; its
    arrays are taken from the three Places."""
    table, most_rows = np.zeros(len(layers), LAYER), -(-n_rows // n_shards)
    for layer, (W, _, activation) in zip(table, layers):
        n_in, n_out = W.shape
        layer["n_in"], layer["n_out"], layer["activated"], layer["need_dx"] = n_in, n_out, activation != "identity", True
        layer["most_rows"], layer["most_nonzeros"] = most_rows, int(SPARSE * most_rows * n_in) + 1  # `find` needs one more
        layer["W"], layer["b"] = parameters.take(n_in * n_out), parameters.take(n_out)
        layer["pre"], layer["dpre"], layer["dx"] = (floats.take(n_rows * n) for n in (n_out, n_out, n_in))
        layer["h"] = floats.take(n_rows * n_out) if layer["activated"] else layer["pre"]
        layer["db"], layer["is_sparse"] = floats.take(n_shards * n_out), integers.take(n_shards)
        layer["starts"], layer["column_starts"] = (integers.take(n_shards * (n + 1)) for n in (most_rows, n_in))
        for name, place in {"columns": integers, "rows": integers, "values": floats, "column_values": floats}.items():
            layer[name] = place.take(n_shards * layer["most_nonzeros"])
    table["x"] = [floats.take(n_rows * table[0]["n_in"]), *table["h"][:-1]] if layers else []
    return table


def _rows_of(flat, start, first, n_rows, n_columns):
    """The rows of a shard, of which `first` is the first, of a matrix that begins at `start`."""
    return matrix(flat, start + first * n_columns, n_rows, n_columns)


def _norm2(a):
    flat = a.reshape(-1)
    return np.dot(flat, flat)


def _nonzeros(layer, shard, floats, integers):
    """starts, columns, values of the non-zeros of the input of a layer's shard."""
    most, n = layer["most_nonzeros"], layer["most_rows"] + 1
    starts = vector(integers, layer["starts"] + shard * n, n)
    columns = vector(integers, layer["columns"] + shard * most, most)
    return starts, columns, vector(floats, layer["values"] + shard * most, most)


def _transposed_nonzeros(layer, shard, floats, integers):
    """column_starts, rows, values of the non-zeros of the transposed input of a layer's shard."""
    most, n = layer["most_nonzeros"], layer["n_in"] + 1
    column_starts = vector(integers, layer["column_starts"] + shard * n, n)
    rows = vector(integers, layer["rows"] + shard * most, most)
    return column_starts, rows, vector(floats, layer["column_values"] + shard * most, most)


norm2, rows_of = inlined(_norm2), inlined(_rows_of)
nonzeros, transposed_nonzeros = inlined(_nonzeros), inlined(_transposed_nonzeros)


@functools.cache
def layers_forward_kernel(activation):
    """The forward pass of a table of layers whose activation is this one or none, compiled."""
    activation_forward = FORWARD[activation]

    def _layers_forward(theta, layers, x, floats, integers, shard, first):
        """x (B, n_in) -> the output of the last layer (B, n_out), a view of floats: a shard, and its first row."""
        h = x
        for i in range(len(layers)):
            layer = layers[i]
            n_out = layer["n_out"]
            W, b = matrix(theta, layer["W"], layer["n_in"], n_out), vector(theta, layer["b"], n_out)
            pre = rows_of(floats, layer["pre"], first, len(x), n_out)
            is_sparse = n_out >= WIDE and count_nonzeros(h) <= SPARSE * h.size
            integers[layer["is_sparse"] + shard] = is_sparse
            if is_sparse:
                starts, columns, values = nonzeros(layer, shard, floats, integers)
                find(h, starts, columns, values)
                add_rows(starts, columns, values, W, pre, pre, False)
            else:
                times(h, W, pre)
            h = rows_of(floats, layer["h"], first, len(x), n_out)
            if layer["activated"]:
                activation_forward(pre, b, h)
            else:
                identity_forward(pre, b, h)
        return h

    return jit(_layers_forward)


@functools.cache
def layers_backward_kernel(activation):
    """The backward pass that belongs to `layers_forward_kernel`, but for the gradients of W, compiled."""
    activation_backward = BACKWARD[activation]

    def _layers_backward(theta, layers, x, floats, integers, shard, first):
        """From dh (B, n_out), which lies where `upstream` says, to dx (B, n_in), and a bound on the sum of squares of the
        layers' gradient: by Cauchy and Schwarz ‖dW‖² + ‖db‖² ≤ (‖x‖² + B) ‖dpre‖². Leaves dpre, and the shard's db."""
        bound, dh = theta.dtype.type(0), upstream(layers, floats, first, len(x))
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            n_in, n_out = layer["n_in"], layer["n_out"]
            pre, h = rows_of(floats, layer["pre"], first, len(x), n_out), rows_of(floats, layer["h"], first, len(x), n_out)
            dpre, db = rows_of(floats, layer["dpre"], first, len(x), n_out), vector(floats, layer["db"] + shard * n_out, n_out)
            if layer["activated"]:
                activation_backward(dh, pre, h, dpre, db)
            else:
                identity_backward(dpre, pre, h, dpre, db)
            if integers[layer["is_sparse"] + shard]:
                starts, columns, values = nonzeros(layer, shard, floats, integers)
                column_starts, rows, column_values = transposed_nonzeros(layer, shard, floats, integers)
                transpose(vector(starts, 0, len(x) + 1), columns, values, column_starts, rows, column_values)
            below = x if i == 0 else rows_of(floats, layer["x"], first, len(x), n_in)
            bound += (norm2(below) + len(x)) * norm2(dpre)
            if layer["need_dx"]:
                dh = rows_of(floats, layer["dx"], first, len(x), n_in)
                times_transposed(dpre, matrix(theta, layer["W"], n_in, n_out), dh)
        return dh, bound

    return jit(_layers_backward)


def _upstream(layers, floats, first, n_rows):
    """Where dh of the last layer is written, which has no activation: its dpre."""
    return rows_of(floats, layers[-1]["dpre"], first, n_rows, layers[-1]["n_out"])


def _part_of(layer, shard, n_shards):
    """The rows of W whose gradient a shard's worker computes, and then their update: from, to. They begin at a whole tile."""
    size = -(-layer["n_in"] // (8 * n_shards)) * 8
    return min(size * shard, layer["n_in"]), min(size * (shard + 1), layer["n_in"])


def _layers_gradient(theta, layers, x, firsts, floats, integers, grad, shard):
    """dW and db of the worker's part of each layer, from what `layers_backward` left of all shards. x (B, n_in) is the input of
    the first layer, of all shards; firsts (n + 1,) are the first rows of the shards, and B. The part of theta is only brought
    near, for the update."""
    n_shards, n_rows = len(firsts) - 1, len(x)
    for i in range(len(layers)):
        layer = layers[i]
        n_in, n_out = layer["n_in"], layer["n_out"]
        start, stop = part_of(layer, shard, n_shards)
        dpre = matrix(floats, layer["dpre"], n_rows, n_out)
        if stop > start:
            dW = matrix(grad, layer["W"] + start * n_out, stop - start, n_out)
            W = matrix(theta, layer["W"] + start * n_out, stop - start, n_out)
            n_sparse = 0
            for other in range(n_shards):
                n_sparse += integers[layer["is_sparse"] + other]
            if n_sparse == n_shards:
                for other in range(n_shards):
                    column_starts, rows, values = transposed_nonzeros(layer, other, floats, integers)
                    above = rows_of(floats, layer["dpre"], firsts[other], firsts[other + 1] - firsts[other], n_out)
                    add_rows(vector(column_starts, start, stop + 1 - start), rows, values, above, dW, W, other > 0)
            else:
                below = x if i == 0 else matrix(floats, layer["x"], n_rows, n_in)
                part_transposed_times(below, start, dpre, dW, W)
        if shard == n_shards - 1:
            db = vector(grad, layer["b"], n_out)
            for other in range(n_shards):
                share = vector(floats, layer["db"] + other * n_out, n_out)
                for j in range(n_out):  # a sum of two arrays in place of this loop takes two seconds to compile
                    db[j] = share[j] if other == 0 else db[j] + share[j]


def _parameters_of(layer, shard, n_shards):
    """As `part_of`, where it lies in theta: from, to. The bias, which follows W, belongs to the last worker's part."""
    start, stop = part_of(layer, shard, n_shards)
    n_out = layer["n_out"]
    return layer["W"] + start * n_out, layer["W"] + stop * n_out + (n_out if shard == n_shards - 1 else 0)


upstream, part_of, parameters_of = inlined(_upstream), inlined(_part_of), inlined(_parameters_of)
layers_gradient = jit(_layers_gradient)


@functools.cache
def layers_update_kernel(update):
    """The update of the worker's part of each layer, by one of `npvae.kernels.updates.PARTS`."""
    update_part = PARTS[update]

    def _layers_update(theta, layers, grad, first_slot, second_slot, numbers, shard, n_shards):
        for i in range(len(layers)):
            start, stop = parameters_of(layers[i], shard, n_shards)
            n = stop - start
            first, second = vector(first_slot, start, n), vector(second_slot, start, n)
            update_part(vector(theta, start, n), vector(grad, start, n), first, second, numbers)

    return inlined(_layers_update)
