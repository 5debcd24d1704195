"""The transitions of a chain of latents in one pass over the rows each: z_t drawn, judged by what the latent above it says, and
the way back. `npvae.ops.chains` has the formulas; `npvae.kernels.chains` calls these for one latent after the other.

The gradient of the loss with respect to a divergence is a weight of the row times beta of the dimension.

Shapes: B batch, S samples per datum, n = S B rows, R the rows of a q, B of the first and n of the others; L_t latent t, L all
of them side by side.
"""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, expm1
from npvae.kernels.full_posterior import clip_gradient, clip_rows
from npvae.kernels.views import matrix

# One latent z_t: its width, and its first column of eps; where the layers of q(z_t|z_t-1) and of p(z_t|z_t+1) start and end in
# the table of layers; and where its arrays start in floats: z and dz (n, L_t); of q and of p the network's output, its
# gradient, and what the backward pass needs: logvar and ½ σ of q (R, L_t), 1/σ of p (n, L_t).
LATENT = np.dtype([(name, np.int64) for name in (
    "width", "column", "up", "up_end", "down", "down_end", "z", "dz",
    "posterior", "dposterior", "logvar", "half_sigma", "prior", "dprior", "inverse_sigma",
)])  # fmt: skip


def _of_shard(latents, n_samples, first):
    """The latents of a shard, of which `first` is the first of the B rows: their arrays start at its rows."""
    shard = latents.copy()
    for t in range(len(shard)):
        latent, width, of_n = shard[t], shard[t]["width"], n_samples * first
        of_q = first if t == 0 else of_n
        latent["z"] += of_n * width
        latent["dz"] += of_n * width
        latent["posterior"] += of_q * 2 * width
        latent["dposterior"] += of_q * 2 * width
        latent["logvar"] += of_q * width
        latent["half_sigma"] += of_q * width
        latent["prior"] += of_n * 2 * width
        latent["dprior"] += of_n * 2 * width
        latent["inverse_sigma"] += of_n * width
    return shard


def _upwards(layers, latent):
    return layers[latent["up"] : latent["up_end"]]


def _downwards(layers, latent):
    return layers[latent["down"] : latent["down_end"]]


def _z_of(latent, n, floats):
    return matrix(floats, latent["z"], n, latent["width"])


def _start_dz(latents, dz_1, floats):
    """dz of the first latent from the decoder, zeros for the others."""
    for t in range(len(latents)):
        dz = matrix(floats, latents[t]["dz"], len(dz_1), latents[t]["width"])
        dz[:] = 0
    add_to_dz(latents[0], dz_1, floats)


def _add_to_dz(latent, share, floats):
    dz = matrix(floats, latent["dz"], len(share), latent["width"])
    for i in range(len(dz)):
        for l in range(dz.shape[1]):
            dz[i, l] += share[i, l]


def _z_rows_forward(latent, posterior, noise, floats):
    """z (n, L_t) drawn from posterior (R, 2L_t) with noise (n, L); keeps q's logvar, clipped, and ½ σ."""
    n_rows, n_latent = len(posterior), latent["width"]
    z = z_of(latent, len(noise), floats)
    logvar = matrix(floats, latent["logvar"], n_rows, n_latent)
    half_sigma = matrix(floats, latent["half_sigma"], n_rows, n_latent)
    half = z.dtype.type(0.5)
    clip_rows(posterior, logvar)
    for r in range(n_rows):  # each loop over l apart, here and below, so that LLVM vectorises them
        for l in range(n_latent):
            half_sigma[r, l] = half * exp(half * logvar[r, l])
    for i in range(len(z)):
        r, eps = i % n_rows, noise[i, latent["column"] :]
        for l in range(n_latent):
            z[i, l] = posterior[r, l] + (half_sigma[r, l] + half_sigma[r, l]) * eps[l]
    return z


def _z_rows_backward(latent, beta, noise, weights, n_rows, is_closed, floats):
    """dposterior (R, 2L_t) from dz, and from the divergence: that of the samples, or that of q from N(0, I) in closed form."""
    n, n_latent, row_weights = len(noise), latent["width"], weights.reshape(len(noise))
    dz, half_sigma = matrix(floats, latent["dz"], n, n_latent), matrix(floats, latent["half_sigma"], n_rows, n_latent)
    posterior = matrix(floats, latent["posterior"], n_rows, 2 * n_latent)
    dposterior = matrix(floats, latent["dposterior"], n_rows, 2 * n_latent)
    half, factors = dz.dtype.type(0.5), beta[latent["column"] :]
    dposterior[:] = 0
    for i in range(n):
        r, eps, dkl = i % n_rows, noise[i, latent["column"] :], dz.dtype.type(0 if is_closed else row_weights[i])
        for l in range(n_latent):
            dposterior[r, l] += dz[i, l]  # (Z-mu)
        for l in range(n_latent):  # (Z-logvar), (PAIR-SAMPLED-logvar_q)
            dposterior[r, n_latent + l] += dz[i, l] * eps[l] * half_sigma[r, l] - half * (dkl * factors[l])
    if is_closed:
        logvar, dkl = matrix(floats, latent["logvar"], n_rows, n_latent), dz.dtype.type(row_weights[0] * n / n_rows)
        for r in range(n_rows):
            for l in range(n_latent):
                dposterior[r, l] += dkl * factors[l] * posterior[r, l]  # (KL-mu)
            for l in range(n_latent):
                dposterior[r, n_latent + l] += dkl * factors[l] * (half * expm1(logvar[r, l]))  # (KL-logvar)
    clip_gradient(posterior, dposterior, n_latent)
    return dposterior


def _kl_rows_forward(latents, t, beta, noise, n_rows, is_closed, floats, log_ratio):
    """The divergence of z_t, its mean over the rows: log q/p of the samples, or that of the top q from N(0, I) in closed form.
    Beta times that of each row is added to log_ratio (S, B, 1). n_rows is B."""
    latent, n, ratios = latents[t], len(noise), log_ratio.reshape(len(noise))
    logvar, factors = matrix(floats, latent["logvar"], n if t > 0 else n_rows, latent["width"]), beta[latent["column"] :]
    if is_closed and t == len(latents) - 1:
        posterior = matrix(floats, latent["posterior"], len(logvar), 2 * latent["width"])
        return closed_kl_rows(posterior, logvar, factors, ratios) / n
    z, prior = z_of(latent, n, floats), matrix(floats, latent["prior"], n, 2 * latent["width"])
    inverse_sigma = matrix(floats, latent["inverse_sigma"], n, latent["width"])
    return sampled_kl_rows(z, logvar, noise, latent["column"], prior, factors, inverse_sigma, ratios) / n


def _closed_kl_rows(posterior, logvar, beta, ratios):
    """Σ over the n rows of KL(q ‖ N(0, I)); ratios (n,) as in kl_rows_forward."""
    n_rows, n_latent = logvar.shape
    half, total = logvar.dtype.type(0.5), 0.0
    for i in range(len(ratios)):
        r, kl, weighted = i % n_rows, 0.0, 0.0
        for l in range(n_latent):
            value = half * (posterior[r, l] * posterior[r, l] + expm1(logvar[r, l]) - logvar[r, l])
            kl += value
            weighted += beta[l] * value
        total += kl
        ratios[i] += weighted
    return total


def _sampled_kl_rows(z, logvar, noise, column, prior, beta, inverse_sigma, ratios):
    """Σ over the n rows of log q/p of z (n, L_t), of prior (n, 2L_t); fills inverse_sigma = 1/σ_p."""
    n, n_latent = z.shape
    half, total, logvar_p = z.dtype.type(0.5), 0.0, np.empty_like(z)
    clip_rows(prior, logvar_p)
    for i in range(n):
        of_q, eps, kl, weighted = logvar[i % len(logvar)], noise[i, column:], 0.0, 0.0
        for l in range(n_latent):
            inverse_sigma[i, l] = exp(-half * logvar_p[i, l])
        for l in range(n_latent):
            u = (z[i, l] - prior[i, l]) * inverse_sigma[i, l]
            value = half * (u * u - eps[l] * eps[l] + (logvar_p[i, l] - of_q[l]))
            kl += value
            weighted += beta[l] * value
        total += kl
        ratios[i] += weighted
    return total


def _kl_rows_backward(latent, beta, weights, floats):
    """Adds to dz what the divergence of each sample gives to it; dprior (n, 2L_t)."""
    n, n_latent, row_weights = weights.size, latent["width"], weights.reshape(weights.size)
    z, dz = z_of(latent, n, floats), matrix(floats, latent["dz"], n, n_latent)
    prior, dprior = matrix(floats, latent["prior"], n, 2 * n_latent), matrix(floats, latent["dprior"], n, 2 * n_latent)
    inverse_sigma, factors = matrix(floats, latent["inverse_sigma"], n, n_latent), beta[latent["column"] :]
    one, half = z.dtype.type(1), z.dtype.type(0.5)
    for i in range(n):
        weight = z.dtype.type(row_weights[i])
        for l in range(n_latent):
            u, dkl = (z[i, l] - prior[i, l]) * inverse_sigma[i, l], weight * factors[l]
            slope = dkl * u * inverse_sigma[i, l]
            dz[i, l] += slope  # (PAIR-SAMPLED-z)
            dprior[i, l] = -slope  # (PAIR-SAMPLED-mu_p)
            dprior[i, n_latent + l] = half * (dkl * (one - u * u))  # (PAIR-SAMPLED-logvar_p)
    clip_gradient(prior, dprior, n_latent)
    return dprior


of_shard = jit(_of_shard)
upwards, downwards, z_of, start_dz, add_to_dz = jit(_upwards), jit(_downwards), jit(_z_of), jit(_start_dz), jit(_add_to_dz)
closed_kl_rows, sampled_kl_rows = jit(_closed_kl_rows), jit(_sampled_kl_rows)
z_rows_forward, z_rows_backward = jit(_z_rows_forward), jit(_z_rows_backward)
kl_rows_forward, kl_rows_backward = jit(_kl_rows_forward), jit(_kl_rows_backward)
