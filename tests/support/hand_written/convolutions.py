"""Convolution, pooling, and the shapes of residual and broadcast paths."""

import numpy as np

from hand_written import Pair, normal, right, wrong

# ---------------------------------------------------------------------------------------- convolution and pooling


def convolve(x, w, b):
    """Images (N, C, H, W), filters (F, C, 3, 3), padding 1, stride 1, by loops into a buffer of zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((x.shape[0], w.shape[0], x.shape[2], x.shape[3]))
    for n in range(out.shape[0]):
        for f in range(out.shape[1]):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    out[n, f, i, j] = np.sum(padded[n, :, i : i + 3, j : j + 3] * w[f]) + b[f]
    return out, (padded, w)


def convolve_backward(dout, cache, cut=1, flip=False, last_only=False):
    padded, w = cache
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for n, f, i, j in np.ndindex(dout.shape):
        window = padded[n, :, i : i + 3, j : j + 3]
        if last_only:
            dw[f] = window * dout[n, f, i, j]
        else:
            dw[f] += window * dout[n, f, i, j]
        dpadded[n, :, i : i + 3, j : j + 3] += (w[f, :, ::-1, ::-1] if flip else w[f]) * dout[n, f, i, j]
    size = dout.shape[2]
    return dpadded[:, :, cut : cut + size, cut : cut + size], dw, dout.sum(axis=(0, 2, 3))


def convolution(**options):
    args = normal(1, 1, 3, 3), normal(2, 1, 3, 3, seed=1), normal(2, seed=2)
    return Pair(convolve, lambda d, c: convolve_backward(d, c, **options), args)


@right
def convolution_by_loops():
    """np.pad, five loops and a buffer of zeros."""
    return convolution()


@wrong
def convolution_with_the_padding_off_by_one():
    """The padding is cut off one pixel too late."""
    return convolution(cut=2)


@wrong
def convolution_with_flipped_filters():
    """Backward flips the filters although forward correlates."""
    return convolution(flip=True)


@wrong
def convolution_with_the_last_window_only():
    """dw[f] = in place of dw[f] +=."""
    return convolution(last_only=True)


@right
def convolution_by_np_convolve():
    """One-dimensional, mode "valid"; np.convolve flips the filter."""

    def forward(x, w):
        return np.convolve(x, w, mode="valid"), (x, w)

    def backward(dout, cache):
        x, w = cache
        return np.convolve(dout, w[::-1], mode="full"), np.correlate(x, dout, mode="valid")[::-1]

    return Pair(forward, backward, (normal(9), normal(3, seed=1)))


@wrong
def convolution_by_np_convolve_unflipped():
    """The filter's gradient is not flipped back."""
    forward, backward, args, _ = convolution_by_np_convolve()

    def unflipped(dout, cache):
        dx, dw = backward(dout, cache)
        return dx, dw[::-1]

    return Pair(forward, unflipped, args)


def max_pool(x):
    n, h, w = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 2, 4).reshape(n, h // 2, w // 2, 4)
    return blocks.max(axis=-1), (blocks.argmax(axis=-1), x.shape)


def max_pool_backward(dout, cache):
    where, shape = cache
    blocks = np.zeros((*dout.shape, 4))
    np.put_along_axis(blocks, where[..., None], dout[..., None], axis=-1)
    n, h, w, _ = blocks.shape
    return blocks.reshape(n, h, w, 2, 2).transpose(0, 1, 3, 2, 4).reshape(shape)


@right
def max_pooling():
    """2 × 2, by reshaping and argmax."""
    return Pair(max_pool, max_pool_backward, (normal(2, 4, 4),))


@right
def max_pooling_of_flat_regions():
    """2 × 2 on an image with equal pixels, as after a relu."""
    return Pair(max_pool, max_pool_backward, (np.maximum(normal(2, 4, 4), 0).round(1),))


@wrong
def max_pooling_spread_over_the_block():
    """The gradient of average pooling."""

    def forward(x):
        return max_pool(x)[0], x.shape

    return Pair(forward, lambda d, shape: d.repeat(2, axis=1).repeat(2, axis=2) / 4, (normal(2, 4, 4),))


@right
def average_pooling():
    """The mean of 2 × 2 blocks."""
    return Pair(
        lambda x: (x.reshape(2, 2, 2, 2, 2).mean(axis=(2, 4)), None),
        lambda d, _: d.repeat(2, axis=1).repeat(2, axis=2) / 4,
        (normal(2, 4, 4),),
    )


@wrong
def upsampling_that_keeps_one_pixel():
    """Backward takes every second pixel in place of the sum of the four."""
    return Pair(lambda x: (x.repeat(2, axis=1).repeat(2, axis=2), None), lambda d, _: d[:, ::2, ::2], (normal(2, 3, 3),))


@right
def upsampling():
    """Each pixel four times."""
    return Pair(
        lambda x: (x.repeat(2, axis=1).repeat(2, axis=2), None),
        lambda d, _: d.reshape(2, 3, 2, 3, 2).sum(axis=(2, 4)),
        (normal(2, 3, 3),),
    )


@right
def residual_block():
    """x + tanh(x W) V."""

    def forward(x, W, V):
        h = np.tanh(x @ W)
        return x + h @ V, (x, W, V, h)

    def backward(dout, cache):
        x, W, V, h = cache
        dpre = (dout @ V.T) * (1 - h**2)
        return dout + dpre @ W.T, x.T @ dpre, h.T @ dout

    return Pair(forward, backward, (normal(4, 3), normal(3, 5, seed=1), normal(5, 3, seed=2)))


@wrong
def residual_block_without_its_skip():
    """The identity path is forgotten."""
    forward, backward, args, _ = residual_block()

    def without(dout, cache):
        dx, *others = backward(dout, cache)
        return dx - dout, *others

    return Pair(forward, without, args)


@wrong
def broadcast_gain_not_summed():
    """A gain of shape (3,) gets a gradient of the shape of x."""
    return Pair(lambda x, g: (x * g, (x, g)), lambda d, c: (d * c[1], d * c[0]), (normal(4, 3), normal(3, seed=1)))


@wrong
def broadcast_gain_summed_over_the_wrong_axis():
    """A gain per column, its gradient summed per row, in a square batch."""
    args = normal(3, 3), normal(3, seed=1)
    return Pair(lambda x, g: (x * g, (x, g)), lambda d, c: (d * c[1], (d * c[0]).sum(axis=1)), args)
