"""A drift of several particles that do not mind being exchanged: networks of one particle and of pairs.

    h_i = (r_i, |r_i − R_1|, |r_i − R_2|, ...)         a particle's place, and its distances to the nuclei
    m_i = mean_{j≠i} g(h_i, h_j, |r_i − r_j|)          what it sees of the others, by a network g
    v_i = f(h_i, m_i)                                  its drift, by a network f

Every particle has the same f and g, and the mean knows no order: with two particles exchanged, their drifts are exchanged, and
nothing else changes. So does v = ∇ log φ where φ is symmetric, as the ground state of bosons is, and that of two electrons of
opposite spin. Barr, Gispen & Lamacraft 2020, section 4.2, have this symmetry in their networks. Distances are given as they
are, since a smooth network of the places alone has no kink where charges meet.

See `npvae.ops.layers` for how to read a pair. Shapes: B walkers, N particles, d dimensions, A nuclei, F = d + A numbers of a
particle, M widths of the message from g to f.
"""

import numpy as np

from npvae.ops.mlp import mlp_backward, mlp_forward


def particle_features_forward(r, positions):
    """h_i = (r_i, s_i1, s_i2, ...) with the distances s_iA = |r_i − R_A|: r (B, N, d), positions R (A, d) -> (B, N, d + A).

    (PARTICLE-r)  dr_i = dh_i[:d] + Σ_A ds_iA (r_i − R_A)/s_iA
    """
    x = r[:, :, None, :] - positions  # (B, N, d) -> (B, N, A, d)
    s = np.sqrt((x * x).sum(axis=-1))  # (B, N, A)
    return np.concatenate([r, s], axis=-1), (x, s)


def particle_features_backward(dh, cache):
    """Backward of h_i = (r_i, |r_i − R_A|): dh (B, N, d + A) -> dr (B, N, d)."""
    x, s = cache
    dr, ds = dh[..., : x.shape[-1]], dh[..., x.shape[-1] :]  # (B, N, d), (B, N, A)
    return dr + ((ds / s)[..., None] * x).sum(axis=2)  # (PARTICLE-r)


def others_of(n_particles):
    """The particles that each one sees, all but itself: (N, N − 1)."""
    return np.array([[j for j in range(n_particles) if j != i] for i in range(n_particles)])


def pair_features_forward(h, r):
    """p_ij = (h_i, h_j, s_ij) of every i and every other j, s_ij = |r_i − r_j|: h (B, N, F), r (B, N, d) -> (B, N, N − 1, 2F + 1).

    Each h_i stands in the rows of its own, and as the other in one row of every other particle:
        (PAIR-h)  dh_i = Σ_j dp_ij[:F] + Σ_j dp_ji[F:2F]
        (PAIR-r)  dr_i = Σ_j (ds_ij + ds_ji) (r_i − r_j)/s_ij
    """
    others = others_of(h.shape[1])  # (N, N − 1)
    x = r[:, :, None, :] - r[:, others]  # (B, N, d) -> (B, N, N − 1, d)
    s = np.sqrt((x * x).sum(axis=-1, keepdims=True))  # (B, N, N − 1, 1)
    own = np.broadcast_to(h[:, :, None, :], (*x.shape[:3], h.shape[-1]))
    return np.concatenate([own, h[:, others], s], axis=-1), (x, s, others)


def pair_features_backward(dp, cache):
    """Backward of p_ij = (h_i, h_j, |r_i − r_j|): dp (B, N, N − 1, 2F + 1) -> dh (B, N, F), dr (B, N, d)."""
    x, s, others = cache
    B, N, F = len(dp), dp.shape[1], (dp.shape[-1] - 1) // 2
    dx = dp[..., 2 * F :] / s * x  # (B, N, N − 1, d)
    dh, dr = dp[..., :F].sum(axis=2), dx.sum(axis=2)  # (B, N, F), (B, N, d)
    for i in range(N):
        dh[:, others[i]] += dp[:, i, :, F : 2 * F]  # (PAIR-h)
        dr[:, others[i]] -= dx[:, i]  # (PAIR-r)
    return dh, dr


def exchangeable_forward(r, parameters, mlp_forward=mlp_forward):
    """v_i = f(h_i, mean_{j≠i} g(h_i, h_j, |r_i − r_j|)) of all particles: r (B, N d) -> (B, N d).

    parameters are (layers of f, layers of g, N, positions (A, d)), layers as `ops.mlp.mlp_forward` takes them; of a single
    particle there is no g, and v = f(h).
        (EXCHANGE-m)  dg_ij = dm_i/(N − 1)
    """
    f_layers, g_layers, N, positions = parameters
    places = r.reshape(len(r), N, -1)  # (B, N d) -> (B, N, d)
    h, h_cache = particle_features_forward(places, np.asarray(positions, r.real.dtype))  # (B, N, F)
    joined, p_cache, g_cache = h, None, None
    if N > 1:
        p, p_cache = pair_features_forward(h, places)  # (B, N, N − 1, 2F + 1)
        g, g_cache = mlp_forward(p.reshape(-1, p.shape[-1]), g_layers)  # (B N (N − 1), 2F + 1) -> (·, M)
        m = g.reshape(*p.shape[:3], -1).mean(axis=2)  # (B N (N − 1), M) -> (B, N, M)
        joined = np.concatenate([h, m], axis=-1)  # (B, N, F + M)
    v, f_cache = mlp_forward(joined.reshape(len(r) * N, -1), f_layers)  # (B N, F + M) -> (B N, d)
    return v.reshape(r.shape), (h_cache, p_cache, g_cache, f_cache, h.shape)


def exchangeable_backward(dv, cache, mlp_backward=mlp_backward):
    """Backward of v_i = f(h_i, mean_j g(p_ij)): dv (B, N d) -> dr (B, N d), and two lists, the (dW, db) of f's and of g's
    layers. The features h have two gradients, from f and by way of g; places have a third, by way of the distances in p."""
    h_cache, p_cache, g_cache, f_cache, (B, N, F) = cache
    djoined, f_grads = mlp_backward(dv.reshape(B * N, -1), f_cache)  # (B N, d) -> (B N, F + M)
    djoined, g_grads, dr = djoined.reshape(B, N, -1), [], 0
    dh = djoined[..., :F]
    if N > 1:
        dg = np.broadcast_to(djoined[:, :, None, F:] / (N - 1), (B, N, N - 1, djoined.shape[-1] - F))  # (EXCHANGE-m)
        dp, g_grads = mlp_backward(np.ascontiguousarray(dg).reshape(B * N * (N - 1), -1), g_cache)
        dh_of_pairs, dr = pair_features_backward(dp.reshape(B, N, N - 1, -1), p_cache)
        dh = dh + dh_of_pairs
    return (particle_features_backward(dh, h_cache) + dr).reshape(B, -1), f_grads, g_grads
