"""Compiled twins of the dense layer in `npvae.layers`: the products stay in BLAS, bias and activation are one pass.

A kernel adds the bias to `pre` and activates it; its backward twin turns dh into dpre and sums dpre over the batch into db.
What backward needs is kept in `pre` (shifted by the bias) or in `h`, whichever gives the derivative its full precision.
"""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, log1p, tanh


def dense_forward(x, W, b, activation):
    """`npvae.layers.dense_forward`."""
    dtype = np.result_type(x, W, b)  # where the complex step moves only one of them, the layer is complex all the same
    pre = (x @ W).astype(dtype, copy=False)  # (B, n_in) @ (n_in, n_out) -> (B, n_out)
    h = np.empty_like(pre)
    FORWARD[activation](pre, b, h)
    return h, (x, W, pre, h, activation)


def dense_backward(dh, cache, dW=None, db=None, need_dx=True):
    """`npvae.layers.dense_backward`."""
    x, W, pre, h, activation = cache
    dpre = np.empty_like(pre)
    db = np.empty(pre.shape[1], pre.dtype) if db is None else db
    BACKWARD[activation](dh, pre, h, dpre, db)
    dW = np.matmul(x.T, dpre, out=dW)  # (n_in, B) @ (B, n_out) -> (n_in, n_out)
    dx = dpre @ W.T if need_dx else None  # (B, n_out) @ (n_out, n_in) -> (B, n_in)
    return dx, dW, db


def _identity_forward(pre, b, h):
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            h[i, j] = pre[i, j] + b[j]


def _identity_backward(dh, pre, h, dpre, db):
    db[:] = 0
    for i in range(dh.shape[0]):
        for j in range(dh.shape[1]):
            dpre[i, j] = dh[i, j]
            db[j] += dpre[i, j]


def _relu_forward(pre, b, h):
    zero = h.dtype.type(0)
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            shifted = pre[i, j] + b[j]
            h[i, j] = zero if shifted.real <= 0 else shifted


def _relu_backward(dh, pre, h, dpre, db):
    zero = h.dtype.type(0)
    db[:] = 0
    for i in range(dh.shape[0]):
        for j in range(dh.shape[1]):
            dpre[i, j] = zero if h[i, j].real <= 0 else dh[i, j]  # (RELU)
            db[j] += dpre[i, j]


def _tanh_forward(pre, b, h):
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            h[i, j] = tanh(pre[i, j] + b[j])


def _tanh_backward(dh, pre, h, dpre, db):
    one = h.dtype.type(1)
    db[:] = 0
    for i in range(dh.shape[0]):
        for j in range(dh.shape[1]):
            dpre[i, j] = dh[i, j] * (one - h[i, j] * h[i, j])  # (TANH)
            db[j] += dpre[i, j]


def _sigmoid_forward(pre, b, h):
    one = h.dtype.type(1)
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]
            positive = pre[i, j].real > 0
            t = exp(-pre[i, j] if positive else pre[i, j])  # e^−|pre|
            larger = one / (one + t)
            h[i, j] = larger if positive else t * larger


def _sigmoid_backward(dh, pre, h, dpre, db):
    one = h.dtype.type(1)
    db[:] = 0
    for i in range(dh.shape[0]):
        for j in range(dh.shape[1]):
            t = exp(-pre[i, j] if pre[i, j].real > 0 else pre[i, j])
            larger = one / (one + t)
            dpre[i, j] = dh[i, j] * larger * (t * larger)  # (SIGMOID)
            db[j] += dpre[i, j]


def _softplus_forward(pre, b, h):
    zero = h.dtype.type(0)
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]
            positive = pre[i, j].real > 0
            h[i, j] = (pre[i, j] if positive else zero) + log1p(exp(-pre[i, j] if positive else pre[i, j]))


def _softplus_backward(dh, pre, h, dpre, db):
    one = h.dtype.type(1)
    db[:] = 0
    for i in range(dh.shape[0]):
        for j in range(dh.shape[1]):
            positive = pre[i, j].real > 0
            t = exp(-pre[i, j] if positive else pre[i, j])
            larger = one / (one + t)
            dpre[i, j] = dh[i, j] * (larger if positive else t * larger)  # (SOFTPLUS)
            db[j] += dpre[i, j]


def _silu_forward(pre, b, h):
    one = h.dtype.type(1)
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            pre[i, j] += b[j]
            positive = pre[i, j].real > 0
            t = exp(-pre[i, j] if positive else pre[i, j])
            larger = one / (one + t)
            h[i, j] = pre[i, j] * (larger if positive else t * larger)


def _silu_backward(dh, pre, h, dpre, db):
    one = h.dtype.type(1)
    db[:] = 0
    for i in range(dh.shape[0]):
        for j in range(dh.shape[1]):
            positive = pre[i, j].real > 0
            t = exp(-pre[i, j] if positive else pre[i, j])
            larger = one / (one + t)
            smaller = t * larger
            sigmoid, complement = (larger, smaller) if positive else (smaller, larger)
            dpre[i, j] = dh[i, j] * (sigmoid + h[i, j] * complement)  # (SILU)
            db[j] += dpre[i, j]


FORWARD = {
    "identity": jit(_identity_forward),
    "relu": jit(_relu_forward),
    "tanh": jit(_tanh_forward),
    "sigmoid": jit(_sigmoid_forward),
    "softplus": jit(_softplus_forward),
    "silu": jit(_silu_forward),
}
BACKWARD = {
    "identity": jit(_identity_backward),
    "relu": jit(_relu_backward),
    "tanh": jit(_tanh_backward),
    "sigmoid": jit(_sigmoid_backward),
    "softplus": jit(_softplus_backward),
    "silu": jit(_silu_backward),
}
