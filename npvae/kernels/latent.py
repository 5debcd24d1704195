"""Compiled twins of `latent_forward` and `latent_backward` in `npvae.latent`: clip, sample and KL in one pass."""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, expm1
from npvae.latent import LOGVAR_MAX, LOGVAR_MIN


def latent_forward(posterior, eps):
    """`npvae.latent.latent_forward`."""
    samples = eps.reshape(-1, *eps.shape[-2:])  # (S, B, L)
    z = np.empty(samples.shape, posterior.dtype)
    kl, half_sigma, variance_minus_1 = (np.empty(eps.shape[-2:], posterior.dtype) for _ in range(3))
    n_clipped = _latent_forward(posterior, samples, z, kl, half_sigma, variance_minus_1)
    return (z.reshape(eps.shape), kl, n_clipped), (posterior, samples, half_sigma, variance_minus_1)


def latent_backward(dz, dkl, cache):
    """`npvae.latent.latent_backward`."""
    posterior, samples, half_sigma, variance_minus_1 = cache
    dposterior = np.empty_like(posterior)
    _latent_backward(dz.reshape(samples.shape), dkl, posterior, samples, half_sigma, variance_minus_1, dposterior)
    return dposterior


def _latent_rows_forward(posterior, eps, z, kl, half_sigma, variance_minus_1):
    n_samples, n_rows, n_latent = eps.shape
    low, high = kl.dtype.type(LOGVAR_MIN), kl.dtype.type(LOGVAR_MAX)
    half = kl.dtype.type(0.5)
    n_clipped = 0
    for b in range(n_rows):
        for l in range(n_latent):
            mu, raw = posterior[b, l], posterior[b, n_latent + l]
            above, below = raw.real > LOGVAR_MAX, raw.real < LOGVAR_MIN
            logvar = high if above else (low if below else raw)
            n_clipped += above or below
            sigma = exp(half * logvar)
            half_sigma[b, l] = half * sigma
            variance_minus_1[b, l] = expm1(logvar)
            kl[b, l] = half * (mu * mu + variance_minus_1[b, l] - logvar)
            for s in range(n_samples):
                z[s, b, l] = mu + sigma * eps[s, b, l]
    return n_clipped


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


_latent_forward = jit(_latent_rows_forward)
_latent_backward = jit(_latent_rows_backward)
