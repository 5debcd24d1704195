"""Compiled twins of `npvae.ops.full_posterior`: clip, sample and KL, or the divergence of each sample, row by row.

The factor is not built: row b of the encoder's output holds F_lk for k < l at 2 L + l (l − 1)/2 + k.
"""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, expm1
from npvae.ops.latent import LOGVAR_MAX, LOGVAR_MIN


def full_latent_forward(posterior, eps):
    """`npvae.ops.full_posterior.full_latent_forward`."""
    samples = eps.reshape(-1, *eps.shape[-2:])  # (S, B, L)
    z = np.empty(samples.shape, posterior.dtype)
    kl, sigma, variance_minus_1 = (np.empty(eps.shape[-2:], posterior.dtype) for _ in range(3))
    full_latent_rows_forward(posterior, samples, z, kl, sigma, variance_minus_1)
    return (z.reshape(eps.shape), kl), (posterior, samples, sigma, variance_minus_1)


def full_latent_backward(dz, dkl, cache):
    """`npvae.ops.full_posterior.full_latent_backward`."""
    posterior, samples, sigma, variance_minus_1 = cache
    dposterior = np.empty_like(posterior)
    full_latent_rows_backward(dz.reshape(samples.shape), dkl, posterior, samples, sigma, variance_minus_1, dposterior)
    return dposterior


def full_latent_sampled_forward(posterior, eps):
    """`npvae.ops.full_posterior.full_latent_sampled_forward`."""
    z, kl = np.empty(eps.shape, posterior.dtype), np.empty(eps.shape, posterior.dtype)
    sigma = np.empty(eps.shape[1:], posterior.dtype)
    full_latent_sampled_rows_forward(posterior, eps, z, kl, sigma)
    return (z, kl), (posterior, eps, z, sigma)


def full_latent_sampled_backward(dz, dkl, cache):
    """`npvae.ops.full_posterior.full_latent_sampled_backward`."""
    posterior, eps, z, sigma = cache
    dposterior = np.empty_like(posterior)
    full_latent_sampled_rows_backward(dz, dkl, posterior, eps, z, sigma, dposterior)
    return dposterior


def _sample_rows(posterior, sigma, eps, z):
    """z = mu + F eps, for every sample of every row."""
    n_samples, n_rows, n_latent = eps.shape
    for b in range(n_rows):
        mu, below = posterior[b, :n_latent], posterior[b, 2 * n_latent :]
        for s in range(n_samples):
            noise = eps[s, b]
            for l in range(n_latent):
                total = mu[l] + sigma[b, l] * noise[l]
                row = below[l * (l - 1) // 2 : l * (l + 1) // 2]
                for k in range(l):
                    total += row[k] * noise[k]
                z[s, b, l] = total


def _clip_rows(posterior, logvar):
    low, high, n_latent = logvar.dtype.type(LOGVAR_MIN), logvar.dtype.type(LOGVAR_MAX), logvar.shape[1]
    for b in range(len(logvar)):
        raw = posterior[b, n_latent : 2 * n_latent]
        for l in range(n_latent):
            logvar[b, l] = high if raw[l].real > LOGVAR_MAX else (low if raw[l].real < LOGVAR_MIN else raw[l])


def _clip_gradient(posterior, dposterior, n_latent):
    """0 for the log-variances that were clipped."""
    for b in range(len(posterior)):
        for l in range(n_latent, 2 * n_latent):
            raw = posterior[b, l].real
            if raw > LOGVAR_MAX or raw < LOGVAR_MIN:
                dposterior[b, l] = 0  # (CLIP)


clip_rows, sample_rows, clip_gradient = jit(_clip_rows), jit(_sample_rows), jit(_clip_gradient)


def _full_latent_rows_forward(posterior, eps, z, kl, sigma, variance_minus_1):
    n_latent, half = kl.shape[1], kl.dtype.type(0.5)
    logvar = np.empty_like(kl)
    clip_rows(posterior, logvar)
    for b in range(len(kl)):
        mu, below = posterior[b, :n_latent], posterior[b, 2 * n_latent :]
        for l in range(n_latent):
            sigma[b, l] = exp(half * logvar[b, l])
            variance_minus_1[b, l] = expm1(logvar[b, l])
            kl[b, l] = half * (mu[l] * mu[l] + variance_minus_1[b, l] - logvar[b, l])
        for l in range(n_latent):
            squares, row = kl.dtype.type(0), below[l * (l - 1) // 2 : l * (l + 1) // 2]
            for k in range(l):
                squares += row[k] * row[k]
            kl[b, l] += half * squares
    sample_rows(posterior, sigma, eps, z)


def _full_latent_rows_backward(dz, dkl, posterior, eps, sigma, variance_minus_1, dposterior):
    n_samples, n_rows, n_latent = eps.shape
    half = dposterior.dtype.type(0.5)
    for b in range(n_rows):
        below, dbelow = posterior[b, 2 * n_latent :], dposterior[b, 2 * n_latent :]
        for l in range(n_latent):
            dposterior[b, l] = dkl[b, l] * posterior[b, l]  # (FULL-KL-mu)
            dposterior[b, n_latent + l] = dkl[b, l] * (half * variance_minus_1[b, l])  # (FULL-KL-factor) at l = k
            for i in range(l * (l - 1) // 2, l * (l + 1) // 2):
                dbelow[i] = dkl[b, l] * below[i]  # (FULL-KL-factor)
        for s in range(n_samples):
            add_sample_gradient(dz[s, b], eps[s, b], sigma[b], dposterior[b])
    clip_gradient(posterior, dposterior, n_latent)


def _add_sample_gradient(dz, eps, sigma, dposterior):
    """Add what one sample of one row gives through z."""
    n_latent, half = len(dz), dposterior.dtype.type(0.5)
    dbelow = dposterior[2 * n_latent :]
    for l in range(n_latent):
        dposterior[l] += dz[l]  # (FULL-Z-mu)
        dposterior[n_latent + l] += dz[l] * eps[l] * (half * sigma[l])  # (FULL-Z-factor) at l = k, (FACTOR-logvar)
        row = dbelow[l * (l - 1) // 2 : l * (l + 1) // 2]
        for k in range(l):
            row[k] += dz[l] * eps[k]  # (FULL-Z-factor)


add_sample_gradient = jit(_add_sample_gradient)


def _full_latent_sampled_rows_forward(posterior, eps, z, kl, sigma):
    n_samples, n_rows, n_latent = eps.shape
    half, logvar = kl.dtype.type(0.5), np.empty_like(sigma)
    clip_rows(posterior, logvar)
    for b in range(n_rows):
        for l in range(n_latent):
            sigma[b, l] = exp(half * logvar[b, l])
    sample_rows(posterior, sigma, eps, z)
    for s in range(n_samples):
        for b in range(n_rows):
            for l in range(n_latent):
                kl[s, b, l] = half * (z[s, b, l] * z[s, b, l] - eps[s, b, l] * eps[s, b, l] - logvar[b, l])


def _full_latent_sampled_rows_backward(dz, dkl, posterior, eps, z, sigma, dposterior):
    n_samples, n_rows, n_latent = eps.shape
    half, dz_total = dposterior.dtype.type(0.5), np.empty(n_latent, dposterior.dtype)
    dposterior[:] = 0
    for b in range(n_rows):
        for s in range(n_samples):
            for l in range(n_latent):
                dz_total[l] = dz[s, b, l] + dkl[s, b, l] * z[s, b, l]  # (FULL-SAMPLED-z)
                dposterior[b, n_latent + l] -= half * dkl[s, b, l]  # (FULL-SAMPLED-factor), (FACTOR-logvar)
            add_sample_gradient(dz_total, eps[s, b], sigma[b], dposterior[b])
    clip_gradient(posterior, dposterior, n_latent)


full_latent_rows_forward = jit(_full_latent_rows_forward)
full_latent_rows_backward = jit(_full_latent_rows_backward)
full_latent_sampled_rows_forward = jit(_full_latent_sampled_rows_forward)
full_latent_sampled_rows_backward = jit(_full_latent_sampled_rows_backward)
