"""A drift of particles that do not mind being exchanged, made of the distances between them and to the centres of a system.

    s_i = (|r_i − R_1|, |r_i − R_2|, ...)                        distances to the nuclei, or to the middle of a trap
    q_ij = g(s_i, s_j, |r_i − r_j|),  m_i = mean_{j≠i} q_ij      what a particle sees of another, and of all others
    α_i = f(s_i, m_i),  β_ij = w(q_ij)                           how strongly it is pushed from each centre, and from each other
    u_i = Σ_A α_iA (r_i − R_A) + Σ_{j≠i} β_ij (r_i − r_j)

In a trap the base pulls the harder, the further out a particle is. That of charges does not: there α and β are divided by 1
plus the distance that they belong to, so that u is bounded, too, and no particle runs away.

Every particle has the same networks f, g and w, and sums know no order: with two particles exchanged, their drifts are
exchanged, and nothing else changes. Where everything is turned, the drift is turned. A ground state of bosons, or of two
electrons of opposite spin, is a function φ of these distances; its ∇ log φ has this form and these symmetries. (The networks of
Barr, Gispen & Lamacraft 2020, section 4.2, have the symmetry under exchange, and are told places.) A distance has a kink where
charges meet, as φ has, and a smooth network of the places has not.

See `npvae.ops.layers` for how to read a pair. Shapes: B walkers, N particles, d dimensions, A centres, M widths of q.
"""

import numpy as np

from npvae.ops.mlp import mlp_backward, mlp_forward


def lengths_forward(x):
    """s = |x|: (..., d) -> (...).

    (LENGTHS)  dx = ds x/s
    """
    s = np.sqrt((x * x).sum(axis=-1))
    return s, (x, s)


def lengths_backward(ds, cache):
    """Backward of s = |x|: ds (...) -> dx (..., d)."""
    x, s = cache
    return (ds / s)[..., None] * x  # (LENGTHS)


def others_of(n_particles):
    """The particles that each one sees, all but itself: (N, N − 1)."""
    return np.array([[j for j in range(n_particles) if j != i] for i in range(n_particles)], int).reshape(n_particles, -1)


def pair_features_forward(s, s_of_pairs):
    """p_ij = (s_i, s_j, s_ij) of every i and every other j: s (B, N, A), s_of_pairs (B, N, N − 1) -> (B, N, N − 1, 2 A + 1).

    Each s_i stands in the rows of its own, and as the other in one row of every other particle:
        (PAIR-s)  ds_i = Σ_j dp_ij[:A] + Σ_j dp_ji[A:2A]
    """
    others, A = others_of(s.shape[1]), s.shape[2]
    own = np.broadcast_to(s[:, :, None, :], (*s_of_pairs.shape, A))
    return np.concatenate([own, s[:, others], s_of_pairs[..., None]], axis=-1), (others, A)


def pair_features_backward(dp, cache):
    """Backward of p_ij = (s_i, s_j, s_ij): dp (B, N, N − 1, 2 A + 1) -> ds (B, N, A), ds_of_pairs (B, N, N − 1)."""
    others, A = cache
    ds = dp[..., :A].sum(axis=2)  # (B, N, A)
    for i, others_of_i in enumerate(others):
        ds[:, others_of_i] += dp[:, i, :, A : 2 * A]  # (PAIR-s)
    return ds, dp[..., 2 * A]


def damped_forward(strength, s):
    """strength/(1 + s), element by element.

    (DAMPED-strength)  dstrength = dout/(1 + s)      (DAMPED-s)  ds = −dout strength/(1 + s)²
    """
    factor = 1 / (1 + s)
    return strength * factor, (strength, factor)


def damped_backward(dout, cache):
    """Backward of strength/(1 + s): dout -> dstrength, ds."""
    strength, factor = cache
    dstrength = dout * factor  # (DAMPED-strength)
    return dstrength, -dstrength * strength * factor  # (DAMPED-s)


def pushes_forward(alpha, x, beta, y):
    """u_i = Σ_A α_iA x_iA + Σ_j β_ij y_ij (B, N, d), of alpha (B, N, A), x (B, N, A, d), beta (B, N, N − 1), y (·, d) likewise.

    (PUSH-alpha)  dα_iA = du_i·x_iA      (PUSH-x)  dx_iA = α_iA du_i
    (PUSH-beta)   dβ_ij = du_i·y_ij      (PUSH-y)  dy_ij = β_ij du_i
    """
    u = (alpha[..., None] * x).sum(axis=2) + (beta[..., None] * y).sum(axis=2)
    return u, (alpha, x, beta, y)


def pushes_backward(du, cache):
    """Backward of u_i = Σ_A α_iA x_iA + Σ_j β_ij y_ij: du (B, N, d) -> dalpha, dx, dbeta, dy."""
    alpha, x, beta, y = cache
    du = du[:, :, None, :]  # (B, N, d) -> (B, N, 1, d)
    dalpha, dbeta = (du * x).sum(axis=-1), (du * y).sum(axis=-1)  # (PUSH-alpha), (PUSH-beta)
    return dalpha, alpha[..., None] * du, dbeta, beta[..., None] * du  # (PUSH-x), (PUSH-y)


def exchangeable_forward(r, parameters, mlp_forward=mlp_forward):
    """u of all particles, by the formulas above: r (B, N d) -> (B, N d).

    parameters are (layers of f, of g and of w, centres R (A, d), N, is_bounded), layers as `ops.mlp.mlp_forward` takes them; of
    a single particle there are no g and w, and u = Σ_A α_A (r − R_A) with α = f(s).
        (EXCHANGE-q)  dq_ij = [dβ_ij through w] + dm_i/(N − 1)
        (EXCHANGE-r)  dr_i = Σ_A dx_iA + Σ_j (dy_ij − dy_ji)
    """
    f, g, w, centres, N, is_bounded = parameters
    B, others = len(r), others_of(N)
    places = r.reshape(B, N, -1)  # (B, N d) -> (B, N, d)
    x, y = places[:, :, None, :] - centres, places[:, :, None, :] - places[:, others]  # (B, N, A, d), (B, N, N − 1, d)
    (s, s_cache), (s_of_pairs, of_pairs_cache) = lengths_forward(x), lengths_forward(y)
    read, beta, pair_caches = s, np.zeros_like(s_of_pairs), None
    if N > 1:
        p, p_cache = pair_features_forward(s, s_of_pairs)  # (B, N, N − 1, 2 A + 1)
        q, g_cache = mlp_forward(p.reshape(B * N * (N - 1), -1), g)  # -> (B N (N − 1), M)
        strengths, w_cache = mlp_forward(q, w)  # (B N (N − 1), M) -> (·, 1)
        beta, pair_caches = strengths.reshape(s_of_pairs.shape), (p_cache, g_cache, w_cache)
        read = np.concatenate([s, q.reshape(B, N, N - 1, -1).mean(axis=2)], axis=-1)  # (B, N, A + M)
    alpha, f_cache = mlp_forward(read.reshape(B * N, -1), f)  # (B N, A + M) -> (B N, A)
    alpha, damped_caches = alpha.reshape(s.shape), None
    if is_bounded:
        (alpha, of_alpha), (beta, of_beta) = damped_forward(alpha, s), damped_forward(beta, s_of_pairs)
        damped_caches = of_alpha, of_beta
    u, u_cache = pushes_forward(alpha, x, beta, y)
    return u.reshape(r.shape), (u_cache, damped_caches, f_cache, pair_caches, s_cache, of_pairs_cache, others)


def exchangeable_backward(du, cache, mlp_backward=mlp_backward):
    """Backward of `exchangeable_forward`: du (B, N d) -> dr (B, N d), and the (dW, db) of the layers of f, of g and of w. Of q
    there are two gradients, of the distances s up to three: by f, by g, and by the damping."""
    u_cache, damped_caches, f_cache, pair_caches, s_cache, of_pairs_cache, others = cache
    B, N, A, d = u_cache[1].shape
    dalpha, dx, dbeta, dy = pushes_backward(du.reshape(B, N, d), u_cache)
    ds = ds_of_pairs = 0
    if damped_caches is not None:
        (dalpha, ds), (dbeta, ds_of_pairs) = map(damped_backward, (dalpha, dbeta), damped_caches)
    dread, f_grads = mlp_backward(dalpha.reshape(B * N, A), f_cache)  # (B N, A) -> (B N, A + M)
    dread, g_grads, w_grads = dread.reshape(B, N, -1), [], []
    ds = ds + dread[..., :A]
    if N > 1:
        p_cache, g_cache, w_cache = pair_caches
        dq, w_grads = mlp_backward(dbeta.reshape(-1, 1), w_cache)  # (B N (N − 1), 1) -> (·, M)
        dq = dq + np.repeat(dread[..., A:].reshape(B * N, -1) / (N - 1), N - 1, axis=0)  # (EXCHANGE-q)
        dp, g_grads = mlp_backward(dq, g_cache)
        ds_of_g, ds_of_pairs_of_g = pair_features_backward(dp.reshape(B, N, N - 1, -1), p_cache)
        ds, dy = ds + ds_of_g, dy + lengths_backward(ds_of_pairs + ds_of_pairs_of_g, of_pairs_cache)
    dr = (dx + lengths_backward(ds, s_cache)).sum(axis=2) + dy.sum(axis=2)  # (B, N, d)
    for i in range(N):
        dr[:, others[i]] -= dy[:, i]  # (EXCHANGE-r)
    return dr.reshape(B, -1), f_grads, g_grads, w_grads
