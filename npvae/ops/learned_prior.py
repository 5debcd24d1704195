"""The latent variable against a prior that is a network's output too: p(z|c) = N(mu_p, diag(σ_p²)) in place of N(0, I).

The prior of a conditional VAE depends on the condition c (Sohn, Lee & Yan 2015). In a hierarchy of latent variables, the prior
of one level depends on the level above it. Here `prior` is what such a network gives for each row, mu_p and then the raw
logvar_p, just as `posterior` is mu_q and then the raw logvar_q. Both log-variances are clipped to the same bounds. The ops are
composed of pairs of `npvae.ops.latent` and `npvae.ops.gaussian_kl`, where the labels stand. Where prior is 0, p is N(0, I).

Shapes: B batch, L latent, S samples per datum; posterior and prior are (B, 2L), eps and z are (B, L) or (S, B, L).
"""

from npvae.ops.gaussian_kl import pair_kl_backward, pair_kl_forward, pair_sampled_kl_backward, pair_sampled_kl_forward
from npvae.ops.latent import posterior_backward, posterior_forward, reparameterize_backward, reparameterize_forward


def prior_latent_forward(posterior, prior, eps):
    """`latent.latent_forward` with the prior of each row: split and clip both, sample q, and measure its divergence from p.

    posterior, prior (B, 2L), eps (B, L) or (S, B, L) -> z of eps' shape, kl (B, L) = KL(q ‖ p) of each dimension, in nats.

    mu_q and logvar_q reach the loss through z and through kl, mu_p and logvar_p through kl alone. With Δ = mu_q − mu_p and
    ρ = logvar_q − logvar_p as in `gaussian_kl.pair_kl_forward`,

        dmu_q     = Σ_s dz_s + dkl Δ e^−logvar_p             by (Z-mu) and (KL-pair-mu_q)
        dlogvar_q = Σ_s dz_s eps_s σ_q/2 + dkl ½ (e^ρ − 1)   by (Z-logvar) and (KL-pair-logvar_q)
        dmu_p     = −dkl Δ e^−logvar_p                       by (KL-pair-mu_p)
        dlogvar_p = −dkl ½ (Δ² e^−logvar_p + e^ρ − 1)        by (KL-pair-logvar_p)

    and the raw log-variances that were clipped receive 0 by (CLIP).
    """
    (mu_q, logvar_q), posterior_inside = posterior_forward(posterior)  # (B, 2L) -> (B, L), (B, L)
    (mu_p, logvar_p), prior_inside = posterior_forward(prior)  # (B, 2L) -> (B, L), (B, L)
    z, z_cache = reparameterize_forward(mu_q, logvar_q, eps)  # (B, L) -> (S, B, L)
    kl, kl_cache = pair_kl_forward(mu_q, logvar_q, mu_p, logvar_p)
    return (z, kl), (posterior_inside, prior_inside, z_cache, kl_cache)


def prior_latent_backward(dz, dkl, cache):
    """Backward of `prior_latent_forward`: dz (S, B, L), dkl (B, L) -> dposterior, dprior (B, 2L)."""
    posterior_inside, prior_inside, z_cache, kl_cache = cache
    dmu_kl, dlogvar_kl, dmu_p, dlogvar_p = pair_kl_backward(dkl, kl_cache)
    dmu_z, dlogvar_z = reparameterize_backward(dz, z_cache)  # (S, B, L) -> (B, L)
    # As with the prior N(0, I), mu_q and logvar_q feed both z and the KL, so each receives two gradients. z does not depend on
    # the prior, which receives one.
    dmu_q = dmu_z + dmu_kl
    dlogvar_q = dlogvar_z + dlogvar_kl
    dposterior = posterior_backward(dmu_q, dlogvar_q, posterior_inside)  # (B, L), (B, L) -> (B, 2L)
    dprior = posterior_backward(dmu_p, dlogvar_p, prior_inside)  # (B, L), (B, L) -> (B, 2L)
    return dposterior, dprior


def prior_latent_sampled_forward(posterior, prior, eps):
    """As `prior_latent_forward`, but with the divergence of each sample: eps (S, B, L) -> z, kl (S, B, L).

    z_s reaches the loss through the decoder and through kl_s: in total it receives g_s = dz_s + dkl_s u_s/σ_p, the second term
    by (PAIR-SAMPLED-z), with u = (z − mu_p)/σ_p as in `gaussian_kl.pair_sampled_kl_forward`.

        dmu_q     = Σ_s g_s                              by (Z-mu)
        dlogvar_q = Σ_s g_s eps_s σ_q/2 − ½ Σ_s dkl_s    by (Z-logvar) and (PAIR-SAMPLED-logvar_q)
        dmu_p     = −Σ_s dkl_s u_s/σ_p                   by (PAIR-SAMPLED-mu_p)
        dlogvar_p = ½ Σ_s dkl_s (1 − u_s²)               by (PAIR-SAMPLED-logvar_p)
    """
    (mu_q, logvar_q), posterior_inside = posterior_forward(posterior)  # (B, 2L) -> (B, L), (B, L)
    (mu_p, logvar_p), prior_inside = posterior_forward(prior)  # (B, 2L) -> (B, L), (B, L)
    z, z_cache = reparameterize_forward(mu_q, logvar_q, eps)  # (B, L) -> (S, B, L)
    kl, kl_cache = pair_sampled_kl_forward(z, logvar_q, eps, mu_p, logvar_p)
    return (z, kl), (posterior_inside, prior_inside, z_cache, kl_cache)


def prior_latent_sampled_backward(dz, dkl, cache):
    """Backward of `prior_latent_sampled_forward`: dz, dkl (S, B, L) -> dposterior, dprior (B, 2L)."""
    posterior_inside, prior_inside, z_cache, kl_cache = cache
    dz_kl, dlogvar_kl, dmu_p, dlogvar_p = pair_sampled_kl_backward(dkl, kl_cache)
    # Here z feeds both the decoder and the divergence, and logvar_q both z and the divergence.
    dmu_q, dlogvar_z = reparameterize_backward(dz + dz_kl, z_cache)  # (S, B, L) -> (B, L)
    dlogvar_q = dlogvar_z + dlogvar_kl
    dposterior = posterior_backward(dmu_q, dlogvar_q, posterior_inside)  # (B, L), (B, L) -> (B, 2L)
    dprior = posterior_backward(dmu_p, dlogvar_p, prior_inside)  # (B, L), (B, L) -> (B, 2L)
    return dposterior, dprior
