"""The gradient of a chain of VAEs in one call: what `HierarchicalVAE.forward` and then `backward` compute. See
`npvae.kernels.vae`.

The kernel goes through two tables: of layers (`npvae.kernels.mlp.LAYER`), and of latents (`npvae.kernels.transitions.LATENT`),
which says whose layers are whose. So one compiled version serves chains of every length, both objectives and both forms of the
topmost KL.

Shapes: B batch, D data, S samples per datum, n = S B rows, R the rows of a q, B of the first and n of the others; L_t latent t,
L all of them side by side.
"""

import functools
from typing import NamedTuple

import numpy as np

from npvae.core.parameters import zeros
from npvae.kernels.compile import inlined, jit
from npvae.kernels.latent import clipped_share
from npvae.kernels.mlp import (
    InTheta,
    Places,
    layer_table,
    layers_backward_kernel,
    layers_forward_kernel,
    layers_gradient,
    layers_update_kernel,
    upstream,
)
from npvae.kernels.team import Team, alone, begin, leave, meet, of_worker
from npvae.kernels.transitions import (
    LATENT,
    add_to_dz,
    downwards,
    kl_rows_backward,
    kl_rows_forward,
    of_shard,
    start_dz,
    upwards,
    z_of,
    z_rows_backward,
    z_rows_forward,
)
from npvae.kernels.vae import NLL_ROWS, iwae_weights, one_worker, scale_rows, total


class Workspace(NamedTuple):
    """What the gradient is computed in."""

    activation: str  # of the hidden layers
    layers: np.ndarray  # of `npvae.kernels.mlp.LAYER`, in the order of theta: upwards, downwards
    decoder: np.ndarray  # of the same
    latents: np.ndarray  # of LATENT
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D
    team: Team | None = None  # None for one worker that computes all, and no update

    of_worker = of_worker


def chain_workspace(activation, encoders, priors, decoder, n_rows, n_samples, likelihood, n_shards=1):
    """The Workspace of `chain_gradient` for at most n_rows rows, in n_shards shards of about the same size, with n_samples
    samples for each row; None for a likelihood that it does not have.

    activation: of the hidden layers; encoders, priors: the layers (W, b, activation), as in `npvae.ops.mlp`, of each transition
    from the data upwards; decoder: those of p(x|z_1). Only shapes and dtype are read, and whether there is an activation.
    """
    if likelihood not in NLL_ROWS:
        return None
    n_rows = n_shards * -(-n_rows // n_shards)
    n, parameters, floats, integers = n_rows * n_samples, InTheta(), Places(), Places()
    latents, tables = np.zeros(len(encoders), LATENT), []

    def add(layers, rows):
        start = sum(map(len, tables))
        tables.append(layer_table(layers, rows, parameters, floats, integers, n_shards))
        return start, start + len(layers), tables[-1][-1]["pre"], tables[-1][-1]["dpre"]

    names = ["up", "up_end", "posterior", "dposterior"], ["down", "down_end", "prior", "dprior"]
    for t, latent in enumerate(latents):
        latent["width"], latent["column"] = len(encoders[t][-1][1]) // 2, latents["width"][:t].sum()
        for name, value in zip(names[0], add(encoders[t], n if t else n_rows)):
            latent[name] = value
        for name in ("z", "dz", "logvar", "half_sigma", "inverse_sigma"):
            latent[name] = floats.take(n * latent["width"])
    for t in reversed(range(len(priors))):  # so they lie in theta
        for name, value in zip(names[1], add(priors[t], n)):
            latents[t][name] = value
    top = latents[-1]
    top["prior"], top["dprior"] = floats.take(2 * n * top["width"]), floats.take(2 * n * top["width"])
    add(decoder, n)
    layers = np.concatenate(tables)
    layers[0]["need_dx"] = False  # its input is the data
    arrays = zeros((floats.size,), decoder[-1][0].dtype), zeros((integers.size,), np.int32)
    arrays[0][top["prior"] : top["dprior"]] = 0  # of N(0, I), for which there is no network
    return Workspace(activation, layers[: -len(decoder)], layers[-len(decoder) :], latents, *arrays)


def chain_gradient(theta, x, eps, beta, objective, top_kl, likelihood, number, dloss, out, workspace):
    """The terms of the loss, and its gradient times dloss, which is written to `out`.

    theta, out (P,), x (B, D), eps (B, L) or (S, B, L), C-contiguous and of one dtype, float32 or float64; beta a number or
    (L,); objective "elbo" or "iwae"; top_kl "closed" or "sampled"; likelihood one of `npvae.kernels.vae.NLL_ROWS`, with this
    number; dloss a number, the upstream gradient of these rows' loss; workspace: a `chain_workspace` for as many rows and
    samples or more. Returns loss, nll, kl, kl_top (nats, means over the rows), the share of clipped log-variances, and a bound
    on the sum of squares of the gradient, which is finite only if they are. With a team as `npvae.kernels.vae.vae_gradient`.
    """
    activation, layers, decoder, latents, floats, integers, team = workspace
    team = alone(theta, x) if team is None else team
    samples = eps if eps.ndim == 3 else eps[None]  # (S, B, L)
    betas = np.empty(samples.shape[-1], theta.dtype)  # (L,)
    betas[:] = beta
    with one_worker:  # two that ask at once would compile it twice
        kernel = chain_kernel(activation, likelihood, team.update)
    how = float(number), objective == "iwae", objective == "elbo" and top_kl == "closed", float(dloss)
    arguments = theta, layers, decoder, latents, x, samples, betas, *how, (floats, integers), out
    *terms, clipped, bound = kernel(*arguments, *team.in_kernel)
    widths = latents["width"]
    return *terms, clipped / (2 * widths.sum() - widths[-1]), bound  # of q, and of p but for the top


@functools.cache
def chain_kernel(activation, likelihood, update="none"):
    """The kernel of `chain_gradient`, for these alone."""
    rows_kernel, layers_update = chain_rows_kernel(activation, likelihood), layers_update_kernel(update)

    def _gradient(theta, layers, decoder, latents, x, eps, beta, number, is_iwae, is_closed, dloss, buffers, grad,
                  k, firsts, x_of_all, signals, first_slot, second_slot, numbers):  # fmt: skip
        n_workers, n_samples = len(firsts) - 1, len(eps)
        begin(signals, k, n_workers)
        shard = of_shard(latents, n_samples, firsts[k])
        loss, nll, kl, kl_top, clipped, bound = rows_kernel(
            theta, layers, decoder, shard, x, eps, beta, number, is_iwae, is_closed, dloss, buffers, k, firsts[k]
        )
        is_finite = meet(signals, k, n_workers, -np.inf < loss < np.inf and bound < np.inf)
        own_gradients(theta, layers, decoder, latents, x_of_all, n_samples, firsts, buffers, grad, k)
        if is_finite and numbers[0] > 0:
            layers_update(theta, layers, grad, first_slot, second_slot, numbers, k, n_workers)
            layers_update(theta, decoder, grad, first_slot, second_slot, numbers, k, n_workers)
        leave(signals, k, n_workers)
        return loss, nll, kl, kl_top, clipped, bound

    return jit(_gradient)


@functools.cache
def chain_rows_kernel(activation, likelihood):
    """The rows of a shard, forward and backward: its terms, the share of clipped log-variances, and the bound. The gradients of
    the weights are left out."""
    chain_forward, chain_backward = chain_forward_kernel(activation), chain_backward_kernel(activation)
    nll_rows = NLL_ROWS[likelihood]

    def _rows(theta, layers, decoder, latents, x, eps, beta, number, is_iwae, is_closed, dloss, buffers, k, first):
        (n_samples, n_rows, n_latent), top, first_sample = eps.shape, len(latents) - 1, len(eps) * first
        n, noise = n_samples * n_rows, eps.reshape(n_samples * n_rows, n_latent)  # (S, B, L) -> (n, L)
        kl, log_ratio = np.empty(top + 1), np.zeros((n_samples, n_rows, 1))
        nll, weights = np.empty((n_samples, n_rows)), np.empty((n_samples, n_rows))
        output, clipped = chain_forward(
            theta, layers, decoder, latents, x, noise, beta, is_closed, buffers, k, first, first_sample, kl, log_ratio
        )
        doutput = upstream(decoder, buffers[0], first_sample, n)
        nll_rows(output, x, number, nll.reshape(n), 1.0 if is_iwae else dloss / n, doutput)  # (ELBO-nll)
        loss = bound_rows(nll, log_ratio, is_iwae, dloss, weights, doutput)
        bound = chain_backward(
            theta, layers, decoder, latents, x, noise, beta, is_closed, buffers, k, first, first_sample, weights
        )
        return loss, total(nll) / n, total(kl), kl[top], clipped, bound

    return inlined(_rows)


@functools.cache
def chain_forward_kernel(activation):
    """All latents upwards, then downwards to the decoder's output; fills kl (T,) and log_ratio (S, B, 1)."""
    layers_forward = layers_forward_kernel(activation)

    def _forward(theta, layers, decoder, latents, x, noise, beta, is_closed, buffers, k, first, first_sample, kl, log_ratio):
        n, top, floats, clipped, below = len(noise), len(latents) - 1, buffers[0], 0.0, x
        for t in range(top + 1):
            place = first_sample if t > 0 else first
            posterior = layers_forward(theta, upwards(layers, latents[t]), below, *buffers, k, place)  # (R, L_t-1) -> (R, 2L_t)
            below = z_rows_forward(latents[t], posterior, noise, floats)  # -> (n, L_t)
            clipped += latents[t]["width"] * clipped_share(posterior)
        for t in range(top + 1):
            if t < top:
                above, layers_of_p = z_of(latents[t + 1], n, floats), downwards(layers, latents[t])
                prior = layers_forward(theta, layers_of_p, above, *buffers, k, first_sample)  # (n, L_t+1) -> (n, 2L_t)
                clipped += latents[t]["width"] * clipped_share(prior)
            kl[t] = kl_rows_forward(latents, t, beta, noise, len(x), is_closed, floats, log_ratio)
        z_1 = z_of(latents[0], n, floats)
        return layers_forward(theta, decoder, z_1, *buffers, k, first_sample), clipped  # (n, L_1) -> (n, D)

    return inlined(_forward)


@functools.cache
def chain_backward_kernel(activation):
    """From the gradient of the decoder's output back to the data, through p downwards and q upwards; returns the bound."""
    layers_backward = layers_backward_kernel(activation)

    def _backward(theta, layers, decoder, latents, x, noise, beta, is_closed, buffers, k, first, first_sample, weights):
        n, top, floats = len(noise), len(latents) - 1, buffers[0]
        dz_1, bound = layers_backward(theta, decoder, z_of(latents[0], n, floats), *buffers, k, first_sample)
        start_dz(latents, dz_1, floats)
        for t in range(top if is_closed else top + 1):
            kl_rows_backward(latents[t], beta, weights, floats)  # -> (n, 2L_t)
            if t < top:
                above, layers_of_p = z_of(latents[t + 1], n, floats), downwards(layers, latents[t])
                dabove, of_prior = layers_backward(theta, layers_of_p, above, *buffers, k, first_sample)
                add_to_dz(latents[t + 1], dabove, floats)
                bound += of_prior
        for t in range(top, -1, -1):
            below, place = (z_of(latents[t - 1], n, floats), first_sample) if t > 0 else (x, first)
            z_rows_backward(latents[t], beta, noise, weights, len(below), is_closed and t == top, floats)
            dbelow, of_encoder = layers_backward(theta, upwards(layers, latents[t]), below, *buffers, k, place)
            bound += of_encoder
            if t > 0:  # z_t-1 was read by the network of z_t, too
                add_to_dz(latents[t - 1], dbelow, floats)
        return bound

    return inlined(_backward)


def _own_gradients(theta, layers, decoder, latents, x, n_samples, firsts, buffers, grad, k):
    """Worker k's part of the gradient of every layer; x (B, D) are the rows of all."""
    n, firsts_of_samples, below, firsts_below = n_samples * firsts[-1], n_samples * firsts, x, firsts
    for t in range(len(latents)):
        layers_gradient(theta, upwards(layers, latents[t]), below, firsts_below, *buffers, grad, k)
        below, firsts_below = z_of(latents[t], n, buffers[0]), firsts_of_samples
        reader = decoder if t == 0 else downwards(layers, latents[t - 1])
        layers_gradient(theta, reader, below, firsts_of_samples, *buffers, grad, k)


def _bound_rows(nll, log_ratio, is_iwae, dloss, weights, doutput):
    """The loss of nll (S, B) and log_ratio (S, B, 1), beta times the divergences; fills weights (S, B), the gradient with
    respect to both, with which doutput (n, D), that of each nll, is multiplied where the bound is importance-weighted."""
    if is_iwae:
        loss = iwae_weights(nll, log_ratio, np.ones(1), dloss, weights, np.empty_like(log_ratio))
        scale_rows(doutput, weights.reshape(nll.size))
        return loss
    weights[:] = dloss / nll.size  # (ELBO-nll), (ELBO-kl)
    return (total(nll) + total(log_ratio)) / nll.size


bound_rows, own_gradients = jit(_bound_rows), inlined(_own_gradients)
