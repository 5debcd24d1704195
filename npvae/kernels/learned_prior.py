"""Compiled twins of `npvae.ops.learned_prior`: clip, sample and KL of two Gaussians, or the divergence of each sample."""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, expm1
from npvae.kernels.full_posterior import clip_rows
from npvae.ops.latent import LOGVAR_MAX, LOGVAR_MIN


def prior_latent_forward(posterior, prior, eps):
    """`npvae.ops.learned_prior.prior_latent_forward`."""
    samples = eps.reshape(-1, *eps.shape[-2:])  # (S, B, L)
    dtype = np.result_type(posterior, prior)  # in a complex step of the prior, it alone is complex
    z = np.empty(samples.shape, dtype)
    kl, half_sigma, slope, ratio_minus_1 = (np.empty(eps.shape[-2:], dtype) for _ in range(4))
    prior_latent_rows_forward(posterior, prior, samples, z, kl, half_sigma, slope, ratio_minus_1)
    return (z.reshape(eps.shape), kl), (posterior, prior, samples, half_sigma, slope, ratio_minus_1)


def prior_latent_backward(dz, dkl, cache):
    """`npvae.ops.learned_prior.prior_latent_backward`."""
    posterior, prior, samples, half_sigma, slope, ratio_minus_1 = cache
    dz, dposterior, dprior = dz.reshape(samples.shape), np.empty_like(posterior), np.empty_like(prior)
    prior_latent_rows_backward(dz, dkl, posterior, prior, samples, half_sigma, slope, ratio_minus_1, dposterior, dprior)
    return dposterior, dprior


def prior_latent_sampled_forward(posterior, prior, eps):
    """`npvae.ops.learned_prior.prior_latent_sampled_forward`."""
    dtype = np.result_type(posterior, prior)  # in a complex step of the prior, it alone is complex
    z, kl = np.empty(eps.shape, dtype), np.empty(eps.shape, dtype)
    half_sigma, inverse_sigma = (np.empty(eps.shape[1:], dtype) for _ in range(2))
    prior_latent_sampled_rows_forward(posterior, prior, eps, z, kl, half_sigma, inverse_sigma)
    return (z, kl), (posterior, prior, eps, z, half_sigma, inverse_sigma)


def prior_latent_sampled_backward(dz, dkl, cache):
    """`npvae.ops.learned_prior.prior_latent_sampled_backward`."""
    posterior, prior, eps, z, half_sigma, inverse_sigma = cache
    dposterior, dprior = np.empty_like(posterior), np.empty_like(prior)
    prior_latent_sampled_rows_backward(dz, dkl, posterior, prior, eps, z, half_sigma, inverse_sigma, dposterior, dprior)
    return dposterior, dprior


def _prior_latent_rows_forward(posterior, prior, eps, z, kl, half_sigma, slope, ratio_minus_1):
    """Fills z (S, B, L), kl (B, L), and for the backward half_sigma = σ_q/2, slope = Δ e^−logvar_p, e^ρ − 1, all (B, L)."""
    n_samples, n_rows, n_latent = eps.shape
    half = kl.dtype.type(0.5)
    logvar_q, logvar_p = np.empty_like(kl), np.empty_like(kl)
    clip_rows(posterior, logvar_q)
    clip_rows(prior, logvar_p)
    for b in range(n_rows):  # each loop over l apart, here and in the backward, so that LLVM vectorises them
        for l in range(n_latent):
            half_sigma[b, l] = half * exp(half * logvar_q[b, l])
        for l in range(n_latent):
            delta, log_ratio = posterior[b, l] - prior[b, l], logvar_q[b, l] - logvar_p[b, l]
            slope[b, l] = delta * exp(-logvar_p[b, l])
            ratio_minus_1[b, l] = expm1(log_ratio)
            kl[b, l] = half * (delta * slope[b, l] + ratio_minus_1[b, l] - log_ratio)
        for s in range(n_samples):
            for l in range(n_latent):
                z[s, b, l] = posterior[b, l] + (half_sigma[b, l] + half_sigma[b, l]) * eps[s, b, l]


def _prior_latent_rows_backward(dz, dkl, posterior, prior, eps, half_sigma, slope, ratio_minus_1, dposterior, dprior):
    n_samples, n_rows, n_latent = eps.shape
    zero, half = dposterior.dtype.type(0), dposterior.dtype.type(0.5)
    for b in range(n_rows):
        for l in range(n_latent):
            dmu_z, dlogvar_z = zero, zero
            for s in range(n_samples):
                dmu_z += dz[s, b, l]  # (Z-mu)
                dlogvar_z += dz[s, b, l] * eps[s, b, l]
            dlogvar_z *= half_sigma[b, l]  # (Z-logvar)
            dmu_kl = dkl[b, l] * slope[b, l]  # (KL-pair-mu_q)
            dlogvar_kl = dkl[b, l] * (half * ratio_minus_1[b, l])  # (KL-pair-logvar_q)
            raw = posterior[b, n_latent + l].real
            clipped = raw > LOGVAR_MAX or raw < LOGVAR_MIN
            dposterior[b, l] = dmu_z + dmu_kl
            dposterior[b, n_latent + l] = zero if clipped else dlogvar_z + dlogvar_kl  # (CLIP)
        for l in range(n_latent):
            delta = posterior[b, l] - prior[b, l]
            dlogvar = -dkl[b, l] * (half * (delta * slope[b, l] + ratio_minus_1[b, l]))  # (KL-pair-logvar_p)
            raw = prior[b, n_latent + l].real
            clipped = raw > LOGVAR_MAX or raw < LOGVAR_MIN
            dprior[b, l] = -dkl[b, l] * slope[b, l]  # (KL-pair-mu_p)
            dprior[b, n_latent + l] = zero if clipped else dlogvar  # (CLIP)


def _prior_latent_sampled_rows_forward(posterior, prior, eps, z, kl, half_sigma, inverse_sigma):
    """Fills z and kl (S, B, L), and for the backward half_sigma = σ_q/2 and inverse_sigma = 1/σ_p, both (B, L)."""
    n_samples, n_rows, n_latent = eps.shape
    half = kl.dtype.type(0.5)
    logvar_q, logvar_p = np.empty_like(half_sigma), np.empty_like(half_sigma)
    clip_rows(posterior, logvar_q)
    clip_rows(prior, logvar_p)
    for b in range(n_rows):
        mu_q, mu_p = posterior[b, :n_latent], prior[b, :n_latent]
        for l in range(n_latent):
            half_sigma[b, l] = half * exp(half * logvar_q[b, l])
        for l in range(n_latent):
            inverse_sigma[b, l] = exp(-half * logvar_p[b, l])
        for s in range(n_samples):
            for l in range(n_latent):
                noise, sample = eps[s, b, l], mu_q[l] + (half_sigma[b, l] + half_sigma[b, l]) * eps[s, b, l]
                u = (sample - mu_p[l]) * inverse_sigma[b, l]
                z[s, b, l] = sample
                kl[s, b, l] = half * (u * u - noise * noise + (logvar_p[b, l] - logvar_q[b, l]))


def _prior_latent_sampled_rows_backward(dz, dkl, posterior, prior, eps, z, half_sigma, inverse_sigma, dposterior, dprior):
    n_samples, n_rows, n_latent = eps.shape
    zero, one, half = dposterior.dtype.type(0), dposterior.dtype.type(1), dposterior.dtype.type(0.5)
    for b in range(n_rows):
        for l in range(n_latent):
            dmu, dlogvar_z, dlogvar_kl = zero, zero, zero
            for s in range(n_samples):
                u = (z[s, b, l] - prior[b, l]) * inverse_sigma[b, l]
                dz_total = dz[s, b, l] + dkl[s, b, l] * u * inverse_sigma[b, l]  # (PAIR-SAMPLED-z)
                dmu += dz_total  # (Z-mu)
                dlogvar_z += dz_total * eps[s, b, l]
                dlogvar_kl -= half * dkl[s, b, l]  # (PAIR-SAMPLED-logvar_q)
            dlogvar_z *= half_sigma[b, l]  # (Z-logvar)
            raw = posterior[b, n_latent + l].real
            clipped = raw > LOGVAR_MAX or raw < LOGVAR_MIN
            dposterior[b, l] = dmu
            dposterior[b, n_latent + l] = zero if clipped else dlogvar_z + dlogvar_kl  # (CLIP)
        for l in range(n_latent):
            dmu, dlogvar = zero, zero
            for s in range(n_samples):
                u = (z[s, b, l] - prior[b, l]) * inverse_sigma[b, l]
                dmu -= dkl[s, b, l] * u * inverse_sigma[b, l]  # (PAIR-SAMPLED-mu_p)
                dlogvar += half * (dkl[s, b, l] * (one - u * u))  # (PAIR-SAMPLED-logvar_p)
            raw = prior[b, n_latent + l].real
            clipped = raw > LOGVAR_MAX or raw < LOGVAR_MIN
            dprior[b, l] = dmu
            dprior[b, n_latent + l] = zero if clipped else dlogvar  # (CLIP)


prior_latent_rows_forward = jit(_prior_latent_rows_forward)
prior_latent_rows_backward = jit(_prior_latent_rows_backward)
prior_latent_sampled_rows_forward = jit(_prior_latent_sampled_rows_forward)
prior_latent_sampled_rows_backward = jit(_prior_latent_sampled_rows_backward)
