"""The full-covariance posterior q(z|x) = N(mu, Σ): its Cholesky factor, its sample, and its divergence from the prior N(0, I).

The diagonal posterior of `npvae.ops.latent` has no correlations between latent dimensions. Here Σ is any positive definite
matrix. It is given by its Cholesky factor F, `factor` in the code: lower triangular, with a positive diagonal, and Σ = F Fᵀ.
Each Σ has exactly one such factor (Golub & Van Loan 2013, section 4.2). Then

    z = mu + F eps,  that is  z_l = mu_l + Σ_k<l F_lk eps_k + F_ll eps_l  with eps ~ N(0, I).

Row l says how z_l depends on the dimensions before it: given these, z_l has the variance F_ll². The encoder gives mu, then
logvar_l = log F_ll², then the entries below the diagonal. Where these are 0, it is the diagonal posterior of mu and logvar.
Kingma & Welling 2019, section 2.5; the general Σ(X) of the lectures (2025), "Setting up SGD".

Entries above the diagonal are 0: no function reads them, and their gradient is 0. See `npvae.ops.layers` for how to read a
pair. Shapes: B batch, L latent, S samples per datum; eps and z are (B, L) or (S, B, L), factor is (B, L, L).
"""

import math

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.latent import clip_logvar_backward, clip_logvar_forward


def full_posterior_width(n_latent):
    """How many numbers the encoder gives for L latent dimensions: mu, logvar, and what lies below the diagonal, L (L + 3)/2."""
    return n_latent * (n_latent + 3) // 2


def n_latent_of(width):
    """The L of which L (L + 3)/2 is the width."""
    return (math.isqrt(8 * width + 9) - 3) // 2


def factor_forward(logvar, below):
    """The Cholesky factor: e^(logvar/2) on the diagonal, below under it, row by row: F_10, F_20, F_21, F_30, ...

    logvar (B, L), below (B, L (L − 1)/2) -> factor (B, L, L).

        (FACTOR-logvar)  dlogvar_l  = dF_ll ∂F_ll/∂logvar_l = dF_ll F_ll/2
        (FACTOR-below)   dbelow_lk  = dF_lk for k < l
    """
    n_latent = logvar.shape[1]
    diagonal, lower = np.diag_indices(n_latent), np.tril_indices(n_latent, -1)
    factor = np.zeros((len(logvar), n_latent, n_latent), np.result_type(logvar, below))
    factor[:, *diagonal] = np.exp(0.5 * logvar)  # (B, L) -> the diagonal of (B, L, L)
    factor[:, *lower] = below  # (B, L (L − 1)/2) -> what is under it
    return factor, factor


def factor_backward(dfactor, cache):
    """Backward of the factor: dfactor (B, L, L) -> dlogvar (B, L), dbelow (B, L (L − 1)/2)."""
    factor = cache
    diagonal, lower = np.diag_indices(factor.shape[1]), np.tril_indices(factor.shape[1], -1)
    dlogvar = dfactor[:, *diagonal] * (0.5 * factor[:, *diagonal])  # (FACTOR-logvar)
    dbelow = dfactor[:, *lower]  # (FACTOR-below)
    return dlogvar, dbelow


def full_posterior_forward(posterior):
    """The encoder's last output (B, L (L + 3)/2) as mu (B, L) and factor (B, L, L).

    The first L columns are mu and the next L are logvar, clipped to [−30, 20] as in `npvae.ops.latent`: half of that for log
    F_ll, −15 to 10. The rest lies below the diagonal; like mu it is not clipped.
    """
    n_latent = n_latent_of(posterior.shape[1])
    mu, raw, below = np.split(posterior, [n_latent, 2 * n_latent], axis=1)  # -> (B, L), (B, L), (B, L (L − 1)/2)
    logvar, inside = clip_logvar_forward(raw)
    factor, factor_cache = factor_forward(logvar, below)
    return (mu, factor), (inside, factor_cache)


def full_posterior_backward(dmu, dfactor, cache):
    """Backward of `full_posterior_forward`: dmu (B, L), dfactor (B, L, L) -> dposterior (B, L (L + 3)/2)."""
    inside, factor_cache = cache
    dlogvar, dbelow = factor_backward(dfactor, factor_cache)
    draw = clip_logvar_backward(dlogvar, inside)
    return np.concatenate([dmu, draw, dbelow], axis=1)


def marginal_logvar(factor):
    """The log-variance of each z_l on its own, log Σ_ll = log Σ_k F_lk²: factor (B, L, L) -> (B, L)."""
    factor = np.tril(factor)
    return np.log((factor * factor).sum(axis=2))


def full_sample_forward(mu, factor, eps):
    """Sample q(z|x) as a differentiable function of its parameters: z = mu + F eps, eps ~ N(0, I).

    mu (B, L), factor (B, L, L), eps (B, L) or (S, B, L) -> z of eps' shape, of mean mu and covariance F E[eps epsᵀ] Fᵀ = F Fᵀ.
    Lectures (2025), "Computing the gradients": z = μ(X) + Σ^½(X) ε, where Σ^½ is any matrix with Σ^½ (Σ^½)ᵀ = Σ.

    As in `latent.reparameterize_forward`, mu and F reach all S samples:
        (FULL-Z-mu)      dmu     = Σ_s dz_s
        (FULL-Z-factor)  dF_lk   = Σ_s dz_sl ∂z_sl/∂F_lk = Σ_s dz_sl eps_sk for k ≤ l
    """
    z = mu + (np.tril(factor) @ eps[..., None])[..., 0]  # (B, L, L) @ (S, B, L, 1) -> (S, B, L)
    return z, eps


def full_sample_backward(dz, cache):
    """Backward of z = mu + F eps: dmu (B, L), dfactor (B, L, L)."""
    eps = cache.reshape(-1, *cache.shape[-2:])  # (S, B, L)
    dz = dz.reshape(eps.shape)
    dmu = dz.sum(axis=0)  # (FULL-Z-mu) (S, B, L) -> (B, L)
    dfactor = np.tril(np.einsum("sbl,sbk->blk", dz, eps))  # (FULL-Z-factor) (S, B, L), (S, B, L) -> (B, L, L)
    return dmu, dfactor


def full_kl_forward(mu, factor):
    """KL(N(mu, F Fᵀ) ‖ N(0, I)) in nats, in parts that add up to it: one for each latent dimension.

    mu (B, L), factor (B, L, L) -> kl (B, L). Lectures (2025), "Simplification": ½ (tr Σ + μᵀμ − k − log det Σ), k the number of
    dimensions. With Σ = F Fᵀ the trace is Σ_lk F_lk², and the determinant is Π_l F_ll². So the divergence is the sum over l of

        kl_l = ½ (mu_l² + Σ_k<l F_lk² + F_ll² − 1) − log F_ll

    kl_l is the mean of KL(q(z_l|z_<l) ‖ N(0, 1)) over the dimensions z_<l before l: q(z_l|z_<l) has the variance F_ll² and the
    mean mu_l + Σ_k<l F_lk eps_k, whose mean square is mu_l² + Σ_k<l F_lk². That they add up is the chain rule of the divergence
    (Cover & Thomas 2006, section 2.5). No part is negative. The parts depend on the order of the dimensions, their sum does
    not.

        (FULL-KL-mu)      dmu_l  = dkl_l mu_l
        (FULL-KL-factor)  dF_lk  = dkl_l F_lk for k < l,  dF_ll = dkl_l (F_ll − 1/F_ll) = dkl_l (F_ll² − 1)/F_ll

    F_ll² − 1 is written (F_ll − 1) (F_ll + 1), which keeps its digits near F_ll = 1.
    """
    diagonal, below = np.diagonal(factor, axis1=1, axis2=2), np.tril(factor, -1)  # (B, L), (B, L, L)
    variance_minus_1 = (diagonal - 1) * (diagonal + 1)
    squares = (below * below).sum(axis=2, dtype=accumulator(below)).astype(below.dtype)  # (B, L, L) -> (B, L)
    kl = 0.5 * (mu * mu + squares + variance_minus_1) - np.log(diagonal)
    return kl, (mu, below, diagonal, variance_minus_1)


def full_kl_backward(dkl, cache):
    """Backward of `full_kl_forward`: dkl (B, L) -> dmu (B, L), dfactor (B, L, L)."""
    mu, below, diagonal, variance_minus_1 = cache
    dmu = dkl * mu  # (FULL-KL-mu)
    on_diagonal = np.eye(mu.shape[1], dtype=bool)
    to_diagonal = variance_minus_1 / diagonal
    dfactor = dkl[:, :, None] * np.where(on_diagonal, to_diagonal[:, :, None], below)  # (FULL-KL-factor) -> (B, L, L)
    return dmu, dfactor


def full_sampled_kl_forward(z, factor, eps):
    """log q(z|x)/p(z) of samples z = mu + F eps, in nats, in parts whose means over eps are those of `full_kl_forward`.

    z, eps (S, B, L), factor (B, L, L) -> kl (S, B, L). The density of z is that of eps over |det ∂z/∂eps| = Π_l F_ll, so that
    log q = Σ_l −½ (eps_l² + log 2π) − log F_ll, and kl_l = ½ (z_l² − eps_l²) − log F_ll. The importance weights of
    `bounds.iwae_forward` need it sample by sample.

        (FULL-SAMPLED-z)       dz     = dkl z
        (FULL-SAMPLED-factor)  dF_ll  = −Σ_s dkl_sl/F_ll, 0 off the diagonal
    """
    diagonal = np.diagonal(factor, axis1=1, axis2=2)  # (B, L)
    kl = 0.5 * (z * z - eps * eps) - np.log(diagonal)  # (S, B, L)
    return kl, (z, diagonal)


def full_sampled_kl_backward(dkl, cache):
    """Backward of `full_sampled_kl_forward`: dz (S, B, L), dfactor (B, L, L)."""
    z, diagonal = cache
    dz = dkl * z  # (FULL-SAMPLED-z)
    to_diagonal = -dkl.sum(axis=0) / diagonal  # (S, B, L) -> (B, L)
    dfactor = np.eye(z.shape[2], dtype=z.dtype) * to_diagonal[:, :, None]  # (FULL-SAMPLED-factor) -> (B, L, L)
    return dz, dfactor


def full_latent_forward(posterior, eps):
    """`latent.latent_forward` with the full posterior: posterior (B, L (L + 3)/2), eps (B, L) or (S, B, L) -> z of eps' shape,
    kl (B, L) in nats."""
    (mu, factor), posterior_cache = full_posterior_forward(posterior)  # (B, L (L + 3)/2) -> (B, L), (B, L, L)
    z, z_cache = full_sample_forward(mu, factor, eps)  # (B, L), (B, L, L) -> (S, B, L)
    kl, kl_cache = full_kl_forward(mu, factor)
    return (z, kl), (posterior_cache, z_cache, kl_cache)


def full_latent_backward(dz, dkl, cache):
    """Backward of `full_latent_forward`: dz (S, B, L), dkl (B, L) -> dposterior (B, L (L + 3)/2)."""
    posterior_cache, z_cache, kl_cache = cache
    dmu_kl, dfactor_kl = full_kl_backward(dkl, kl_cache)
    dmu_z, dfactor_z = full_sample_backward(dz, z_cache)  # (S, B, L) -> (B, L), (B, L, L)
    # As for the diagonal posterior, mu and factor feed both z and the KL, so each receives two gradients.
    dmu = dmu_z + dmu_kl
    dfactor = dfactor_z + dfactor_kl
    return full_posterior_backward(dmu, dfactor, posterior_cache)  # (B, L), (B, L, L) -> (B, L (L + 3)/2)


def full_latent_sampled_forward(posterior, eps):
    """As `full_latent_forward`, but with the divergence of each sample: eps (S, B, L) -> z, kl (S, B, L)."""
    (mu, factor), posterior_cache = full_posterior_forward(posterior)  # (B, L (L + 3)/2) -> (B, L), (B, L, L)
    z, z_cache = full_sample_forward(mu, factor, eps)  # (B, L), (B, L, L) -> (S, B, L)
    kl, kl_cache = full_sampled_kl_forward(z, factor, eps)
    return (z, kl), (posterior_cache, z_cache, kl_cache)


def full_latent_sampled_backward(dz, dkl, cache):
    """Backward of `full_latent_sampled_forward`: dz, dkl (S, B, L) -> dposterior (B, L (L + 3)/2)."""
    posterior_cache, z_cache, kl_cache = cache
    dz_kl, dfactor_kl = full_sampled_kl_backward(dkl, kl_cache)
    # Here z feeds both the decoder and the divergence, and factor both z and the divergence.
    dmu, dfactor_z = full_sample_backward(dz + dz_kl, z_cache)  # (S, B, L) -> (B, L), (B, L, L)
    dfactor = dfactor_z + dfactor_kl
    return full_posterior_backward(dmu, dfactor, posterior_cache)  # (B, L), (B, L, L) -> (B, L (L + 3)/2)
