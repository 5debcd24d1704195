"""A network: layers one after the other, forward in order and backward in reverse.

A layer is a tuple: (W, b, activation) is a dense one, (W, b, activation, window) is one that convolves
(`npvae.ops.convolution`). See `npvae.ops.layers` for how to read a pair.

Shapes: B batch, n_in and n_out the widths of the whole network.
"""

from npvae.ops.convolution import FilterCache, filter_backward, filter_forward
from npvae.ops.layers import dense_backward, dense_forward


def mlp_forward(h, layers, dense_forward=dense_forward, filter_forward=filter_forward):
    """h = layer_n(... layer_1(h)): h (B, n_in) -> (B, n_out), and the layers' caches."""
    caches = []
    for layer in layers:
        layer_forward = dense_forward if len(layer) == 3 else filter_forward
        h, cache = layer_forward(h, *layer)
        caches.append(cache)
    return h, caches


def mlp_backward(dh, caches, need_dx=True, dense_backward=dense_backward, filter_backward=filter_backward):
    """Backward of `mlp_forward`: dh (B, n_out) -> dx (B, n_in), and (dW, db) of each layer in order. need_dx=False leaves out
    dx, which is None then: the input of a network is often the data."""
    grads = []
    for i in reversed(range(len(caches))):
        layer_backward = filter_backward if isinstance(caches[i], FilterCache) else dense_backward
        dh, dW, db = layer_backward(dh, caches[i], need_dx or i > 0)
        grads.append((dW, db))
    return dh, grads[::-1]
