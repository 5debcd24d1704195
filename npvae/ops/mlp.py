"""A multilayer perceptron: dense layers one after the other, forward in order and backward in reverse.

See `npvae.ops.layers` for how to read a pair. Shapes: B batch, n_in and n_out the widths of the whole network.
"""

from npvae.ops.layers import dense_backward, dense_forward


def mlp_forward(h, layers, dense_forward=dense_forward):
    """h = layer_n(... layer_1(h)), each layer a tuple (W, b, activation): h (B, n_in) -> (B, n_out), and the layers' caches."""
    caches = []
    for W, b, activation in layers:
        h, cache = dense_forward(h, W, b, activation)
        caches.append(cache)
    return h, caches


def mlp_backward(dh, caches, need_dx=True, dense_backward=dense_backward):
    """Backward of `mlp_forward`: dh (B, n_out) -> dx (B, n_in), and (dW, db) of each layer in order. need_dx=False leaves out
    dx, which is None then: the input of a network is often the data."""
    grads = []
    for i in reversed(range(len(caches))):
        dh, dW, db = dense_backward(dh, caches[i], need_dx or i > 0)
        grads.append((dW, db))
    return dh, grads[::-1]
