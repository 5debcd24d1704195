"""Compiled twin of the dense layer of `npvae.ops.layers`: products in BLAS or over non-zeros, bias and activation in one pass.

A kernel adds the bias to `pre` and activates it; its backward twin turns dh into dpre and sums dpre over the batch into db.
What backward needs is kept in `pre` (shifted by the bias) or in `h`, whichever gives the derivative its full precision.
"""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp_minus_abs, log1p_to_one, sigmoid, sigmoid_and_complement, tanh
from npvae.kernels.sparse import combine_rows, nonzeros_of, transposed


def dense_forward(x, W, b, activation):
    """`npvae.ops.layers.dense_forward`."""
    dtype = np.result_type(x, W, b)  # where the complex step moves only one of them, the layer is complex all the same
    nonzeros = nonzeros_of(x, W.shape[1])
    if nonzeros is None:
        pre = (x @ W).astype(dtype, copy=False)  # (B, n_in) @ (n_in, n_out) -> (B, n_out)
    else:
        pre = np.empty((len(x), W.shape[1]), dtype)
        combine_rows(*nonzeros, W, pre)
    h = pre if activation == "identity" else np.empty_like(pre)
    FORWARD[activation](pre, b, h)
    return h, (x, nonzeros, W, pre, h, activation)


def dense_backward(dh, cache, need_dx=True):
    """`npvae.ops.layers.dense_backward`."""
    x, nonzeros, W, pre, h, activation = cache
    dh = dh.astype(pre.dtype, copy=False)
    dpre = dh if activation == "identity" else np.empty_like(pre)
    db = np.empty(pre.shape[1], pre.dtype)
    BACKWARD[activation](dh, pre, h, dpre, db)
    if nonzeros is None:
        dW = x.T @ dpre  # (n_in, B) @ (B, n_out) -> (n_in, n_out)
    else:
        dW = np.empty(W.shape, dpre.dtype)
        combine_rows(*transposed(nonzeros, x.shape[1]), dpre, dW)
    dx = dpre @ W.T if need_dx else None  # (B, n_out) @ (n_out, n_in) -> (B, n_in)
    return dx, dW, db


def _identity_forward(pre, b, h):
    for i in range(len(pre)):  # h is pre itself
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]


def _identity_backward(dh, pre, h, dpre, db):
    db[:] = 0
    for i in range(len(dh)):  # dpre is dh itself
        for j in range(dh.shape[1]):
            db[j] += dh[i, j]


def _relu_forward(pre, b, h):
    zero = h.dtype.type(0)
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            shifted = pre[i, j] + b[j]
            h[i, j] = zero if shifted.real <= 0 else shifted


def _relu_backward(dh, pre, h, dpre, db):
    zero = h.dtype.type(0)
    db[:] = 0
    for i in range(len(dh)):
        for j in range(dh.shape[1]):
            dpre[i, j] = zero if h[i, j].real <= 0 else dh[i, j]  # (RELU)
            db[j] += dpre[i, j]


def _tanh_forward(pre, b, h):
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            h[i, j] = tanh(pre[i, j] + b[j])


def _tanh_backward(dh, pre, h, dpre, db):
    one = h.dtype.type(1)
    db[:] = 0
    for i in range(len(dh)):
        for j in range(dh.shape[1]):
            dpre[i, j] = dh[i, j] * (one - h[i, j] * h[i, j])  # (TANH)
            db[j] += dpre[i, j]


def _sigmoid_forward(pre, b, h):
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]
            h[i, j] = sigmoid(pre[i, j])


def _sigmoid_backward(dh, pre, h, dpre, db):
    db[:] = 0
    for i in range(len(dh)):
        for j in range(dh.shape[1]):
            sigma, complement = sigmoid_and_complement(pre[i, j])
            dpre[i, j] = dh[i, j] * sigma * complement  # (SIGMOID)
            db[j] += dpre[i, j]


def _softplus_forward(pre, b, h):
    zero = h.dtype.type(0)
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]
            h[i, j] = (pre[i, j] if pre[i, j].real > 0 else zero) + log1p_to_one(exp_minus_abs(pre[i, j]))


def _softplus_backward(dh, pre, h, dpre, db):
    db[:] = 0
    for i in range(len(dh)):
        for j in range(dh.shape[1]):
            dpre[i, j] = dh[i, j] * sigmoid(pre[i, j])  # (SOFTPLUS)
            db[j] += dpre[i, j]


def _silu_forward(pre, b, h):
    for i in range(len(pre)):
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]
            h[i, j] = pre[i, j] * sigmoid(pre[i, j])


def _silu_backward(dh, pre, h, dpre, db):
    db[:] = 0
    for i in range(len(dh)):
        for j in range(dh.shape[1]):
            sigma, complement = sigmoid_and_complement(pre[i, j])
            dpre[i, j] = dh[i, j] * (sigma + h[i, j] * complement)  # (SILU)
            db[j] += dpre[i, j]


identity_forward, identity_backward = jit(_identity_forward), jit(_identity_backward)
relu_forward, relu_backward = jit(_relu_forward), jit(_relu_backward)
tanh_forward, tanh_backward = jit(_tanh_forward), jit(_tanh_backward)
sigmoid_forward, sigmoid_backward = jit(_sigmoid_forward), jit(_sigmoid_backward)
softplus_forward, softplus_backward = jit(_softplus_forward), jit(_softplus_backward)
silu_forward, silu_backward = jit(_silu_forward), jit(_silu_backward)
FORWARD = {
    **{"identity": identity_forward, "relu": relu_forward, "tanh": tanh_forward},
    **{"sigmoid": sigmoid_forward, "softplus": softplus_forward, "silu": silu_forward},
}
BACKWARD = {
    **{"identity": identity_backward, "relu": relu_backward, "tanh": tanh_backward},
    **{"sigmoid": sigmoid_backward, "softplus": softplus_backward, "silu": silu_backward},
}
