"""The gradient of a VAE in one call: what `VAE.forward` and then `VAE.backward` compute, by the kernels of the same ops.

As a composition of ops they take some 100 µs of Python per step, more than a small model's arithmetic, and the workers of
`npvae.training.workers` wait for each other's Python. Here the work of one shard is one call that holds no lock. Its large
arrays are pieces of a workspace that is allocated once (see `npvae.kernels.mlp`).

Shapes: B batch, D data, L latent, S samples per datum.
"""

import functools
import threading
from typing import NamedTuple

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.dense import piece_size
from npvae.kernels.latent import (
    clipped_share,
    latent_rows_backward,
    latent_rows_forward,
    latent_sampled_rows_backward,
    latent_sampled_rows_forward,
)
from npvae.kernels.likelihood import bernoulli_rows, gaussian_rows
from npvae.kernels.mlp import Places, layer_table, layers_backward_kernel, layers_forward_kernel, matrix


class Workspace(NamedTuple):
    """What the gradient of a shard is computed in."""

    activation: str  # of the hidden layers
    layers: np.ndarray  # of `npvae.kernels.mlp.LAYER`: the encoder's, then the decoder's
    n_encoder: int
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D
    piece: int  # multiplications that BLAS does at a time, see `npvae.kernels.dense`


def vae_workspace(encoder, decoder, n_rows, n_samples):
    """The Workspace of `vae_gradient` for at most n_rows rows, with n_samples samples of z for each.

    encoder, decoder: lists of layers (W, b, activation) as in `npvae.ops.mlp`, whose W and b lie in theta one after the other,
    the encoder's first. Only their shapes, dtype and activations are read. ValueError if hidden layers differ in activation.
    """
    activations = {activation for _, _, activation in [*encoder, *decoder]} - {"identity"}
    if len(activations) > 1:
        raise ValueError(f"encoder and decoder must have one activation, got {', '.join(sorted(activations))}")
    parameters, floats, integers = Places(), Places(), Places()
    layers = np.concatenate([
        layer_table(encoder, n_rows, parameters, floats, integers),
        layer_table(decoder, n_rows * n_samples, parameters, floats, integers),
    ])  # fmt: skip
    layers[0]["need_dx"] = False  # its input is the data
    output_weights, _, _ = decoder[-1]
    floats.take(n_rows * n_samples * output_weights.shape[1])  # doutput, at the end
    arrays = np.empty(floats.size, output_weights.dtype), np.empty(integers.size, np.int32)
    return Workspace(*(activations or {"identity"}), layers, len(encoder), *arrays, piece_size())


def vae_gradient(theta, x, eps, beta, objective, likelihood, variance, dloss, out, workspace):
    """The terms of the loss, and its gradient times dloss, which is written to `out`.

    theta, out (P,), x (B, D), C-contiguous and of one dtype, float32 or float64; eps (B, L) or (S, B, L); beta a number or
    (L,); objective "elbo" or "iwae", likelihood "bernoulli" or "gaussian", with this variance; dloss a number, the upstream
    gradient of these rows' loss; workspace: a `vae_workspace` for as many rows and samples or more.
    Returns loss, nll and kl (nats, means over the rows), the share of clipped log-variances, and a bound on the sum of squares
    of the gradient, which is finite only if they are.
    """
    activation, layers, n_encoder, floats, integers, piece = workspace
    samples = eps if eps.ndim == 3 else eps[None]  # (S, B, L)
    betas = np.empty(samples.shape[-1])  # (L,)
    betas[:] = beta
    with one_worker:  # two that ask at once would compile it twice
        kernel = gradient_kernel(activation, likelihood, objective)
    return kernel(theta, layers, n_encoder, x, samples, betas, float(variance), float(dloss), floats, integers, piece, out)


one_worker = threading.Lock()


@functools.cache
def gradient_kernel(activation, likelihood, objective):
    """The kernel of `vae_gradient`, for these alone: for all activations, likelihoods and objectives it takes seconds more."""
    layers_forward, layers_backward = layers_forward_kernel(activation), layers_backward_kernel(activation)
    importance_weighted, gaussian_likelihood = objective == "iwae", likelihood == "gaussian"

    def _gradient(theta, layers, n_encoder, x, eps, beta, variance, dloss, floats, integers, piece, grad):
        n_samples, n_rows, n_latent = eps.shape
        encoder, decoder = layers[:n_encoder], layers[n_encoder:]

        posterior = layers_forward(theta, encoder, x, floats, integers, piece)  # (B, D) -> (B, 2L)
        z, half_sigma = np.empty(eps.shape, theta.dtype), np.empty((n_rows, n_latent), theta.dtype)
        kl = np.empty((n_samples if importance_weighted else 1, n_rows, n_latent), theta.dtype)
        dkl, variance_minus_1, dposterior = np.empty_like(kl), np.empty_like(half_sigma), np.empty_like(posterior)
        if importance_weighted:
            latent_sampled_rows_forward(posterior, eps, z, kl, half_sigma)
        else:
            latent_rows_forward(posterior, eps, z, kl[0], half_sigma, variance_minus_1)
        z_rows = z.reshape(n_samples * n_rows, n_latent)
        output = layers_forward(theta, decoder, z_rows, floats, integers, piece)  # (S B, L) -> (S B, D)
        nll, doutput = np.empty((n_samples, n_rows)), matrix(floats, floats.size - output.size, len(z_rows), x.shape[1])
        upstream = 1.0 if importance_weighted else dloss / (n_rows * n_samples)  # (ELBO-nll)
        if gaussian_likelihood:
            gaussian_rows(output, x, variance, nll.reshape(len(z_rows)), upstream, doutput)
        else:
            bernoulli_rows(output, x, nll.reshape(len(z_rows)), upstream, doutput)
        if importance_weighted:
            dnll = np.empty_like(nll)
            loss = iwae_rows(nll, kl, beta, dloss, dnll, dkl)
            scale_rows(doutput, dnll.reshape(len(z_rows)))
        else:
            loss = elbo_rows(nll, kl, beta, dloss, dkl)

        dz, decoder_bound = layers_backward(theta, decoder, z_rows, doutput, floats, integers, piece, grad)
        if importance_weighted:
            latent_sampled_rows_backward(dz.reshape(eps.shape), dkl, posterior, eps, z, half_sigma, dposterior)
        else:
            latent_rows_backward(dz.reshape(eps.shape), dkl[0], posterior, eps, half_sigma, variance_minus_1, dposterior)
        _, encoder_bound = layers_backward(theta, encoder, x, dposterior, floats, integers, piece, grad)
        terms = loss, nll.sum() / nll.size, total(kl) / (n_rows * len(kl)), clipped_share(posterior)
        return *terms, encoder_bound + decoder_bound

    return jit(_gradient)


def _elbo_rows(nll, kl, beta, dloss, dkl):
    """The loss of nll (S, B) and kl (1, B, L); fills dkl. dnll is dloss/(B S) for every sample."""
    n_samples, n_rows = nll.shape
    loss = nll.sum() / (n_rows * n_samples)
    for b in range(n_rows):
        for l in range(kl.shape[2]):
            loss += beta[l] * kl[0, b, l] / n_rows
            dkl[0, b, l] = dloss * beta[l] / n_rows  # (ELBO-kl)
    return loss


def _iwae_rows(nll, kl, beta, dloss, dnll, dkl):
    """The loss of nll (S, B) and kl (S, B, L); fills dnll (S, B) and dkl."""
    n_samples, n_rows, n_latent = kl.shape
    loss, log_w = 0.0, np.empty(n_samples)
    for b in range(n_rows):
        for s in range(n_samples):
            log_w[s] = -nll[s, b]
            for l in range(n_latent):
                log_w[s] -= beta[l] * kl[s, b, l]
        largest = log_w.max()
        log_sum = largest + np.log(np.exp(log_w - largest).sum())
        loss -= (log_sum - np.log(n_samples)) / n_rows
        for s in range(n_samples):
            dnll[s, b] = dloss * np.exp(log_w[s] - log_sum) / n_rows  # (IWAE-nll)
            for l in range(n_latent):
                dkl[s, b, l] = dnll[s, b] * beta[l]  # (IWAE-kl)
    return loss


def _scale_rows(a, factors):
    for r in range(len(a)):
        factor = a.dtype.type(factors[r])
        for i in range(a.shape[1]):
            a[r, i] *= factor


def _total(a):
    """The sum of all elements, in float64."""
    result = np.float64(0)
    for value in a.flat:
        result += value
    return result


elbo_rows, iwae_rows, scale_rows, total = jit(_elbo_rows), jit(_iwae_rows), jit(_scale_rows), jit(_total)
