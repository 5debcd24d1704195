"""Drifts that are known before anything is learned: of oscillators, and near the places where charges meet.

The best drift is v = ∇ log φ0 of the ground state φ0 (`npvae.ops.sde`). Where two charges meet, V is infinite and the kinetic
energy has to cancel it. That fixes the slope of log φ0 along their distance s, Kato's cusp condition (Kato 1957):

    electron and nucleus     log φ0 = ... − Z s          v_i = −Z x/s,      x = r_i − R_A
    two electrons            log φ0 = ... + ½ s          v_i = +½ x/s,      x = r_i − r_j, of opposite spin

A network that is smooth cannot have such a kink; it learns what is to be added (Barr, Gispen & Lamacraft 2020).

Each drift is a field of `npvae.ops.sde` that does not depend on time and has no parameters to be trained, so its backward
returns dr and an empty list. Shapes: B walkers, N particles, d dimensions, P pairs of particles, A nuclei.
"""

import numpy as np

from npvae.ops.potentials import differences_backward, differences_forward, from_nuclei, length
from npvae.ops.sde import Field


def sum_of(*fields):
    """The sum of several fields without trained parameters."""
    return Field(sum_forward, sum_backward, fields)


def sum_forward(r, t, fields):
    """v = Σ_k v_k of Fields: r (B, N d) -> (B, N d)."""
    values, caches = zip(*(field.forward(r, t, field.parameters) for field in fields))
    return sum(values), (fields, caches)


def sum_backward(dv, cache):
    """Backward of v = Σ_k v_k: each part has the same dv, and r is in all of them."""
    return sum(field.backward(dv, of_field)[0] for field, of_field in zip(*cache)), []


def oscillator_forward(r, t, omega):
    """v = −ω r, ∇ log φ0 of the oscillators of `potentials.harmonic_forward`: r (B, N d) -> (B, N d).

    (OSCILLATOR)  dr = −ω dv
    """
    return -omega * r, omega


def oscillator_backward(dv, omega):
    """Backward of v = −ω r."""
    return -omega * dv, []  # (OSCILLATOR)


def unit_forward(x):
    """The direction u = x/s with s = |x|: (..., d) -> (..., d).

    ∂u_k/∂x_l = δ_kl/s − x_k x_l/s³, so that only what is orthogonal to u changes it:
        (UNIT)  dx = (du − (du·u) u)/s
    """
    s = length(x)
    return x / s, (x / s, s)


def unit_backward(du, cache):
    """Backward of u = x/|x|: du (..., d) -> dx (..., d)."""
    u, s = cache
    return (du - (du * u).sum(axis=-1, keepdims=True) * u) / s  # (UNIT)


def nuclear_forward(r, t, parameters):
    """v_i = −Σ_A Z_A (r_i − R_A)/|r_i − R_A|: r (B, d N), parameters are (positions R (A, d), charges Z (A,)) -> (B, d N)."""
    positions, charges = parameters
    charges = np.asarray(charges, r.real.dtype)[:, None]  # (A,) -> (A, 1)
    u, u_cache = unit_forward(from_nuclei(r, positions))  # (B, d N) -> (B, N, A, d)
    return -(charges * u).sum(axis=2).reshape(r.shape), (u_cache, charges, u.shape)


def nuclear_backward(dv, cache):
    """Backward of v_i = −Σ_A Z_A u_iA: dv (B, d N) -> dr (B, d N)."""
    u_cache, charges, (B, N, _, d) = cache
    dx = unit_backward(-charges * dv.reshape(B, N, 1, d), u_cache)  # (B, N, 1, d) -> (B, N, A, d)
    return dx.sum(axis=2).reshape(B, N * d), []


def electronic_forward(r, t, parameters):
    """v_i = c Σ_{j≠i} (r_i − r_j)/|r_i − r_j|, parameters are (c, d): r (B, d N) -> (B, d N). c = ½ for opposite spins."""
    slope, n_dimensions = parameters
    x, x_cache = differences_forward(r, n_dimensions)  # (B, d N) -> (B, P, d)
    u, u_cache = unit_forward(x)
    return slope * differences_backward(u, x_cache), (u_cache, x_cache, slope, n_dimensions)


def electronic_backward(dv, cache):
    """Backward of v_i = c Σ_j u_ij, where i has +u_ij and j has −u_ij: du_ij = c (dv_i − dv_j). dv (B, d N) -> dr (B, d N)."""
    u_cache, x_cache, slope, n_dimensions = cache
    du = slope * differences_forward(dv, n_dimensions)[0]  # (B, d N) -> (B, P, d)
    return differences_backward(unit_backward(du, u_cache), x_cache), []
