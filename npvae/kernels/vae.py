"""Compiled twin of `VAE.forward` followed by `VAE.backward`: the gradient of the whole model in one call of the same kernels.

The composition of ops in `npvae.vae` takes some 100 µs of Python per step, more than a small model's arithmetic, and the
workers of `npvae.parallel` wait for each other's Python. Here the work of one shard is one call that holds no lock. Its arrays
are views of a workspace that is allocated once; the table `layers` says where they are.
"""

import functools
import threading
from types import FunctionType
from typing import NamedTuple

import numpy as np

from npvae.kernels.bounds import elbo, iwae
from npvae.kernels.compile import jit
from npvae.kernels.dense import piece_size, times, times_transposed, transposed_times
from npvae.kernels.latent import (
    latent_rows_backward,
    latent_rows_forward,
    latent_sampled_rows_backward,
    latent_sampled_rows_forward,
)
from npvae.kernels.layers import BACKWARD, FORWARD, identity_backward, identity_forward
from npvae.kernels.likelihood import bernoulli, gaussian
from npvae.kernels.sparse import SPARSE, WIDE, combine_rows, count_nonzeros, find, transpose

# One layer: its widths, whether it has an activation, and where its arrays start in theta, floats and integers.
LAYER = np.dtype([(name, np.int64) for name in ("n_in", "n_out", "activated", "W", "b", "pre", "h", "dpre", "dx",
                  "starts", "columns", "values", "is_sparse", "need_dx")])  # fmt: skip


class Workspace(NamedTuple):
    """What the gradient of a shard is computed in."""

    layers: np.ndarray  # of LAYER: the encoder's, then the decoder's
    n_encoder: int
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D
    piece: int  # multiplications that BLAS does at a time, see `npvae.kernels.dense`


def workspace(model, n_rows, n_samples):
    """The Workspace for shards of at most n_rows rows, with n_samples samples of z for each."""
    n_floats = n_integers = parameter = 0

    def floats(n):
        nonlocal n_floats
        n_floats += n
        return n_floats - n

    def integers(n):
        nonlocal n_integers
        n_integers += n
        return n_integers - n

    named = [*model.encoder_layers, *model.decoder_layers]
    layers = np.zeros(len(named), LAYER)
    for i, (layer, (name, activation)) in enumerate(zip(layers, named)):
        n_in, n_out = model.shapes[f"{name}.W"]
        rows = n_rows * (1 if i < len(model.encoder_layers) else n_samples)
        n_nonzeros = int(SPARSE * rows * n_in) + 1
        layer["n_in"], layer["n_out"], layer["activated"], layer["need_dx"] = n_in, n_out, activation != "identity", i > 0
        layer["W"], layer["b"] = parameter, parameter + n_in * n_out
        parameter += n_in * n_out + n_out
        layer["pre"], layer["dpre"], layer["dx"] = floats(rows * n_out), floats(rows * n_out), floats(rows * n_in)
        layer["h"] = floats(rows * n_out) if layer["activated"] else layer["pre"]
        # the non-zeros of the layer's input, and behind them those of the transposed input
        layer["starts"] = integers(rows + 1 + n_in + 1)
        layer["columns"], layer["values"] = integers(2 * n_nonzeros), floats(2 * n_nonzeros)
    floats(n_rows * n_samples * model.n_features)  # doutput, at the end
    floats_, integers_ = np.empty(n_floats, model.dtype), np.empty(n_integers, np.int32)
    return Workspace(layers, len(model.encoder_layers), floats_, integers_, piece_size())


def gradient(model, x, eps, beta, objective, batch_size, out, space):
    """`VAE.gradient`: the Terms, and a bound on the sum of squares of the gradient that is written to `out`."""
    samples = eps if eps.ndim == 3 else eps[None]  # (S, B, L)
    betas = np.full(model.n_latent, beta, np.float64)  # a number, or one for each latent dimension
    layers, n_encoder, floats, integers, piece = space
    kernel = gradient_kernel(model.activation, model.likelihood, objective)
    return kernel(model.theta, layers, n_encoder, model.sigma**2, x, samples, betas, batch_size, floats, integers, piece, out)


def _norm2(a):
    flat = a.reshape(-1)
    return np.dot(flat, flat)


def _matrix(flat, start, n_rows, n_columns):
    return flat[start : start + n_rows * n_columns].reshape(n_rows, n_columns)


def _nonzeros(layer, n_rows, floats, integers):
    return integers[layer["starts"] :][: n_rows + 1], integers[layer["columns"] :], floats[layer["values"] :]


def _layers_forward(theta, layers, x, floats, integers, piece):
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
            times(h, W, pre, piece)
        h = matrix(floats, layer["h"], len(x), layer["n_out"])
        if layer["activated"]:
            activation_forward(pre, b, h)
        else:
            identity_forward(pre, b, h)
    return h


def _layers_backward(theta, layers, x, dh, floats, integers, piece, grad):
    """dx, and a bound on the sum of squares of the gradient: ‖dW‖² + ‖db‖² ≤ (‖x‖² + B) ‖dpre‖², by Cauchy and Schwarz."""
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
            column_starts = integers[layer["starts"] + len(x) + 1 :][: n_in + 1]
            rows, column_values = columns[starts[-1] :], values[starts[-1] :]
            transpose(starts, columns, values, column_starts, rows, column_values)
            combine_rows(column_starts, rows, column_values, dpre, dW)
        else:
            transposed_times(below, dpre, dW, piece)
        bound += (norm2(below) + len(x)) * norm2(dpre)
        if layer["need_dx"]:
            dh = matrix(floats, layer["dx"], len(x), n_in)
            times_transposed(dpre, matrix(theta, layer["W"], n_in, n_out), dh)
    return dh, bound


def _model_gradient(theta, layers, n_encoder, variance, x, eps, beta, batch_size, floats, integers, piece, grad):
    n_samples, n_rows, n_latent = eps.shape
    encoder, decoder = layers[:n_encoder], layers[n_encoder:]

    posterior = layers_forward(theta, encoder, x, floats, integers, piece)  # (B, D) -> (B, 2L)
    z, half_sigma = np.empty(eps.shape, theta.dtype), np.empty((n_rows, n_latent), theta.dtype)
    kl = np.empty((n_samples if importance_weighted else 1, n_rows, n_latent), theta.dtype)
    dkl, variance_minus_1, dposterior = np.empty_like(kl), np.empty_like(half_sigma), np.empty_like(posterior)
    if importance_weighted:
        n_clipped = latent_sampled_rows_forward(posterior, eps, z, kl, half_sigma)
    else:
        n_clipped = latent_rows_forward(posterior, eps, z, kl[0], half_sigma, variance_minus_1)
    z_rows = z.reshape(n_samples * n_rows, n_latent)
    output = layers_forward(theta, decoder, z_rows, floats, integers, piece)  # (S B, L) -> (S B, D)
    nll, doutput = np.empty((n_samples, n_rows)), matrix(floats, floats.size - output.size, len(z_rows), x.shape[1])
    upstream = 1.0 if importance_weighted else 1 / (batch_size * n_samples)  # (ELBO-nll)
    if gaussian_likelihood:
        gaussian(output, x, variance, nll.reshape(len(z_rows)), upstream, doutput)
    else:
        bernoulli(output, x, nll.reshape(len(z_rows)), upstream, doutput)
    if importance_weighted:
        dnll = np.empty_like(nll)
        loss = iwae(nll, kl, beta, batch_size, dnll, dkl)
        scale_rows(doutput, dnll.reshape(len(z_rows)))
    else:
        loss = elbo(nll, kl, beta, batch_size, dkl)

    dz, decoder_bound = layers_backward(theta, decoder, z_rows, doutput, floats, integers, piece, grad)
    if importance_weighted:
        latent_sampled_rows_backward(dz.reshape(eps.shape), dkl, posterior, eps, z, half_sigma, dposterior)
    else:
        latent_rows_backward(dz.reshape(eps.shape), dkl[0], posterior, eps, half_sigma, variance_minus_1, dposterior)
    _, encoder_bound = layers_backward(theta, encoder, x, dposterior, floats, integers, piece, grad)
    kl_sum = np.float64(0)
    for term in kl.flat:
        kl_sum += term
    mean_nll, mean_kl = nll.sum() / (batch_size * n_samples), kl_sum / (batch_size * len(kl))
    return loss, mean_nll, mean_kl, n_clipped, encoder_bound + decoder_bound


def _scale_rows(a, factors):
    for r in range(len(a)):
        factor = a.dtype.type(factors[r])
        for i in range(a.shape[1]):
            a[r, i] *= factor


matrix, norm2, nonzeros, scale_rows = jit(_matrix), jit(_norm2), jit(_nonzeros), jit(_scale_rows)
# Names in the functions above that `gradient_kernel` gives their meaning.
activation_forward, activation_backward = identity_forward, identity_backward
layers_forward, layers_backward = _layers_forward, _layers_backward
importance_weighted = gaussian_likelihood = False
one_worker = threading.Lock()


def gradient_kernel(activation, likelihood, objective):
    """`_model_gradient`, compiled for these alone: for all activations, likelihoods, objectives at once takes seconds more."""
    with one_worker:  # two that ask at once would compile it twice
        return _gradient_kernel(activation, likelihood, objective)


@functools.cache
def _gradient_kernel(activation, likelihood, objective):
    forward, backward = _stack_kernels(activation)
    flags = {"importance_weighted": objective == "iwae", "gaussian_likelihood": likelihood == "gaussian"}
    name = f"{activation}_{likelihood}_{objective}"
    return _compiled(_model_gradient, name, layers_forward=forward, layers_backward=backward, **flags)


@functools.cache
def _stack_kernels(activation):
    """`_layers_forward` and `_layers_backward`, which every likelihood and objective shares."""
    forward = _compiled(_layers_forward, activation, activation_forward=FORWARD[activation])
    backward = _compiled(_layers_backward, activation, activation_backward=BACKWARD[activation])
    return forward, backward


def _compiled(function, name, **meanings):
    """A copy of the function in which names have these meanings, compiled, with a name of its own, under which Numba caches it."""
    copy = FunctionType(function.__code__, {**globals(), **meanings})
    copy.__qualname__ = f"{function.__name__}_{name}"
    return jit(copy)
