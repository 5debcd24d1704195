"""The gradient of a VAE in one call: what `VAE.forward` and then `VAE.backward` compute, by the kernels of the same ops.

As a composition of ops they take some 100 µs of Python per step, more than a small model's arithmetic, and the workers of
`npvae.core.workers` wait for each other's Python. Here the work of one shard is one call that holds no lock. Its large
arrays are pieces of a workspace that is allocated once (see `npvae.kernels.mlp`). `ConditionalVAE` uses the same kernel.

Shapes: B batch, D data, C condition, L latent, S samples per datum.
"""

import functools
import threading
from typing import NamedTuple

import numpy as np

from npvae.core.levels import LEVELS
from npvae.kernels import full_posterior, latent
from npvae.kernels.compile import jit
from npvae.kernels.discrete import beta_binomial_rows
from npvae.kernels.gaussian_likelihoods import gaussian_learned_rows
from npvae.kernels.learned_prior import (
    prior_latent_rows_backward,
    prior_latent_rows_forward,
    prior_latent_sampled_rows_backward,
    prior_latent_sampled_rows_forward,
)
from npvae.kernels.likelihood import bernoulli_rows, gaussian_rows
from npvae.kernels.mlp import Places, layer_table, layers_backward_kernel, layers_forward_kernel, matrix
from npvae.ops.discrete import LOG_MAX, LOG_MIN, log_binomials


class Workspace(NamedTuple):
    """What the gradient of a shard is computed in."""

    activation: str  # of the hidden layers
    layers: np.ndarray  # of `npvae.kernels.mlp.LAYER`: the encoder's, the prior's if it has any, the decoder's
    n_encoder: int
    n_prior: int
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D


def vae_workspace(encoder, decoder, n_rows, n_samples, likelihood="bernoulli", prior=()):
    """The Workspace of `vae_gradient` for at most n_rows rows, with n_samples samples of z for each; None for a likelihood that
    it does not have.

    encoder, prior, decoder: lists of layers (W, b, activation) as in `npvae.ops.mlp`, whose W and b lie in theta one after the
    other in this order. Only their shapes, dtype and activations are read. ValueError if hidden layers differ in activation.
    """
    if likelihood not in NLL_ROWS:
        return None
    activations = {activation for _, _, activation in [*encoder, *prior, *decoder]} - {"identity"}
    if len(activations) > 1:
        raise ValueError(f"encoder and decoder must have one activation, got {', '.join(sorted(activations))}")
    parameters, floats, integers = Places(), Places(), Places()
    layers = np.concatenate([
        layer_table(encoder, n_rows, parameters, floats, integers),
        layer_table(prior, n_rows, parameters, floats, integers),
        layer_table(decoder, n_rows * n_samples, parameters, floats, integers),
    ])  # fmt: skip
    layers[0]["need_dx"] = False  # its input is the data
    if prior:
        layers[len(encoder)]["need_dx"] = False
    output_weights, _, _ = decoder[-1]
    floats.take(n_rows * n_samples * output_weights.shape[1])  # doutput, at the end
    arrays = np.empty(floats.size, output_weights.dtype), np.empty(integers.size, np.int32)
    return Workspace(*(activations or {"identity"}), layers, len(encoder), len(prior), *arrays)


def vae_gradient(theta, x, eps, beta, posterior, objective, likelihood, number, dloss, out, workspace, condition=None):
    """The terms of the loss, and its gradient times dloss, which is written to `out`.

    theta, out (P,), x (B, D), C-contiguous and of one dtype, float32 or float64; eps (B, L) or (S, B, L); beta a number or
    (L,); posterior "diagonal" or "full"; objective "elbo" or "iwae"; likelihood one of NLL_ROWS, with this number
    (`npvae.models.likelihoods`); dloss a number, the upstream gradient of these rows' loss; workspace: a `vae_workspace` for as
    many rows and samples or more; condition (B, C) is joined to x and to z, and goes through the prior's layers.
    Returns loss, nll and kl (nats, means over the rows), the share of clipped log-variances, and a bound on the sum of squares
    of the gradient, which is finite only if they are.
    """
    activation, layers, n_encoder, n_prior, floats, integers = workspace
    samples = eps if eps.ndim == 3 else eps[None]  # (S, B, L)
    betas = np.empty(samples.shape[-1])  # (L,)
    betas[:] = beta
    with one_worker:  # two that ask at once would compile it twice
        kernel = gradient_kernel(activation, "prior" if n_prior else posterior, objective, likelihood, condition is not None)
    batch = x, x if condition is None else condition, samples, betas
    return kernel(theta, layers, n_encoder, n_prior, *batch, float(number), float(dloss), floats, integers, out)


one_worker = threading.Lock()


@functools.cache
def gradient_kernel(activation, posterior, objective, likelihood, is_conditional):
    """The kernel of `vae_gradient`, for these alone: for all activations, likelihoods and objectives it takes seconds more."""
    layers_forward, layers_backward = layers_forward_kernel(activation), layers_backward_kernel(activation)
    latent_forward, latent_backward = latent_kernels(posterior, objective)
    nll_rows, importance_weighted, has_prior = NLL_ROWS[likelihood], objective == "iwae", posterior == "prior"

    def _gradient(theta, layers, n_encoder, n_prior, x, condition, eps, beta, number, dloss, floats, integers, grad):
        n_samples, n_rows, n_latent = eps.shape
        encoder, of_prior = layers[:n_encoder], layers[n_encoder : n_encoder + n_prior]
        decoder = layers[n_encoder + n_prior :]

        data = joined(x, condition) if is_conditional else x  # (B, D) -> (B, D + C)
        posterior = layers_forward(theta, encoder, data, floats, integers)  # (B, D) -> (B, 2L)
        prior = layers_forward(theta, of_prior, condition, floats, integers) if has_prior else posterior
        z, scratch = np.empty(eps.shape, theta.dtype), np.empty((SCRATCH, n_rows, n_latent), theta.dtype)
        kl = np.empty((n_samples if importance_weighted else 1, n_rows, n_latent), theta.dtype)
        dkl, dposterior, dprior = np.empty_like(kl), np.empty_like(posterior), np.empty_like(prior)
        latent_forward(posterior, prior, eps, z, kl, scratch)
        z_rows = z.reshape(n_samples * n_rows, n_latent)
        code = joined(z_rows, condition) if is_conditional else z_rows  # (S B, L) -> (S B, L + C)
        output = layers_forward(theta, decoder, code, floats, integers)  # (S B, L) -> (S B, D)
        nll, doutput = np.empty((n_samples, n_rows)), matrix(floats, floats.size - output.size, len(z_rows), output.shape[1])
        upstream = 1.0 if importance_weighted else dloss / (n_rows * n_samples)  # (ELBO-nll)
        nll_rows(output, x, number, nll.reshape(len(z_rows)), upstream, doutput)
        if importance_weighted:
            dnll = np.empty_like(nll)
            loss = iwae_rows(nll, kl, beta, dloss, dnll, dkl)
            scale_rows(doutput, dnll.reshape(len(z_rows)))
        else:
            loss = elbo_rows(nll, kl, beta, dloss, dkl)

        dcode, decoder_bound = layers_backward(theta, decoder, code, doutput, floats, integers, grad)
        dz = dcode[:, :n_latent].copy() if is_conditional else dcode  # (S B, L + C) -> (S B, L)
        latent_backward(dz.reshape(eps.shape), dkl, posterior, prior, eps, z, scratch, dposterior, dprior)
        bound = decoder_bound
        if has_prior:
            _, prior_bound = layers_backward(theta, of_prior, condition, dprior, floats, integers, grad)
            bound += prior_bound
        _, encoder_bound = layers_backward(theta, encoder, data, dposterior, floats, integers, grad)
        clipped = latent.clipped_share(posterior[:, : 2 * n_latent])
        return loss, nll.sum() / nll.size, total(kl) / (n_rows * len(kl)), clipped, bound + encoder_bound

    return jit(_gradient)


SCRATCH = 3  # arrays (B, L) that a latent_forward leaves for its latent_backward


def latent_kernels(posterior, objective):
    """latent_forward(posterior, prior, eps, z, kl, scratch) and latent_backward(dz, dkl, posterior, prior, eps, z, scratch,
    dposterior, dprior) of `gradient_kernel`: the row loops of a kind of posterior, with one signature for all."""
    if posterior == "prior":
        return prior_latent_kernels(objective)
    diagonal = posterior == "diagonal"
    if objective == "iwae":
        rows_forward = latent.latent_sampled_rows_forward if diagonal else full_posterior.full_latent_sampled_rows_forward
        rows_backward = latent.latent_sampled_rows_backward if diagonal else full_posterior.full_latent_sampled_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, eps, z, kl, scratch[0])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl, posterior, eps, z, scratch[0], dposterior)
    else:
        rows_forward = latent.latent_rows_forward if diagonal else full_posterior.full_latent_rows_forward
        rows_backward = latent.latent_rows_backward if diagonal else full_posterior.full_latent_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, eps, z, kl[0], scratch[0], scratch[1])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl[0], posterior, eps, scratch[0], scratch[1], dposterior)

    return jit(_forward), jit(_backward)


def prior_latent_kernels(objective):
    """`latent_kernels` of a diagonal posterior against a learned prior."""
    if objective == "iwae":
        rows_forward, rows_backward = prior_latent_sampled_rows_forward, prior_latent_sampled_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, prior, eps, z, kl, scratch[0], scratch[1])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl, posterior, prior, eps, z, scratch[0], scratch[1], dposterior, dprior)
    else:
        rows_forward, rows_backward = prior_latent_rows_forward, prior_latent_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, prior, eps, z, kl[0], scratch[0], scratch[1], scratch[2])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl[0], posterior, prior, eps, scratch[0], scratch[1], scratch[2], dposterior, dprior)

    return jit(_forward), jit(_backward)


def _bernoulli(output, x, number, nll, dnll, doutput):
    bernoulli_rows(output, x, nll, dnll, doutput)


def _beta_binomial(output, x, number, nll, dnll, doutput):
    beta_binomial_rows(output, np.rint(x * x.dtype.type(LEVELS - 1)), LOG_BINOMIALS, LOG_MIN, LOG_MAX, nll, dnll, doutput)


LOG_BINOMIALS = log_binomials(LEVELS - 1)
NLL_ROWS = {"bernoulli": jit(_bernoulli), "gaussian": gaussian_rows, "gaussian_learned": gaussian_learned_rows,
            "beta_binomial": jit(_beta_binomial)}  # fmt: skip


def _joined(a, condition):
    """a (S B, ·) and condition (B, C) side by side, (S B, · + C): row s B + b has the condition of datum b."""
    n, n_rows = a.shape[1], len(condition)
    out = np.empty((len(a), n + condition.shape[1]), a.dtype)
    for r in range(len(a)):
        out[r, :n] = a[r]
        out[r, n:] = condition[r % n_rows]
    return out


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
joined = jit(_joined)
