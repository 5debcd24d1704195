"""Drifts that are known before anything is learned, of oscillators and where charges meet, and the energy that is left.

The best drift is v = ∇ log φ0 of the ground state φ0. A wave function ψ_b that is known in part has the drift b = ∇ log ψ_b and
the local energy

    E_b = (H ψ_b)/ψ_b = V − ½ (|b|² + ∇·b),

which is constant where ψ_b is φ0. Where two charges meet, V is infinite and the kinetic energy has to cancel it. That fixes the
slope of log φ0 along their distance s, Kato's cusp condition (Kato 1957):

    electron and nucleus     log φ0 = ... − Z s          b_i = −Z x/s,      x = r_i − R_A
    two electrons            log φ0 = ... + ½ s          b_i = +½ x/s,      x = r_i − r_j, of opposite spin

In three dimensions ∇·(x/s) = 2/s, so that V − ½ ∇·b of all these terms is 0, and E_b = −½ |b|² is bounded: no infinity is left
on a path, nor in its gradient. A smooth network, which cannot have such a kink, learns what is to be added to b (Barr, Gispen &
Lamacraft 2020).

Drifts and energies are fields of `npvae.ops.sde` that do not depend on time and have no parameters to be trained, so that a
backward returns dr and an empty list. Shapes: B walkers, N particles, d dimensions, P pairs of particles, A nuclei.
"""

import numpy as np

from npvae.ops.potentials import differences_backward, differences_forward, from_nuclei, length


def linear_forward(r, t, omega):
    """b = −ω r, the drift of oscillators, ∇·b = −N d ω: r (B, N d) -> (B, N d).

    (LINEAR)  dr = −ω db
    """
    return -omega * r, omega


def linear_backward(db, omega):
    """Backward of b = −ω r."""
    return -omega * db, []  # (LINEAR)


def unit_forward(x):
    """The direction u = x/s with s = |x|: (..., d) -> (..., d).

    ∂u_k/∂x_l = δ_kl/s − x_k x_l/s³: a change along u changes nothing.
        (UNIT)  dx = (du − (du·u) u)/s
    """
    s = length(x)
    u = x / s
    return u, (u, s)


def unit_backward(du, cache):
    """Backward of u = x/|x|: du (..., d) -> dx (..., d)."""
    u, s = cache
    return (du - (du * u).sum(axis=-1, keepdims=True) * u) / s  # (UNIT)


def nuclear_forward(r, t, parameters):
    """b_i = −Σ_A Z_A u_iA with the direction u_iA from nucleus A: r (B, d N) -> (B, d N).

    parameters are (positions R (A, d), charges Z (A,)).
        (NUCLEAR)  du_iA = −Z_A db_i
    """
    positions, charges = parameters
    charges = np.asarray(charges, r.real.dtype)[:, None]  # (A,) -> (A, 1)
    u, u_cache = unit_forward(from_nuclei(r, positions))  # (B, d N) -> (B, N, A, d)
    return -(charges * u).sum(axis=2).reshape(r.shape), (u_cache, charges, u.shape)


def nuclear_backward(db, cache):
    """Backward of b_i = −Σ_A Z_A u_iA: db (B, d N) -> dr (B, d N)."""
    u_cache, charges, (B, N, _, d) = cache
    du = -charges * db.reshape(B, N, 1, d)  # (NUCLEAR) (B, N, 1, d) -> (B, N, A, d)
    return unit_backward(du, u_cache).sum(axis=2).reshape(B, N * d), []


def electronic_forward(r, t, parameters):
    """b_i = c Σ_{j≠i} u_ij with the direction u_ij from j to i: r (B, d N) -> (B, d N).

    parameters are (c, d); c = ½ for opposite spins. In a pair, i has +u_ij and j has −u_ij:
        (ELECTRONIC)  du_ij = c (db_i − db_j)
    """
    slope, n_dimensions = parameters
    x, x_cache = differences_forward(r, n_dimensions)  # (B, d N) -> (B, P, d)
    u, u_cache = unit_forward(x)
    return slope * differences_backward(u, x_cache), (u_cache, x_cache, slope, n_dimensions)


def electronic_backward(db, cache):
    """Backward of b_i = c Σ_j u_ij: db (B, d N) -> dr (B, d N)."""
    u_cache, x_cache, slope, n_dimensions = cache
    du = slope * differences_forward(db, n_dimensions)[0]  # (ELECTRONIC) (B, d N) -> (B, P, d)
    return differences_backward(unit_backward(du, u_cache), x_cache), []


def cusp_energy_forward(r, t, parameters):
    """E_b = c − ½ |b|², what the local energy is where b has every cusp: r (B, d N) -> (B,) in hartree.

    parameters are (the Field b, the number c: the energy of the nuclei among themselves).
        (CUSP-ENERGY)  db = −dE b
    """
    base, constant = parameters
    b, b_cache = base.forward(r, t, base.parameters)
    return constant - 0.5 * (b * b).sum(axis=1), (b, base, b_cache)


def cusp_energy_backward(dE, cache):
    """Backward of E_b = c − ½ |b|²: dE (B,) -> dr (B, d N)."""
    b, base, b_cache = cache
    return base.backward(-dE[:, None] * b, b_cache)  # (CUSP-ENERGY)
