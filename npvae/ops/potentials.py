"""Potentials of quantum systems: V of the places of all particles, and the force that backpropagation needs.

    H = −½ Σ_i ∇_i² + V(r_1, ..., r_N)                  mass 1, ħ = 1; with charges in units of e these are hartree and bohr

A potential is a field of `npvae.ops.sde` with one value for each walker: a pair of functions of r (B, N d), where particle i
has the columns i d to (i + 1) d, of the time, which plays no part, and of constants. None has parameters to be trained, so that
a backward returns dr and an empty list.

Coulomb's potential is not cut off where two charges meet: it is infinite at one point, which a path hits with probability 0. In
three dimensions ⟨1/s⟩ and ⟨1/s²⟩ are finite, so that V has a variance, but ⟨1/s⁴⟩, that of the force, is not. A path of finite
steps is inexact within √dt of such a point: part of the error of the time step. Drifts that have the cusps of the wave function
cancel the infinity (`npvae.ops.cusps`).

See `npvae.ops.layers` for how to read a pair. Shapes: B walkers, N particles, d dimensions, P = N (N − 1)/2 pairs of particles,
A nuclei.
"""

import math

import numpy as np

from npvae.ops.sde import Field


def sum_of(*fields):
    """The sum of several fields, of potentials or of drifts: their parameters' gradients come one after the other."""
    return Field(sum_forward, sum_backward, fields)


def sum_forward(r, t, fields):
    """Σ_k f_k of Fields: r (B, N d) -> (B,) or (B, N d)."""
    values, caches = zip(*(field.forward(r, t, field.parameters) for field in fields))
    return sum(values), (fields, caches)


def sum_backward(dvalue, cache):
    """Backward of Σ_k f_k: each field has the same dvalue, and r is in all of them."""
    drs, grads = zip(*(field.backward(dvalue, of_field) for field, of_field in zip(*cache)))
    return sum(drs), [grad for of_field in grads for grad in of_field]


def constant_forward(r, t, value):
    """The same V everywhere: r (B, N d) -> (B,)."""
    return np.full(len(r), value, r.real.dtype), r.shape


def constant_backward(dV, shape):
    """Backward of a constant."""
    return np.zeros(shape, dV.dtype), []


# -------------------------------------------------------------------------------------------------- differences and distances


def differences_forward(r, n_dimensions):
    """x_ij = r_i − r_j of every pair i < j: r (B, N d) -> (B, P, d), in the order 01, 02, ..., 12, ..."""
    places = r.reshape(len(r), -1, n_dimensions)  # (B, N d) -> (B, N, d)
    first, second = np.triu_indices(places.shape[1], 1)
    return places[:, first] - places[:, second], (places.shape, first, second)


def differences_backward(dx, cache):
    """Backward of x_ij = r_i − r_j: dx (B, P, d) -> dr (B, N d), from every pair that a particle is in."""
    shape, first, second = cache
    dplaces = np.zeros(shape, dx.dtype)
    for pair, (i, j) in enumerate(zip(first, second)):
        dplaces[:, i] += dx[:, pair]
        dplaces[:, j] -= dx[:, pair]
    return dplaces.reshape(len(dx), -1)


def from_nuclei(r, positions):
    """x_iA = r_i − R_A: r (B, N d), positions R (A, d) -> (B, N, A, d)."""
    positions = np.asarray(positions, r.real.dtype)
    places = r.reshape(len(r), -1, 1, positions.shape[1])  # (B, N d) -> (B, N, 1, d)
    return places - positions


def length(x):
    """s = (Σ x²)^½ over the last axis, which is kept: (..., d) -> (..., 1)."""
    return np.sqrt((x * x).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------------------------------------------------- smooth potentials


def harmonic_forward(r, t, stiffness):
    """V = ½ k Σ r²: r (B, N d) -> (B,). For k = ω² the ground state is e^(−½ ω r²), its energy N d ω/2.

    (HARMONIC)  ∂V/∂r = k r
    """
    return 0.5 * stiffness * (r * r).sum(axis=1), (r, stiffness)


def harmonic_backward(dV, cache):
    """Backward of V = ½ k Σ r²: dV (B,) -> dr (B, N d)."""
    r, stiffness = cache
    return dV[:, None] * stiffness * r, []  # (HARMONIC)


def series_forward(r, t, coefficients):
    """The same polynomial of every coordinate, V = Σ_d Σ_k c_k r_d^k, by Horner's rule: r (B, N d) -> (B,).

    (SERIES)  ∂V/∂r = Σ_k k c_k r^(k−1)
    """
    values = np.zeros_like(r)
    for c in coefficients[::-1]:
        values = values * r + c
    return values.sum(axis=1), (r, coefficients)


def series_backward(dV, cache):
    """Backward of V = Σ_d Σ_k c_k r_d^k: dV (B,) -> dr (B, N d)."""
    r, coefficients = cache
    slope = np.zeros_like(r)
    for k in range(len(coefficients) - 1, 0, -1):
        slope = slope * r + k * coefficients[k]
    return dV[:, None] * slope, []  # (SERIES)


def hat_forward(r, t, height):
    """V = h (|r|² − 1)², a hat with its brim at |r| = 1, on a line a double well: r (B, d) of one particle -> (B,).

    (HAT)  ∂V/∂r = 4 h (|r|² − 1) r
    """
    beyond = (r * r).sum(axis=1) - 1
    return height * beyond**2, (r, beyond, height)


def hat_backward(dV, cache):
    """Backward of V = h (|r|² − 1)²: dV (B,) -> dr (B, d)."""
    r, beyond, height = cache
    return (dV * 4 * height * beyond)[:, None] * r, []  # (HAT)


def springs_forward(r, t, parameters):
    """Springs of stiffness k between every two particles, V = ½ k Σ_{i<j} |r_i − r_j|²: r (B, N d) -> (B,).

    parameters are (k, d).
        (SPRINGS)  ∂V/∂x_ij = k x_ij,  x_ij = r_i − r_j
    """
    stiffness, n_dimensions = parameters
    x, x_cache = differences_forward(r, n_dimensions)  # (B, N d) -> (B, P, d)
    return 0.5 * stiffness * (x * x).sum(axis=(1, 2)), (x, stiffness, x_cache)


def springs_backward(dV, cache):
    """Backward of V = ½ k Σ |r_i − r_j|²: dV (B,) -> dr (B, N d)."""
    x, stiffness, x_cache = cache
    return differences_backward(dV[:, None, None] * stiffness * x, x_cache), []  # (SPRINGS)


def gaussians_forward(r, t, parameters):
    """A contact of finite range in the plane, V = Σ_{i<j} g/(π s²) e^(−|r_i − r_j|²/s²): r (B, 2 N) -> (B,).

    parameters are (g, s); for s → 0 each term is g times a delta function. Mujal, Sarlé, Polls & Juliá-Díaz 2017, equation 2.
        (GAUSSIANS)  ∂V/∂x_ij = −2 x_ij/s² V_ij,  x_ij = r_i − r_j
    """
    g, s = parameters
    x, x_cache = differences_forward(r, 2)  # (B, 2 N) -> (B, P, 2)
    of_pairs = g / (math.pi * s**2) * np.exp(-(x * x).sum(axis=2) / s**2)  # (B, P, 2) -> (B, P)
    return of_pairs.sum(axis=1), (x, of_pairs, s, x_cache)


def gaussians_backward(dV, cache):
    """Backward of V = Σ g/(π s²) e^(−|r_i − r_j|²/s²): dV (B,) -> dr (B, 2 N)."""
    x, of_pairs, s, x_cache = cache
    dx = (dV[:, None] * of_pairs)[:, :, None] * (-2 / s**2) * x  # (GAUSSIANS) (B, P) -> (B, P, 2)
    return differences_backward(dx, x_cache), []


# --------------------------------------------------------------------------------------------------------------------- charges


def attraction_forward(r, t, parameters):
    """Electrons in the field of nuclei that do not move: V = −Σ_i Σ_A Z_A/|r_i − R_A|, r (B, 3 N) -> (B,) in hartree.

    parameters are (positions R (A, 3), charges Z (A,)).
        (ATTRACTION)  ∂V/∂x_iA = Z_A x_iA/s_iA³,  x_iA = r_i − R_A, s = |x|
    """
    positions, charges = parameters
    charges = np.asarray(charges, r.real.dtype)
    x = from_nuclei(r, positions)  # (B, 3 N) -> (B, N, A, 3)
    s = length(x)[..., 0]  # (B, N, A)
    return -(charges / s).sum(axis=(1, 2)), (x, s, charges)


def attraction_backward(dV, cache):
    """Backward of V = −Σ Z_A/|r_i − R_A|: dV (B,) -> dr (B, 3 N)."""
    x, s, charges = cache
    dx = (dV[:, None, None] * charges / s**3)[..., None] * x  # (ATTRACTION) (B, N, A) -> (B, N, A, 3)
    return dx.sum(axis=2).reshape(len(x), -1), []  # (B, N, A, 3) -> (B, 3 N)


def repulsion_forward(r, t, n_dimensions):
    """Electrons repel each other, V = Σ_{i<j} 1/|r_i − r_j|: r (B, d N) -> (B,) in hartree.

    (REPULSION)  ∂V/∂x_ij = −x_ij/s_ij³,  x_ij = r_i − r_j, s = |x|
    """
    x, x_cache = differences_forward(r, n_dimensions)  # (B, d N) -> (B, P, d)
    s = length(x)  # (B, P, d) -> (B, P, 1)
    return (1 / s).sum(axis=(1, 2)), (x, s, x_cache)


def repulsion_backward(dV, cache):
    """Backward of V = Σ 1/|r_i − r_j|: dV (B,) -> dr (B, d N)."""
    x, s, x_cache = cache
    return differences_backward(-dV[:, None, None] * x / s**3, x_cache), []  # (REPULSION)
