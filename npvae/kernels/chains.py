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
from npvae.kernels.compile import jit
from npvae.kernels.latent import clipped_share
from npvae.kernels.mlp import InTheta, Places, layer_table, layers_forward_kernel, upstream, whole_backward_kernel
from npvae.kernels.transitions import (
    LATENT,
    add_to_dz,
    downwards,
    kl_rows_backward,
    kl_rows_forward,
    start_dz,
    upwards,
    z_of,
    z_rows_backward,
    z_rows_forward,
)
from npvae.kernels.vae import NLL_ROWS, iwae_weights, one_worker, scale_rows, total


class Workspace(NamedTuple):
    """What the gradient of a shard is computed in."""

    activation: str  # of the hidden layers
    layers: np.ndarray  # of `npvae.kernels.mlp.LAYER`, in the order of theta: upwards, downwards
    decoder: np.ndarray  # of the same
    latents: np.ndarray  # of LATENT
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D


def chain_workspace(activation, encoders, priors, decoder, n_rows, n_samples, likelihood):
    """The Workspace of `chain_gradient` for at most n_rows rows, with n_samples samples for each; None for a likelihood that it
    does not have.

    activation: of the hidden layers; encoders, priors: the layers (W, b, activation), as in `npvae.ops.mlp`, of each transition
    from the data upwards; decoder: those of p(x|z_1). Only shapes and dtype are read, and whether there is an activation.
    """
    if likelihood not in NLL_ROWS:
        return None
    n, parameters, floats, integers = n_rows * n_samples, InTheta(), Places(), Places()
    latents, tables = np.zeros(len(encoders), LATENT), []

    def add(layers, rows):
        start = sum(map(len, tables))
        tables.append(layer_table(layers, rows, parameters, floats, integers))
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
    on the sum of squares of the gradient, which is finite only if they are.
    """
    activation, layers, decoder, latents, *buffers = workspace
    samples = eps if eps.ndim == 3 else eps[None]  # (S, B, L)
    betas = np.empty(samples.shape[-1], theta.dtype)  # (L,)
    betas[:] = beta
    with one_worker:  # two that ask at once would compile it twice
        kernel = chain_kernel(activation, likelihood)
    how = float(number), objective == "iwae", objective == "elbo" and top_kl == "closed", float(dloss)
    *terms, clipped, bound = kernel(theta, layers, decoder, latents, x, samples, betas, *how, tuple(buffers), out)
    widths = latents["width"]
    return *terms, clipped / (2 * widths.sum() - widths[-1]), bound  # of q, and of p but for the top


@functools.cache
def chain_kernel(activation, likelihood):
    """The kernel of `chain_gradient`, for these alone."""
    layers_forward, layers_backward = layers_forward_kernel(activation), whole_backward_kernel(activation)
    nll_rows = NLL_ROWS[likelihood]

    def _gradient(theta, layers, decoder, latents, x, eps, beta, number, is_iwae, is_closed, dloss, buffers, grad):
        (n_samples, n_rows, n_latent), top = eps.shape, len(latents) - 1
        n, noise = n_samples * n_rows, eps.reshape(n_samples * n_rows, n_latent)  # (S, B, L) -> (n, L)
        floats, kl, log_ratio, clipped, below = buffers[0], np.empty(top + 1), np.zeros((n_samples, n_rows, 1)), 0.0, x
        for latent in latents:
            posterior = layers_forward(theta, upwards(layers, latent), below, *buffers, 0, 0)  # (R, L_t-1) -> (R, 2L_t)
            below = z_rows_forward(latent, posterior, noise, floats)  # -> (n, L_t)
            clipped += latent["width"] * clipped_share(posterior)
        for t in range(top + 1):
            if t < top:
                above = z_of(latents[t + 1], n, floats)
                prior = layers_forward(theta, downwards(layers, latents[t]), above, *buffers, 0, 0)  # (n, L_t+1) -> (n, 2L_t)
                clipped += latents[t]["width"] * clipped_share(prior)
            kl[t] = kl_rows_forward(latents, t, beta, noise, n_rows, is_closed, floats, log_ratio)
        z_1 = z_of(latents[0], n, floats)
        output = layers_forward(theta, decoder, z_1, *buffers, 0, 0)  # (n, L_1) -> (n, D)
        nll, weights = np.empty((n_samples, n_rows)), np.empty((n_samples, n_rows))
        doutput = upstream(decoder, floats, 0, n)
        nll_rows(output, x, number, nll.reshape(n), 1.0 if is_iwae else dloss / n, doutput)  # (ELBO-nll)
        loss = bound_rows(nll, log_ratio, is_iwae, dloss, weights, doutput)

        dz_1, bound = layers_backward(theta, decoder, z_1, *buffers, grad)
        start_dz(latents, dz_1, floats)
        for t in range(top if is_closed else top + 1):
            kl_rows_backward(latents[t], beta, weights, floats)  # -> (n, 2L_t)
            if t < top:
                above, layers_of_p = z_of(latents[t + 1], n, floats), downwards(layers, latents[t])
                dabove, of_prior = layers_backward(theta, layers_of_p, above, *buffers, grad)
                add_to_dz(latents[t + 1], dabove, floats)
                bound += of_prior
        for t in range(top, -1, -1):
            below = z_of(latents[t - 1], n, floats) if t > 0 else x
            z_rows_backward(latents[t], beta, noise, weights, len(below), is_closed and t == top, floats)
            dbelow, of_encoder = layers_backward(theta, upwards(layers, latents[t]), below, *buffers, grad)
            bound += of_encoder
            if t > 0:  # z_t-1 was read by the network of z_t, too
                add_to_dz(latents[t - 1], dbelow, floats)
        return loss, total(nll) / n, total(kl), kl[top], clipped, bound

    return jit(_gradient)


def _bound_rows(nll, log_ratio, is_iwae, dloss, weights, doutput):
    """The loss of nll (S, B) and log_ratio (S, B, 1), beta times the divergences; fills weights (S, B), the gradient with
    respect to both, with which doutput (n, D), that of each nll, is multiplied where the bound is importance-weighted."""
    if is_iwae:
        loss = iwae_weights(nll, log_ratio, np.ones(1), dloss, weights, np.empty_like(log_ratio))
        scale_rows(doutput, weights.reshape(nll.size))
        return loss
    weights[:] = dloss / nll.size  # (ELBO-nll), (ELBO-kl)
    return (total(nll) + total(log_ratio)) / nll.size


bound_rows = jit(_bound_rows)
