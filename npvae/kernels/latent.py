"""Compiled twins of `npvae.ops.latent`: clip, sample and KL, or the divergence of each sample, in one pass over the rows."""

import numpy as np

from npvae.kernels.compile import inlined, jit
from npvae.kernels.elementary import exp, expm1
from npvae.ops.latent import LOGVAR_MAX, LOGVAR_MIN


def latent_forward(posterior, eps):
    """`npvae.ops.latent.latent_forward`."""
    samples = eps.reshape(-1, *eps.shape[-2:])  # (S, B, L)
    z = np.empty(samples.shape, posterior.dtype)
    kl, half_sigma, variance_minus_1 = (np.empty(eps.shape[-2:], posterior.dtype) for _ in range(3))
    latent_rows_forward(posterior, samples, z, kl, half_sigma, variance_minus_1)
    return (z.reshape(eps.shape), kl), (posterior, samples, half_sigma, variance_minus_1)


def latent_backward(dz, dkl, cache):
    """`npvae.ops.latent.latent_backward`."""
    posterior, samples, half_sigma, variance_minus_1 = cache
    dposterior = np.empty_like(posterior)
    latent_rows_backward(dz.reshape(samples.shape), dkl, posterior, samples, half_sigma, variance_minus_1, dposterior)
    return dposterior


def latent_sampled_forward(posterior, eps):
    """`npvae.ops.latent.latent_sampled_forward`."""
    z, kl = np.empty(eps.shape, posterior.dtype), np.empty(eps.shape, posterior.dtype)
    half_sigma = np.empty(eps.shape[1:], posterior.dtype)
    latent_sampled_rows_forward(posterior, eps, z, kl, half_sigma)
    return (z, kl), (posterior, eps, z, half_sigma)


def latent_sampled_backward(dz, dkl, cache):
    """`npvae.ops.latent.latent_sampled_backward`."""
    posterior, eps, z, half_sigma = cache
    dposterior = np.empty_like(posterior)
    latent_sampled_rows_backward(dz, dkl, posterior, eps, z, half_sigma, dposterior)
    return dposterior


def _clipped_share(posterior):
    """`npvae.ops.latent.clipped_share`."""
    n_rows, n_latent = len(posterior), posterior.shape[1] // 2
    n_clipped = 0
    for b in range(n_rows):
        for l in range(n_latent):
            raw = posterior[b, n_latent + l].real
            n_clipped += raw > LOGVAR_MAX or raw < LOGVAR_MIN
    return n_clipped / (n_rows * n_latent)


def _latent_rows_forward(posterior, eps, z, kl, half_sigma, variance_minus_1):
    n_samples, n_rows, n_latent = eps.shape
    low, high = kl.dtype.type(LOGVAR_MIN), kl.dtype.type(LOGVAR_MAX)
    half = kl.dtype.type(0.5)
    for b in range(n_rows):  # each loop over l apart, so that LLVM vectorises them
        mu, raw = posterior[b, :n_latent], posterior[b, n_latent:]
        for l in range(n_latent):
            logvar = high if raw[l].real > LOGVAR_MAX else (low if raw[l].real < LOGVAR_MIN else raw[l])
            half_sigma[b, l] = half * exp(half * logvar)
            variance_minus_1[b, l] = expm1(logvar)
            kl[b, l] = half * (mu[l] * mu[l] + variance_minus_1[b, l] - logvar)
        for s in range(n_samples):
            for l in range(n_latent):
                z[s, b, l] = mu[l] + (half_sigma[b, l] + half_sigma[b, l]) * eps[s, b, l]


def _latent_rows_backward(dz, dkl, posterior, eps, half_sigma, variance_minus_1, dposterior):
    n_samples, n_rows, n_latent = eps.shape
    zero, half = dposterior.dtype.type(0), dposterior.dtype.type(0.5)
    for b in range(n_rows):
        for l in range(n_latent):
            dmu_z, dlogvar_z = zero, zero
            for s in range(n_samples):
                dmu_z += dz[s, b, l]  # (Z-mu)
                dlogvar_z += dz[s, b, l] * eps[s, b, l]
            dlogvar_z *= half_sigma[b, l]  # (Z-logvar)
            dmu_kl = dkl[b, l] * posterior[b, l]  # (KL-mu)
            dlogvar_kl = dkl[b, l] * (half * variance_minus_1[b, l])  # (KL-logvar)
            raw = posterior[b, n_latent + l].real
            clipped = raw > LOGVAR_MAX or raw < LOGVAR_MIN
            dposterior[b, l] = dmu_z + dmu_kl
            dposterior[b, n_latent + l] = zero if clipped else dlogvar_z + dlogvar_kl  # (CLIP)


def _latent_sampled_rows_forward(posterior, eps, z, kl, half_sigma):
    n_samples, n_rows, n_latent = eps.shape
    low, high = kl.dtype.type(LOGVAR_MIN), kl.dtype.type(LOGVAR_MAX)
    half = kl.dtype.type(0.5)
    logvar = np.empty(n_latent, kl.dtype)
    for b in range(n_rows):
        mu, raw = posterior[b, :n_latent], posterior[b, n_latent:]
        for l in range(n_latent):
            logvar[l] = high if raw[l].real > LOGVAR_MAX else (low if raw[l].real < LOGVAR_MIN else raw[l])
            half_sigma[b, l] = half * exp(half * logvar[l])
        for s in range(n_samples):
            for l in range(n_latent):
                noise, sample = eps[s, b, l], mu[l] + (half_sigma[b, l] + half_sigma[b, l]) * eps[s, b, l]
                z[s, b, l] = sample
                kl[s, b, l] = half * (sample * sample - noise * noise - logvar[l])


def _latent_sampled_rows_backward(dz, dkl, posterior, eps, z, half_sigma, dposterior):
    n_samples, n_rows, n_latent = eps.shape
    zero, half = dposterior.dtype.type(0), dposterior.dtype.type(0.5)
    for b in range(n_rows):
        for l in range(n_latent):
            dmu, dlogvar_z, dlogvar_kl = zero, zero, zero
            for s in range(n_samples):
                dz_total = dz[s, b, l] + dkl[s, b, l] * z[s, b, l]  # (SAMPLED-z)
                dmu += dz_total  # (Z-mu)
                dlogvar_z += dz_total * eps[s, b, l]
                dlogvar_kl -= half * dkl[s, b, l]  # (SAMPLED-logvar)
            dlogvar_z *= half_sigma[b, l]  # (Z-logvar)
            raw = posterior[b, n_latent + l].real
            clipped = raw > LOGVAR_MAX or raw < LOGVAR_MIN
            dposterior[b, l] = dmu
            dposterior[b, n_latent + l] = zero if clipped else dlogvar_z + dlogvar_kl  # (CLIP)


clipped_share = inlined(_clipped_share)
latent_rows_forward = jit(_latent_rows_forward)
latent_rows_backward = jit(_latent_rows_backward)
latent_sampled_rows_forward = jit(_latent_sampled_rows_forward)
latent_sampled_rows_backward = jit(_latent_sampled_rows_backward)
