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
from npvae.core.parameters import zeros
from npvae.kernels.compile import inlined, jit
from npvae.kernels.discrete import beta_binomial_rows
from npvae.kernels.gaussian_likelihoods import gaussian_learned_rows
from npvae.kernels.latent import clipped_share
from npvae.kernels.latent_kinds import SCRATCH, latent_kernels
from npvae.kernels.likelihood import bernoulli_rows, gaussian_rows
from npvae.kernels.mlp import (
    InTheta,
    Places,
    layer_table,
    layers_backward_kernel,
    layers_forward_kernel,
    layers_gradient,
    layers_update_kernel,
    rows_of,
    upstream,
)
from npvae.kernels.team import Team, alone, begin, leave, meet, of_worker
from npvae.kernels.views import set_row, set_rows
from npvae.ops.discrete import LOG_MAX, LOG_MIN, log_binomials


class Workspace(NamedTuple):
    """What a gradient is computed in."""

    activation: str  # of the hidden layers
    layers: np.ndarray  # of `npvae.kernels.mlp.LAYER`: the encoder's, the prior's if it has any, the decoder's
    n_encoder: int
    n_prior: int
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D
    team: Team | None = None  # None for one worker that computes all, and no update

    of_worker = of_worker


def vae_workspace(encoder, decoder, n_rows, n_samples, likelihood="bernoulli", prior=(), n_shards=1):
    """The Workspace of `vae_gradient` for at most n_rows rows, in n_shards shards of about the same size, with n_samples
    samples of z for each row; None for a likelihood that it does not have.

    encoder, prior, decoder: lists of layers (W, b, activation) as in `npvae.ops.mlp`, whose W and b lie in theta one after the
    other in this order. Only their shapes, dtype and activations are read. ValueError if hidden layers differ in activation.
    """
    if likelihood not in NLL_ROWS:
        return None
    activations = {activation for _, _, activation in [*encoder, *prior, *decoder]} - {"identity"}
    if len(activations) > 1:
        raise ValueError(f"encoder and decoder must have one activation, got {', '.join(sorted(activations))}")
    parameters, floats, integers = InTheta(), Places(), Places()
    n_rows = n_shards * -(-n_rows // n_shards)
    layers = np.concatenate([
        layer_table(encoder, n_rows, parameters, floats, integers, n_shards),
        layer_table(prior, n_rows, parameters, floats, integers, n_shards),
        layer_table(decoder, n_rows * n_samples, parameters, floats, integers, n_shards),
    ])  # fmt: skip
    layers[0]["need_dx"] = False  # its input is the data
    if prior:
        layers[len(encoder)]["need_dx"] = False
    arrays = zeros((floats.size,), decoder[-1][0].dtype), zeros((integers.size,), np.int32)
    return Workspace(*(activations or {"identity"}), layers, len(encoder), len(prior), *arrays)


def vae_gradient(theta, x, eps, beta, posterior, objective, likelihood, number, dloss, out, workspace, condition=None):
    """The terms of the loss, and its gradient times dloss, which is written to `out`.

    theta, out (P,), x (B, D), C-contiguous and of one dtype, float32 or float64; eps (B, L) or (S, B, L); beta a number or
    (L,); posterior "diagonal" or "full"; objective "elbo" or "iwae"; likelihood one of NLL_ROWS, with this number
    (`npvae.models.likelihoods`); dloss a number, the upstream gradient of these rows' loss; workspace: a `vae_workspace` for as
    many rows and samples or more; condition (B, C) is joined to x and to z, and goes through the prior's layers.
    Returns loss, nll and kl (nats, means over the rows), the share of clipped log-variances, and a bound on the sum of squares
    of the gradient, which is finite only if they are.

    With a team these rows are one worker's, the others call this at the same time, and `out`, of them all, is the gradient of
    the whole batch; then theta is updated, unless something is not finite.
    """
    activation, layers, n_encoder, n_prior, floats, integers, team = workspace
    team = alone(theta, x) if team is None else team
    samples = eps if eps.ndim == 3 else eps[None]  # (S, B, L)
    betas = np.empty(samples.shape[-1])  # (L,)
    betas[:] = beta
    with one_worker:  # two that ask at once would compile it twice
        kind = activation, "prior" if n_prior else posterior, objective, likelihood, condition is not None
        kernel = gradient_kernel(*kind, team.update)
    of_rows = x, x if condition is None else condition, samples, betas, float(number), float(dloss)
    return kernel(theta, layers, n_encoder, n_prior, *of_rows, floats, integers, out, *team.in_kernel)


one_worker = threading.Lock()


@functools.cache
def gradient_kernel(activation, posterior, objective, likelihood, is_conditional, update="none"):
    """The kernel of `vae_gradient`, for these alone: for all activations, likelihoods and objectives it takes seconds more."""
    of_shard = shard_kernel(activation, posterior, objective, likelihood, is_conditional)
    layers_update = layers_update_kernel(update)

    def _gradient(theta, layers, n_encoder, n_prior, x, condition, eps, beta, number, dloss, floats, integers, grad,
                  k, firsts, x_of_all, signals, first_slot, second_slot, numbers):  # fmt: skip
        n_workers = len(firsts) - 1
        encoder, of_prior = layers[:n_encoder], layers[n_encoder : n_encoder + n_prior]
        decoder = layers[n_encoder + n_prior :]
        begin(signals, k, n_workers)
        loss, nll, kl, clipped, bound = of_shard(
            theta, encoder, of_prior, decoder, x, condition, eps, beta, number, dloss, floats, integers, k, firsts[k]
        )
        # np.isfinite is x − x == 0 in a kernel, which the reassociation of sums makes true of everything
        is_finite = meet(signals, k, n_workers, -np.inf < loss < np.inf and bound < np.inf)
        data = input_of(encoder, floats, 0, firsts[n_workers]) if is_conditional else x_of_all
        own_gradients(theta, encoder, of_prior, decoder, data, len(eps), firsts, floats, integers, grad, k)
        if is_finite and numbers[0] > 0:
            layers_update(theta, layers, grad, first_slot, second_slot, numbers, k, n_workers)
        leave(signals, k, n_workers)
        return loss, nll, kl, clipped, bound

    return jit(_gradient)


@functools.cache
def shard_kernel(activation, posterior, objective, likelihood, is_conditional):
    """The rows of a shard, forward and backward: its terms, the share of clipped log-variances, and the bound. The gradients of
    the weights are left out."""
    layers_forward, layers_backward = layers_forward_kernel(activation), layers_backward_kernel(activation)
    latent_forward, latent_backward = latent_kernels(posterior, objective)
    nll_rows, importance_weighted, has_prior = NLL_ROWS[likelihood], objective == "iwae", posterior == "prior"

    def _shard(theta, encoder, of_prior, decoder, x, condition, eps, beta, number, dloss, floats, integers, k, first):
        (n_samples, n_rows, n_latent), first_sample = eps.shape, len(eps) * first
        n, data, given = n_samples * n_rows, x, condition
        if is_conditional:
            data = joined(x, condition, input_of(encoder, floats, first, n_rows))  # -> (B, D + C)
        posterior = layers_forward(theta, encoder, data, floats, integers, k, first)  # (B, D) -> (B, 2L)
        prior = posterior
        if has_prior:
            given = input_of(of_prior, floats, first, n_rows)
            set_rows(given, condition)
            prior = layers_forward(theta, of_prior, given, floats, integers, k, first)  # (B, C) -> (B, 2L)
        code = input_of(decoder, floats, first_sample, n)  # (S B, L) or (S B, L + C)
        z_rows = np.empty((n, n_latent), theta.dtype) if is_conditional else code
        z, scratch = z_rows.reshape(eps.shape), np.empty((SCRATCH, n_rows, n_latent), theta.dtype)
        kl = np.empty((n_samples if importance_weighted else 1, n_rows, n_latent), theta.dtype)
        latent_forward(posterior, prior, eps, z, kl, scratch)
        if is_conditional:
            joined(z_rows, condition, code)
        output = layers_forward(theta, decoder, code, floats, integers, k, first_sample)  # (S B, L) -> (S B, D)
        nll, dkl, doutput = np.empty((n_samples, n_rows)), np.empty_like(kl), upstream(decoder, floats, first_sample, n)
        nll_rows(output, x, number, nll.reshape(n), 1.0 if importance_weighted else dloss / n, doutput)  # (ELBO-nll)
        if importance_weighted:
            loss = iwae_rows(nll, kl, beta, dloss, doutput, dkl)
        else:
            loss = elbo_rows(nll, kl, beta, dloss, dkl)

        dcode, bound = layers_backward(theta, decoder, code, floats, integers, k, first_sample)
        dz = dcode[:, :n_latent].copy() if is_conditional else dcode  # (S B, L + C) -> (S B, L)
        dposterior = upstream(encoder, floats, first, n_rows)
        dprior = upstream(of_prior, floats, first, n_rows) if has_prior else dposterior
        latent_backward(dz.reshape(eps.shape), dkl, posterior, prior, eps, z, scratch, dposterior, dprior)
        if has_prior:
            bound += layers_backward(theta, of_prior, given, floats, integers, k, first)[1]
        bound += layers_backward(theta, encoder, data, floats, integers, k, first)[1]
        clipped = clipped_share(posterior[:, : 2 * n_latent])
        return loss, nll.sum() / nll.size, total(kl) / (n_rows * len(kl)), clipped, bound

    return inlined(_shard)


def _input_of(layers, floats, first, n_rows):
    """The input of the first layer, of rows from `first` on."""
    return rows_of(floats, layers[0]["x"], first, n_rows, layers[0]["n_in"])


def _own_gradients(theta, encoder, of_prior, decoder, data, n_samples, firsts, floats, integers, grad, k):
    """Worker k's part of the gradient of every layer; data (B, D) is the encoder's input of all rows."""
    n_rows = firsts[-1]
    layers_gradient(theta, encoder, data, firsts, floats, integers, grad, k)
    if len(of_prior) > 0:
        layers_gradient(theta, of_prior, input_of(of_prior, floats, 0, n_rows), firsts, floats, integers, grad, k)
    codes = input_of(decoder, floats, 0, n_samples * n_rows)
    layers_gradient(theta, decoder, codes, n_samples * firsts, floats, integers, grad, k)


input_of = inlined(_input_of)
own_gradients = inlined(_own_gradients)


def _bernoulli(output, x, number, nll, dnll, doutput):
    bernoulli_rows(output, x, nll, dnll, doutput)


def _beta_binomial(output, x, number, nll, dnll, doutput):
    beta_binomial_rows(output, np.rint(x * x.dtype.type(LEVELS - 1)), LOG_BINOMIALS, LOG_MIN, LOG_MAX, nll, dnll, doutput)


LOG_BINOMIALS = log_binomials(LEVELS - 1)
NLL_ROWS = {"bernoulli": inlined(_bernoulli), "gaussian": gaussian_rows, "gaussian_learned": gaussian_learned_rows,
            "beta_binomial": inlined(_beta_binomial)}  # fmt: skip


def _joined(a, condition, out):
    """out (S B, · + C): a (S B, ·) and condition (B, C) side by side; row s B + b has the condition of datum b."""
    n, n_rows = a.shape[1], len(condition)
    for r in range(len(a)):
        set_row(out[r, :n], a[r])
        set_row(out[r, n:], condition[r % n_rows])
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


def _iwae_rows(nll, kl, beta, dloss, doutput, dkl):
    """As `iwae_weights`; doutput (S B, D), the gradient of each nll, is multiplied by dnll."""
    dnll = np.empty_like(nll)
    loss = iwae_weights(nll, kl, beta, dloss, dnll, dkl)
    scale_rows(doutput, dnll.reshape(nll.size))
    return loss


def _iwae_weights(nll, kl, beta, dloss, dnll, dkl):
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


elbo_rows, iwae_weights, scale_rows, total = inlined(_elbo_rows), jit(_iwae_weights), jit(_scale_rows), inlined(_total)
iwae_rows, joined = inlined(_iwae_rows), inlined(_joined)
