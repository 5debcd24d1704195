"""Affine map and activations: the layers of a network, each a forward/backward pair of pure functions.

How to read a pair. `thing_forward` returns its output and a cache, the values that its derivative needs;
`thing_backward` takes `d` + the output's name, the gradient of the scalar loss C with respect to that output, and returns
the gradients with respect to the inputs: dx means dC/dx and has the shape of x. A backward pass changes nothing it is given,
and a cache may refer to inputs and outputs: do not write into them before the backward pass.

Every function also runs on complex128 arrays, so that the complex step can judge it: branches look at `.real`, and nothing
here is `abs` or `maximum`.

Shapes: B batch, n_in and n_out the widths of one layer.
"""

import numpy as np


def affine_forward(x, W, b):
    """Affine map pre = x W + b, in components pre_bj = Σ_i x_bi W_ij + b_j.

    x (B, n_in), W (n_in, n_out), b (n_out,) -> pre (B, n_out). Lectures (2024), "Weights and biases", where W_ij leads
    from unit i to unit j.

    The chain rule over every pre_bj that an input reaches gives
        (AFFINE-x)  dx_bi = Σ_j dpre_bj ∂pre_bj/∂x_bi = Σ_j dpre_bj W_ij     i.e. dx = dpre Wᵀ
        (AFFINE-W)  dW_ij = Σ_b dpre_bj ∂pre_bj/∂W_ij = Σ_b x_bi dpre_bj     i.e. dW = xᵀ dpre
        (AFFINE-b)  db_j  = Σ_b dpre_bj ∂pre_bj/∂b_j  = Σ_b dpre_bj
    """
    pre = x @ W + b  # (B, n_in) @ (n_in, n_out) + (n_out,) -> (B, n_out)
    return pre, (x, W)


def affine_backward(dpre, cache):
    """Backward of pre = x W + b: dx (B, n_in), dW (n_in, n_out), db (n_out,)."""
    x, W = cache
    db = dpre.sum(axis=0)  # (AFFINE-b) (B, n_out) -> (n_out,)
    dW = x.T @ dpre  # (AFFINE-W) (n_in, B) @ (B, n_out) -> (n_in, n_out)
    dx = dpre @ W.T  # (AFFINE-x) (B, n_out) @ (n_out, n_in) -> (B, n_in)
    return dx, dW, db


def identity_forward(pre):
    """No activation, h = pre: the heads that give posterior and likelihood parameters."""
    return pre, None


def identity_backward(dh, cache):
    """Backward of h = pre."""
    return dh


def relu_forward(pre):
    """Rectifier h = max(pre, 0), any shape. Nair & Hinton 2010.

    (RELU)  h' = 1 for pre > 0, else 0 (at the kink pre = 0 the subgradient 0 is taken).
    NaN stays NaN, so that a broken step shows.
    """
    h = np.where(pre.real <= 0, 0, pre)
    return h, pre


def relu_backward(dh, cache):
    """Backward of h = max(pre, 0)."""
    pre = cache
    return np.where(pre.real <= 0, 0, dh)  # (RELU)


def tanh_forward(pre):
    """Hyperbolic tangent h = tanh(pre), any shape. LeCun et al. 1998, "Efficient BackProp", section 4.4.

    With tanh = sinh/cosh, the quotient rule gives h' = (cosh² − sinh²)/cosh², that is
    (TANH)  h' = 1 − h².
    """
    h = np.tanh(pre)
    return h, h


def tanh_backward(dh, cache):
    """Backward of h = tanh(pre)."""
    h = cache
    return dh * (1 - h * h)  # (TANH)


def sigmoid_and_complement(x):
    """σ(x) = 1/(1 + e^−x) and σ(−x) = 1 − σ(x), each to full relative precision: no overflow, and no 1 − σ that cancels."""
    x_is_positive = x.real > 0
    t = np.exp(np.where(x_is_positive, -x, x))  # e^−|x| in (0, 1]
    larger = 1 / (1 + t)
    smaller = t * larger
    return np.where(x_is_positive, larger, smaller), np.where(x_is_positive, smaller, larger)


def sigmoid_forward(pre):
    """Logistic sigmoid h = σ(pre) = 1/(1 + e^−pre), any shape. Rumelhart, Hinton & Williams 1986, equation 2.

    h' = e^−pre/(1 + e^−pre)², that is
    (SIGMOID)  h' = σ(pre) σ(−pre), where σ(−pre) = 1 − h is kept, since 1 − h is 0 from pre = 37 on.
    """
    h, complement = sigmoid_and_complement(pre)
    return h, (h, complement)


def sigmoid_backward(dh, cache):
    """Backward of h = σ(pre)."""
    h, complement = cache
    return dh * h * complement  # (SIGMOID)


def softplus_forward(pre):
    """Softplus h = log(1 + e^pre) = max(pre, 0) + log(1 + e^−|pre|), any shape. Dugas et al. 2001.

    h' = e^pre/(1 + e^pre), that is
    (SOFTPLUS)  h' = σ(pre).
    """
    h = np.where(pre.real > 0, pre, 0) + np.log1p(np.exp(np.where(pre.real > 0, -pre, pre)))
    return h, pre


def softplus_backward(dh, cache):
    """Backward of h = log(1 + e^pre)."""
    pre = cache
    return dh * sigmoid_and_complement(pre)[0]  # (SOFTPLUS)


def silu_forward(pre):
    """Sigmoid-weighted linear unit h = pre σ(pre), any shape. Elfwing et al. 2018.

    The product rule with σ' = σ(pre) σ(−pre) gives
    (SILU)  h' = σ(pre) + pre σ(pre) σ(−pre) = σ(pre) + h σ(−pre).
    """
    sigmoid, complement = sigmoid_and_complement(pre)
    h = pre * sigmoid
    return h, (h, sigmoid, complement)


def silu_backward(dh, cache):
    """Backward of h = pre σ(pre)."""
    h, sigmoid, complement = cache
    return dh * (sigmoid + h * complement)  # (SILU)


ACTIVATIONS = {
    "identity": (identity_forward, identity_backward),
    "relu": (relu_forward, relu_backward),
    "tanh": (tanh_forward, tanh_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
    "softplus": (softplus_forward, softplus_backward),
    "silu": (silu_forward, silu_backward),
}


def dense_forward(x, W, b, activation):
    """One layer, h = activation(x W + b): x (B, n_in), W (n_in, n_out), b (n_out,) -> h (B, n_out).

    activation is a key of ACTIVATIONS. This is the composition that a back end may fuse.
    """
    activation_forward, _ = ACTIVATIONS[activation]
    pre, affine_cache = affine_forward(x, W, b)  # (B, n_in) -> (B, n_out)
    h, activation_cache = activation_forward(pre)
    return h, (affine_cache, activation_cache, activation)


def dense_backward(dh, cache, need_dx=True):
    """Backward of h = activation(x W + b): dx, dW, db. need_dx=False leaves out dx, a product that a network's first layer has
    no use for, since its input is the data."""
    affine_cache, activation_cache, activation = cache
    _, activation_backward = ACTIVATIONS[activation]
    dpre = activation_backward(dh, activation_cache)
    if not need_dx:
        x, W = affine_cache
        affine_cache = x, W[:0]  # without the rows of W the product for dx is empty
    dx, dW, db = affine_backward(dpre, affine_cache)
    return dx if need_dx else None, dW, db
