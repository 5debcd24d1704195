"""Mistakes in affine layers and activations."""

import numpy as np

from npvae.ops.layers import (
    affine_backward,
    sigmoid_and_complement,
    softplus_backward,
    softplus_forward,
    tanh_backward,
)
from wrong_code import SAMPLES, SQUARE, mistake, mistake_in_pair

AFFINE = ("affine", "numpy dense tanh")


# ------------------------------------------------------------------------------------------------------- affine layers


@mistake("affine_backward", *AFFINE)
def bias_gradient_is_a_mean(dpre, cache):
    """mean(axis=0) in place of sum(axis=0): "the gradient is averaged over the batch"."""
    dx, dW, db = affine_backward(dpre, cache)
    db /= len(dpre)
    return dx, dW, db


@mistake("affine_backward", *AFFINE, SAMPLES)
def batch_size_divided_out_twice(dpre, cache):
    """Each layer divides by B, and so does the loss: 1/B²."""
    dx, dW, db = affine_backward(dpre, cache)
    dW /= len(dpre)
    db /= len(dpre)
    return dx, dW, db


@mistake("affine_backward", *AFFINE, SQUARE)
def batch_axis_found_by_its_length(dpre, cache):
    """The axis that is not n_out long is summed over, which is the wrong one where B = n_out."""
    dx, dW, db = affine_backward(dpre, cache)
    batch_axis = 1 - dpre.shape.index(len(db))
    db[:] = dpre.sum(axis=batch_axis)
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def dW_transposed_and_reshaped(dpre, cache):
    """dpreᵀ x in place of xᵀ dpre, forced into the shape of W."""
    dx, dW, db = affine_backward(dpre, cache)
    dW[:] = (dpre.T @ cache[0]).reshape(dW.shape)
    return dx, dW, db


@mistake("affine_backward", *AFFINE, SQUARE)
def dx_through_W_untransposed(dpre, cache):
    """dx = dpre W: it runs where W is square, which is where its author tried it."""
    dx, dW, db = affine_backward(dpre, cache)
    return dpre @ cache[1] if len(cache[1]) else dx, dW, db  # a network's first layer needs no dx: W is empty there


@mistake("affine_backward", *AFFINE)
def dx_through_W_reshaped(dpre, cache):
    """reshape(n_out, n_in) taken for the transpose."""
    W = cache[1]
    _, dW, db = affine_backward(dpre, cache)
    return dpre @ W.reshape(W.shape[::-1]), dW, db


@mistake("affine_backward", *AFFINE)
def last_row_left_out(dpre, cache):
    """A loop over range(B - 1)."""
    dx, dW, db = affine_backward(dpre, cache)
    dW[:] = cache[0][:-1].T @ dpre[:-1]
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def one_entry_off_by_half(dpre, cache):
    """A wrong weight at one index, like an end point treated as an inner one."""
    dx, dW, db = affine_backward(dpre, cache)
    dW[1, 2] *= 1.5
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def weight_decay_in_the_gradient(dpre, cache):
    """A penalty that the loss does not contain: the gradient is not zero for a zero upstream."""
    dx, dW, db = affine_backward(dpre, cache)
    dW += 1e-4 * cache[1]
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def gradient_clipped_silently(dpre, cache):
    """np.clip(dW, -1, 1), left over from a search for exploding gradients."""
    dx, dW, db = affine_backward(dpre, cache)
    np.clip(dW, -1, 1, out=dW)
    return dx, dW, db


@mistake("affine_backward", *AFFINE)
def bias_summed_in_float32(dpre, cache):
    """A single-precision accumulator inside a double-precision path."""
    dx, dW, db = affine_backward(dpre, cache)
    db[:] = dpre.sum(axis=0, dtype=np.float32)
    return dx, dW, db


# --------------------------------------------------------------------------------------------------------- activations


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def nine_tenths(dh, cache):
    """A leftover factor, small enough to pass a tolerance of 10 %."""
    return 0.9 * tanh_backward(dh, cache)


@mistake("softplus_backward", "softplus", "numpy dense softplus")
def off_in_the_eighth_digit(dh, cache):
    """A constant typed with eight digits."""
    return (1 + 1e-8) * softplus_backward(dh, cache)


@mistake_in_pair("tanh", "tanh", "numpy dense tanh")
def tanh_slope_from_the_input():
    """1 − pre²: the cache holds the input, the formula wants the output."""
    return lambda pre: (np.tanh(pre), pre), tanh_backward


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def tanh_slope_of_the_output(dh, cache):
    """1 − tanh(h)²: tanh is applied once more to what is tanh(pre) already."""
    return tanh_backward(dh, np.tanh(cache))


@mistake("tanh_backward", "tanh", "numpy dense tanh")
def float32_rounding_inside(dh, cache):
    """A conversion to float32 for speed, in the middle of a float64 path."""
    return tanh_backward(dh, cache.astype(np.float32))


@mistake("sigmoid_backward", "sigmoid", "numpy dense sigmoid")
def sigmoid_slope_without_complement(dh, cache):
    """σ′ = σ: the factor 1 − σ is forgotten."""
    return dh * cache[0]


@mistake("sigmoid_backward", "sigmoid", "numpy dense sigmoid")
def sigmoid_slope_of_the_output(dh, cache):
    """σ(h)(1 − σ(h)): the derivative is taken at h in place of pre."""
    p, one_minus_p = sigmoid_and_complement(cache[0])
    return dh * p * one_minus_p


@mistake("sigmoid_backward", "sigmoid", "numpy dense sigmoid")
def sigmoid_complement_cancels(dh, cache):
    """h(1 − h), which is exactly 0 from pre = 37 on."""
    h, _ = cache
    return dh * h * (1 - h)


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_works_in_place(dh, cache):
    """dh[pre <= 0] = 0 writes into the upstream gradient, which others read too."""
    dh[cache <= 0] = 0
    return dh


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_masked_by_the_upstream(dh, cache):
    """The mask is dh > 0 in place of pre > 0."""
    return np.where(dh > 0, dh, 0)


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_slope_1_at_the_kink(dh, cache):
    """Forward takes pre <= 0 for off, backward takes pre < 0: they disagree at zero padding and dead inputs."""
    return np.where(cache < 0, 0, dh)


@mistake("relu_backward", "relu", "numpy dense relu")
def relu_passes_everything(dh, cache):
    """Straight through: the mask is forgotten."""
    return dh.copy()


@mistake("softplus_backward", "softplus", "numpy dense softplus")
def softplus_slope_is_its_output(dh, cache):
    """softplus′ = softplus, in analogy to the exponential, in place of σ."""
    return dh * softplus_forward(cache)[0]


@mistake("silu_backward", "silu", "numpy dense silu")
def silu_without_its_second_term(dh, cache):
    """The product rule is forgotten: the slope is σ(pre) alone."""
    return dh * cache[1]


@mistake("silu_backward", "silu", "numpy dense silu")
def upstream_taken_for_ones(dh, cache):
    """The local slope without dh, tried on the loss f = h.sum() only."""
    h, sigmoid, complement = cache
    return sigmoid + h * complement
