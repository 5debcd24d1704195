"""Mistakes in convolutions and transposed convolutions."""

import numpy as np

from npvae.ops.convolution import (
    FilterCache,
    convolution_backward,
    met,
    pad_backward,
    transposed_convolution_backward,
)
from npvae.ops.mlp import mlp_backward
from wrong_code import mistake

CONVOLUTION = ("convolution, stride 1",)
STRIDE = ("convolution, stride 2",)
PERIODIC = ("convolution, stride 1, periodic",)
TRANSPOSED = ("transposed convolution, stride 2",)
MODEL = ("numpy ConvolutionalVAE 4×4-2×2×3-2 tanh bernoulli zeros, K 4, stride 2, fresh",)


# --------------------------------------------------------------------------------------------------------- convolution


@mistake("convolution_backward", *CONVOLUTION)
def kernel_not_turned(dpre, cache, need_dx=True):
    """dx as a convolution of dpre with the kernel as it is, not turned by 180°."""
    padded, pad_cache, W, *others = cache
    dx, _, _ = convolution_backward(dpre, (padded, pad_cache, W[::-1, ::-1], *others), need_dx)
    return dx, *convolution_backward(dpre, cache, False)[1:]


@mistake("convolution_backward", *CONVOLUTION)
def channels_of_the_kernel_not_transposed(dpre, cache, need_dx=True):
    """dpre W_ij for dpre W_ijᵀ, which fits where there are as many channels after as before."""
    padded, pad_cache, W, *others = cache
    dx, _, _ = convolution_backward(dpre, (padded, pad_cache, W.swapaxes(2, 3), *others), need_dx)
    return dx, *convolution_backward(dpre, cache, False)[1:]


@mistake("convolution_backward", *CONVOLUTION)
def gradient_of_the_kernel_turned(dpre, cache, need_dx=True):
    """That something has to be turned is remembered, but not what."""
    dx, dW, db = convolution_backward(dpre, cache, need_dx)
    return dx, dW[::-1, ::-1].copy(), db


@mistake("convolution_backward", *CONVOLUTION)
def gradient_of_the_kernel_is_a_mean_over_places(dpre, cache, need_dx=True):
    """A shared weight gets the mean of what its places say, not the sum."""
    dx, dW, db = convolution_backward(dpre, cache, need_dx)
    return dx, dW / np.prod(dpre.shape[1:3]), db


@mistake("convolution_backward", *CONVOLUTION)
def bias_gradient_of_a_corner(dpre, cache, need_dx=True):
    """Summed over the batch, as of a dense layer, and not over the pixels."""
    dx, dW, _ = convolution_backward(dpre, cache, need_dx)
    return dx, dW, dpre[:, 0, 0].sum(axis=0)


@mistake("convolution_backward", *STRIDE)
def stride_forgotten_on_the_way_back(dpre, cache, need_dx=True):
    """The places of dx lie side by side, as for a stride of 1."""
    padded, pad_cache, W, *_ = cache
    dpadded = np.zeros(padded.shape, dpre.dtype)
    for i, j in np.ndindex(W.shape[:2]):
        met(dpadded, i, j, dpre.shape[1:3], 1)[...] += dpre @ W[i, j].T
    return pad_backward(dpadded, pad_cache), *convolution_backward(dpre, cache, False)[1:]


@mistake("convolution_backward", *CONVOLUTION)
def places_that_overlap_overwrite_each_other(dpre, cache, need_dx=True):
    """= for +=: of the places that meet a pixel the last one wins."""
    padded, pad_cache, W, _, stride = cache
    dpadded = np.zeros(padded.shape, dpre.dtype)
    for i, j in np.ndindex(W.shape[:2]):
        met(dpadded, i, j, dpre.shape[1:3], stride)[...] = dpre @ W[i, j].T
    return pad_backward(dpadded, pad_cache), *convolution_backward(dpre, cache, False)[1:]


# ------------------------------------------------------------------------------------------------------------- padding


@mistake("pad_backward", *CONVOLUTION)
def padding_cut_off_at_the_wrong_end(dpadded, cache):
    """The first rows and columns taken, and all the padding cut off behind them."""
    (_, Y, X, _), _, _ = cache
    return dpadded[:, :Y, :X]


@mistake("pad_backward", *PERIODIC)
def gradient_beyond_periodic_edges_dropped(dpadded, cache):
    """The padding is cut off as if it were zeros, and the copies' gradients with it."""
    shape, padding, _ = cache
    return pad_backward(dpadded, (shape, padding, "zeros"))


@mistake("pad_backward", *PERIODIC)
def corners_of_the_torus_forgotten(dpadded, cache):
    """What lies beyond two edges at once is not folded back."""
    (_, Y, X, _), (before, _), _ = cache
    outside = [(places < 0) | (places >= size) for size, places in
               ((Y, np.arange(dpadded.shape[1]) - before), (X, np.arange(dpadded.shape[2]) - before))]  # fmt: skip
    corners = outside[0][:, None, None] & outside[1][:, None]
    return pad_backward(np.where(corners, 0, dpadded), cache)


# ------------------------------------------------------------------------------------------------ transposed convolution


@mistake("transposed_convolution_backward", *TRANSPOSED)
def way_back_of_the_transposed_turned(dpre, cache, need_dx=True):
    """The kernel turned, which belongs to the transposed convolution's forward pass."""
    x, W, *others = cache
    dx, _, _ = transposed_convolution_backward(dpre, (x, W[:, ::-1, ::-1], *others), need_dx)
    return dx, *transposed_convolution_backward(dpre, cache, False)[1:]


@mistake("transposed_convolution_backward", *TRANSPOSED)
def kernel_of_the_transposed_with_rows_and_columns_exchanged(dpre, cache, need_dx=True):
    """A transposition too many: of the kernel's rows and columns beside that of its channels."""
    dx, dW, db = transposed_convolution_backward(dpre, cache, need_dx)
    return dx, dW.swapaxes(1, 2).copy(), db


@mistake("transposed_convolution_backward", *TRANSPOSED)
def dpre_of_the_transposed_not_padded_in_front(dpre, cache, need_dx=True):
    """All the padding behind the image, so that every place is one pixel off."""
    x, W, shape, stride, (before, after), edges = cache
    return transposed_convolution_backward(dpre, (x, W, shape, stride, (0, before + after), edges), need_dx)


@mistake("mlp_backward", *MODEL)
def activation_of_the_images_not_differentiated(dh, caches, need_dx=True):
    """dh handed to the convolutions as if it were dpre."""
    linear = [cache._replace(activation="identity") if isinstance(cache, FilterCache) else cache for cache in caches]
    return mlp_backward(dh, linear, need_dx)
