"""The latent variable: the approximate posterior q(z|x), its reparameterised sample, and its divergence from the prior.

q(z|x) = N(mu, diag(σ²)) with logvar = log σ², and the prior is p(z) = N(0, I). See `npvae.ops.layers` for how to read a pair.

Shapes: B batch, L latent, S samples per datum; eps and z are (B, L) or (S, B, L).
"""

import numpy as np

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0  # σ from 3e-7 to 2e4: wide enough for any posterior, narrow enough for float32


def clip_logvar_forward(raw):
    """Clip the network's raw log-variance to [−30, 20], so that neither σ nor the KL can overflow: any shape.

    (CLIP)  dlogvar/draw = 1 inside and on the bounds, 0 beyond them.
    """
    above, below = raw.real > LOGVAR_MAX, raw.real < LOGVAR_MIN
    logvar = np.where(above, LOGVAR_MAX, np.where(below, LOGVAR_MIN, raw))
    return logvar, ~(above | below)


def clip_logvar_backward(dlogvar, cache):
    """Backward of logvar = clip(raw)."""
    inside = cache
    return np.where(inside, dlogvar, 0)  # (CLIP)


def reparameterize_forward(mu, logvar, eps):
    """Sample q(z|x) as a differentiable function of its parameters: z = mu + σ eps with σ = e^(logvar/2), eps ~ N(0, I).

    mu, logvar (B, L); eps (B, L) or (S, B, L) -> z of eps' shape. Kingma & Welling 2013, equation 10; in the lectures
    (2025, "Computing the gradients") z = μ(X) + Σ^½(X) ε.

    Each datum's mu and logvar reach all of its S samples, so that
        (Z-mu)      dmu     = Σ_s dz_s ∂z_s/∂mu     = Σ_s dz_s
        (Z-logvar)  dlogvar = Σ_s dz_s ∂z_s/∂logvar = Σ_s dz_s eps_s σ/2
    """
    sigma = np.exp(0.5 * logvar)  # (B, L)
    z = mu + sigma * eps  # (B, L) + (B, L) * (S, B, L) -> (S, B, L)
    return z, (sigma, eps)


def reparameterize_backward(dz, cache):
    """Backward of z = mu + e^(logvar/2) eps: dmu, dlogvar (B, L)."""
    sigma, eps = cache
    samples = tuple(range(dz.ndim - 2))  # the axis of samples: (0,) for (S, B, L), none for (B, L)
    dmu = dz.sum(axis=samples)  # (Z-mu) (S, B, L) -> (B, L)
    dlogvar = (dz * eps).sum(axis=samples) * (0.5 * sigma)  # (Z-logvar) (S, B, L) -> (B, L)
    return dmu, dlogvar


def gaussian_kl_forward(mu, logvar):
    """KL(N(mu, σ²) ‖ N(0, 1)) = ½ (mu² + σ² − 1 − log σ²) of each latent dimension, in nats.

    mu, logvar (B, L) -> kl (B, L); the sum over L is the divergence of the diagonal Gaussians. Kingma & Welling 2013,
    appendix B; lectures (2025), "Simplification". σ² − 1 is written expm1(logvar), which keeps its digits near logvar = 0.

    Term by term,
        (KL-mu)      dmu     = dkl ∂kl/∂mu     = dkl mu
        (KL-logvar)  dlogvar = dkl ∂kl/∂logvar = dkl ½ (e^logvar − 1)
    """
    variance_minus_1 = np.expm1(logvar)
    kl = 0.5 * (mu * mu + variance_minus_1 - logvar)
    return kl, (mu, variance_minus_1)


def gaussian_kl_backward(dkl, cache):
    """Backward of kl = ½ (mu² + expm1(logvar) − logvar): dmu, dlogvar (B, L)."""
    mu, variance_minus_1 = cache
    dmu = dkl * mu  # (KL-mu)
    dlogvar = dkl * (0.5 * variance_minus_1)  # (KL-logvar)
    return dmu, dlogvar


def sampled_kl_forward(z, logvar, eps):
    """log q(z|x)/p(z) of samples z = mu + σ eps, in nats: of each latent dimension, whose mean over eps is the KL above.

    z, eps (S, B, L), logvar (B, L) -> kl (S, B, L). With log q = −½ (eps² + logvar + log 2π) and log p = −½ (z² + log 2π) the
    constants cancel: ½ (z² − eps² − logvar). The importance weights of `bounds.iwae_forward` need it sample by sample.

        (SAMPLED-z)       dz      = dkl z
        (SAMPLED-logvar)  dlogvar = −½ Σ_s dkl_s
    """
    kl = 0.5 * (z * z - eps * eps - logvar)  # (S, B, L)
    return kl, z


def sampled_kl_backward(dkl, cache):
    """Backward of kl = ½ (z² − eps² − logvar): dz (S, B, L), dlogvar (B, L)."""
    z = cache
    dz = dkl * z  # (SAMPLED-z)
    dlogvar = -0.5 * dkl.sum(axis=0)  # (SAMPLED-logvar) (S, B, L) -> (B, L)
    return dz, dlogvar


def posterior_forward(posterior):
    """The encoder's last output (B, 2L) as mu and logvar, (B, L) each: the first L columns, and the last L clipped."""
    n_latent = posterior.shape[1] // 2
    mu, raw = posterior[:, :n_latent], posterior[:, n_latent:]  # (B, 2L) -> (B, L), (B, L)
    logvar, inside = clip_logvar_forward(raw)
    return (mu, logvar), inside


def posterior_backward(dmu, dlogvar, cache):
    """Backward of `posterior_forward`: dmu, dlogvar (B, L) -> dposterior (B, 2L)."""
    draw = clip_logvar_backward(dlogvar, cache)
    return np.concatenate([dmu, draw], axis=1)  # (B, L), (B, L) -> (B, 2L)


def clipped_share(posterior):
    """The share of the raw log-variances in posterior (B, 2L) that lie beyond the bounds, 0 to 1: what training reports."""
    raw = posterior[:, posterior.shape[1] // 2 :].real
    return int(np.count_nonzero((raw > LOGVAR_MAX) | (raw < LOGVAR_MIN))) / raw.size


def latent_forward(posterior, eps):
    """From the encoder's output to the latent: split and clip, sample, and measure the divergence.

    posterior (B, 2L), eps (B, L) or (S, B, L) -> z of eps' shape, kl (B, L) in nats. Sampling and KL use the same clipped
    logvar. This is the composition that a back end may fuse.
    """
    (mu, logvar), inside = posterior_forward(posterior)  # (B, 2L) -> (B, L), (B, L)
    z, z_cache = reparameterize_forward(mu, logvar, eps)  # (B, L) -> (S, B, L)
    kl, kl_cache = gaussian_kl_forward(mu, logvar)
    return (z, kl), (inside, z_cache, kl_cache)


def latent_backward(dz, dkl, cache):
    """Backward of `latent_forward`: dz (S, B, L), dkl (B, L) -> dposterior (B, 2L)."""
    inside, z_cache, kl_cache = cache
    dmu_kl, dlogvar_kl = gaussian_kl_backward(dkl, kl_cache)
    dmu_z, dlogvar_z = reparameterize_backward(dz, z_cache)  # (S, B, L) -> (B, L)
    # The one place where the VAE is not a chain: mu and logvar feed both z and the KL, so each receives two gradients.
    dmu = dmu_z + dmu_kl
    dlogvar = dlogvar_z + dlogvar_kl
    return posterior_backward(dmu, dlogvar, inside)  # (B, L), (B, L) -> (B, 2L)


def latent_sampled_forward(posterior, eps):
    """As `latent_forward`, but with the divergence of each sample: posterior (B, 2L), eps (S, B, L) -> z, kl (S, B, L)."""
    (mu, logvar), inside = posterior_forward(posterior)  # (B, 2L) -> (B, L), (B, L)
    z, z_cache = reparameterize_forward(mu, logvar, eps)  # (B, L) -> (S, B, L)
    kl, kl_cache = sampled_kl_forward(z, logvar, eps)
    return (z, kl), (inside, z_cache, kl_cache)


def latent_sampled_backward(dz, dkl, cache):
    """Backward of `latent_sampled_forward`: dz, dkl (S, B, L) -> dposterior (B, 2L)."""
    inside, z_cache, kl_cache = cache
    dz_kl, dlogvar_kl = sampled_kl_backward(dkl, kl_cache)
    # Here z feeds both the decoder and the divergence, and logvar both z and the divergence.
    dmu, dlogvar_z = reparameterize_backward(dz + dz_kl, z_cache)  # (S, B, L) -> (B, L)
    dlogvar = dlogvar_z + dlogvar_kl
    return posterior_backward(dmu, dlogvar, inside)  # (B, L), (B, L) -> (B, 2L)
