"""The divergence of one Gaussian from another, KL(q ‖ p): q = N(mu_q, ·), p = N(mu_p, ·), both given for each row of a batch.

`npvae.ops.latent` and `npvae.ops.full_posterior` have p = N(0, I). Here p is any Gaussian, and its parameters receive gradients
too: p may be a learned or conditional prior, or a level of a hierarchy of latent variables. Two cases: both covariances are
diagonal, given by log-variances; or both are full, given by their Cholesky factors.

Clip log-variances before they come here (`latent.clip_logvar_forward`). See `npvae.ops.layers` for how to read a pair.
Shapes: B batch, L latent, S samples per datum.
"""

import numpy as np

from npvae.ops.full_posterior import full_kl_backward, full_kl_forward


def pair_kl_forward(mu_q, logvar_q, mu_p, logvar_p):
    """KL(N(mu_q, σ_q²) ‖ N(mu_p, σ_p²)) of each dimension, in nats; the sum over L is the divergence of diagonal Gaussians.

    All four (B, L), or of any one shape -> kl of that shape. The general formula of the lectures (2025), "More on the SGD", in
    one dimension: with the distance Δ = mu_q − mu_p and the log-ratio ρ = logvar_q − logvar_p,

        kl = ½ (Δ² e^−logvar_p + e^ρ − 1 − ρ)

    where e^ρ − 1 is written expm1(ρ), which keeps its digits where the variances are nearly equal. ∂Δ/∂mu_p = −1, and logvar_p
    stands in both ρ and e^−logvar_p:

        (KL-pair-mu_q)      dmu_q     = dkl Δ e^−logvar_p
        (KL-pair-mu_p)      dmu_p     = −dkl Δ e^−logvar_p
        (KL-pair-logvar_q)  dlogvar_q = dkl ½ (e^ρ − 1)
        (KL-pair-logvar_p)  dlogvar_p = −dkl ½ (Δ² e^−logvar_p + e^ρ − 1)
    """
    delta, log_ratio = mu_q - mu_p, logvar_q - logvar_p
    ratio_minus_1, slope = np.expm1(log_ratio), delta * np.exp(-logvar_p)
    kl = 0.5 * (delta * slope + ratio_minus_1 - log_ratio)
    return kl, (delta, slope, ratio_minus_1)


def pair_kl_backward(dkl, cache):
    """Backward of kl = ½ (Δ² e^−logvar_p + expm1(ρ) − ρ): dmu_q, dlogvar_q, dmu_p, dlogvar_p."""
    delta, slope, ratio_minus_1 = cache
    dmu_q = dkl * slope  # (KL-pair-mu_q)
    dmu_p = -dkl * slope  # (KL-pair-mu_p)
    dlogvar_q = dkl * (0.5 * ratio_minus_1)  # (KL-pair-logvar_q)
    dlogvar_p = dkl * (-0.5 * (delta * slope + ratio_minus_1))  # (KL-pair-logvar_p)
    return dmu_q, dlogvar_q, dmu_p, dlogvar_p


def pair_sampled_kl_forward(z, logvar_q, eps, mu_p, logvar_p):
    """log q(z)/p(z) of samples z = mu_q + σ_q eps, in nats: of each dimension, whose mean over eps is the KL above.

    z, eps (S, B, L), logvar_q, mu_p, logvar_p (B, L) -> kl (S, B, L). With u = (z − mu_p)/σ_p, log q = −½ (eps² + logvar_q +
    log 2π) and log p = −½ (u² + logvar_p + log 2π), so that kl = ½ (u² − eps² + logvar_p − logvar_q).

        (PAIR-SAMPLED-z)         dz        = dkl u/σ_p
        (PAIR-SAMPLED-logvar_q)  dlogvar_q = −½ Σ_s dkl_s
        (PAIR-SAMPLED-mu_p)      dmu_p     = −Σ_s dkl_s u_s/σ_p
        (PAIR-SAMPLED-logvar_p)  dlogvar_p = ½ Σ_s dkl_s (1 − u_s²)
    """
    inverse_sigma = np.exp(-0.5 * logvar_p)  # (B, L)
    u = (z - mu_p) * inverse_sigma  # (S, B, L)
    kl = 0.5 * (u * u - eps * eps + (logvar_p - logvar_q))  # (S, B, L)
    return kl, (u, inverse_sigma)


def pair_sampled_kl_backward(dkl, cache):
    """Backward of kl = ½ (u² − eps² + logvar_p − logvar_q): dz (S, B, L), dlogvar_q, dmu_p, dlogvar_p (B, L)."""
    u, inverse_sigma = cache
    dz = dkl * u * inverse_sigma  # (PAIR-SAMPLED-z)
    dlogvar_q = -0.5 * dkl.sum(axis=0)  # (PAIR-SAMPLED-logvar_q) (S, B, L) -> (B, L)
    dmu_p = -dz.sum(axis=0)  # (PAIR-SAMPLED-mu_p) (S, B, L) -> (B, L)
    dlogvar_p = 0.5 * (dkl * (1 - u * u)).sum(axis=0)  # (PAIR-SAMPLED-logvar_p) (S, B, L) -> (B, L)
    return dz, dlogvar_q, dmu_p, dlogvar_p


def solve_forward(factor, b):
    """Solve F y = b for lower triangular F by forward substitution, y_l = (b_l − Σ_k<l F_lk y_k)/F_ll, for each row of a batch.

    factor (B, L, L), of which only the lower triangle is read, b (B, L, K) for K right-hand sides -> y (B, L, K). F⁻¹ is never
    formed.

    y = F⁻¹ b, so that ∂y_m/∂b_l = (F⁻¹)_ml. Differentiating F y = b with respect to F_lk gives e_l y_k + F ∂y/∂F_lk = 0, with
    the unit vector e_l, so that ∂y_m/∂F_lk = −(F⁻¹)_ml y_k. Summed over all y_m, and over the right-hand sides j:
        (SOLVE-b)       db    = F⁻ᵀ dy, the solution of Fᵀ db = dy by backward substitution
        (SOLVE-factor)  dF_lk = −Σ_j db_lj y_kj for k ≤ l, i.e. the lower triangle of −db yᵀ
    """
    y = np.empty(b.shape, np.result_type(factor, b))
    for l in range(b.shape[1]):
        known = factor[:, l, None, :l] @ y[:, :l]  # (B, 1, l) @ (B, l, K) -> (B, 1, K)
        y[:, l] = (b[:, l] - known[:, 0]) / factor[:, l, l, None]
    return y, (factor, y)


def solve_backward(dy, cache):
    """Backward of y = F⁻¹ b: dfactor (B, L, L), db (B, L, K)."""
    factor, y = cache
    db = np.empty_like(dy)
    for l in reversed(range(dy.shape[1])):  # y_l = (b_l − Σ_k<l F_lk y_k)/F_ll: each y_k reaches every later y_l
        later = factor[:, l + 1 :, l, None].transpose(0, 2, 1) @ db[:, l + 1 :]  # (B, 1, L − l − 1) @ (B, L − l − 1, K)
        db[:, l] = (dy[:, l] - later[:, 0]) / factor[:, l, l, None]  # (SOLVE-b)
    dfactor = -np.tril(db @ y.transpose(0, 2, 1))  # (SOLVE-factor) (B, L, K) @ (B, K, L) -> (B, L, L)
    return dfactor, db


def full_pair_kl_forward(mu_q, factor_q, mu_p, factor_p):
    """KL(N(mu_q, F_q F_qᵀ) ‖ N(mu_p, F_p F_pᵀ)) in nats, in parts that add up to it: one for each dimension.

    mu_q, mu_p (B, L), factor_q, factor_p (B, L, L) -> kl (B, L). Lectures (2025), "More on the SGD":

        ½ (tr(Σ_p⁻¹ Σ_q) + (mu_q − mu_p)ᵀ Σ_p⁻¹ (mu_q − mu_p) − k + log(det Σ_p/det Σ_q))

    A divergence stays the same when z is replaced by F_p⁻¹ (z − mu_p). Then p becomes N(0, I), and q becomes N(y, M Mᵀ) with

        y = F_p⁻¹ (mu_q − mu_p),  M = F_p⁻¹ F_q

    both by forward substitution. M is lower triangular. So this is `full_kl_forward` of y and M, and term by term it is the
    lectures' formula: with Σ_p⁻¹ = F_p⁻ᵀ F_p⁻¹ the trace is Σ_lk M_lk², the quadratic term is |y|², and the logarithm of the
    determinants is −2 Σ_l log M_ll. Part l is the mean of KL(q(z_l|z_<l) ‖ p(z_l|z_<l)) over the dimensions z_<l before l.

    Backward, dy and dM come from `full_kl_backward`, and go on through the solve:
        (FULL-PAIR-mu_q)      dmu_q = F_p⁻ᵀ dy
        (FULL-PAIR-mu_p)      dmu_p = −F_p⁻ᵀ dy
        (FULL-PAIR-factor_q)  dF_q  = the lower triangle of F_p⁻ᵀ dM
        (FULL-PAIR-factor_p)  dF_p  = the lower triangle of −(F_p⁻ᵀ dy yᵀ + F_p⁻ᵀ dM Mᵀ), one term for each solve
    """
    distance = (mu_q - mu_p)[:, :, None]  # (B, L, 1)
    both = np.concatenate([distance, np.tril(factor_q)], axis=2)  # (B, L, 1 + L): two right-hand sides, solved together
    white, solve_cache = solve_forward(factor_p, both)  # (B, L, 1 + L)
    y, M = white[:, :, 0], white[:, :, 1:]  # (B, L), (B, L, L)
    kl, kl_cache = full_kl_forward(y, M)
    return kl, (solve_cache, kl_cache)


def full_pair_kl_backward(dkl, cache):
    """Backward of `full_pair_kl_forward`: dkl (B, L) -> dmu_q, dfactor_q, dmu_p, dfactor_p, (B, L) and (B, L, L)."""
    solve_cache, kl_cache = cache
    dy, dM = full_kl_backward(dkl, kl_cache)
    dfactor_p, dboth = solve_backward(np.concatenate([dy[:, :, None], dM], axis=2), solve_cache)  # (FULL-PAIR-factor_p)
    dmu_q = dboth[:, :, 0].copy()  # (FULL-PAIR-mu_q) (B, L, 1 + L) -> (B, L)
    dmu_p = -dmu_q  # (FULL-PAIR-mu_p)
    dfactor_q = np.tril(dboth[:, :, 1:])  # (FULL-PAIR-factor_q) -> (B, L, L)
    return dmu_q, dfactor_q, dmu_p, dfactor_p
