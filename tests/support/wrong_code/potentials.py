"""Mistakes in the potentials of quantum systems, and in the drifts that are known of their ground states."""

import math

import numpy as np

from npvae.ops import cusps, potentials
from npvae.ops.cusps import unit_backward
from npvae.ops.potentials import differences_backward
from wrong_code import mistake, pair, probability_mistake

HARMONIC, SERIES, GAUSSIANS = ("harmonic potential",), ("potential of powers",), ("Gaussian contacts",)
CHARGES = "attraction of nuclei", "repulsion of electrons"
CUSPS = "nuclear cusps", "electronic cusps"
ENERGY = ("energy of cusps",)
RIGHT = {name: getattr(room, name) for room in (potentials, cusps) for name in vars(room) if name.endswith("ward")}


# ------------------------------------------------------------------------------------------------------------ potentials


@mistake("harmonic_backward", *HARMONIC)
def force_down_the_potential(dV, cache):
    """The force −∂V/∂r of mechanics, where the gradient of V is asked for."""
    r, stiffness = cache
    return -dV[:, None] * stiffness * r, []


@mistake("series_backward", *SERIES)
def coefficients_one_power_too_high(dV, cache):
    """Σ_k k c_k r^k: the power stays as it was."""
    r, _ = cache
    return RIGHT["series_backward"](dV, cache)[0] * r, []


@mistake("differences_backward", "springs", *GAUSSIANS, CHARGES[1])
def force_on_the_first_of_two(dx, cache):
    """x_ij = r_i − r_j reaches r_i alone: Newton's third law is forgotten."""
    shape, first, _ = cache
    dplaces = np.zeros(shape, dx.dtype)
    for number, i in enumerate(first):
        dplaces[:, i] += dx[:, number]
    return dplaces.reshape(len(dx), -1)


@mistake("differences_backward", "springs", *GAUSSIANS, CHARGES[1])
def particle_of_the_last_pair(dx, cache):
    """dplaces[:, first] += dx: of an index that comes twice NumPy adds the last alone."""
    shape, first, second = cache
    dplaces = np.zeros(shape, dx.dtype)
    dplaces[:, first] += dx
    dplaces[:, second] -= dx
    return dplaces.reshape(len(dx), -1)


@mistake("gaussians_backward", *GAUSSIANS)
def width_forgotten_in_the_force(dV, cache):
    """∂V/∂x = −2 x V: the derivative of e^−x², without 1/s²."""
    x, of_pairs, _, x_cache = cache
    return differences_backward((dV[:, None] * of_pairs)[:, :, None] * -2 * x, x_cache), []


@mistake("attraction_backward", CHARGES[0])
def inverse_square_times_the_distance(dV, cache):
    """Z/s² times x: the direction is x/s, so that x/s³ is meant."""
    x, s, charges = cache
    dx = (dV[:, None, None] * charges / s**2)[..., None] * x
    return dx.sum(axis=2).reshape(len(x), -1), []


@mistake("attraction_backward", CHARGES[0])
def every_nucleus_is_a_proton(dV, cache):
    """The charge stands in V and is forgotten in the force."""
    x, s, charges = cache
    return RIGHT["attraction_backward"](dV, (x, s, np.ones_like(charges)))


@mistake("repulsion_backward", CHARGES[1])
def equal_charges_attract(dV, cache):
    """The sign of the force copied from that of a nucleus."""
    return -RIGHT["repulsion_backward"](dV, cache)[0], []


@mistake("sum_backward", "sum of cusps")
def force_of_the_first_part(dvalue, cache):
    """The gradient of one summand."""
    fields, caches = cache
    return fields[0].backward(dvalue, caches[0])


# ------------------------------------------------------------------------------------------------------------------ cusps


@mistake("unit_backward", *CUSPS)
def length_of_a_direction_varies(du, cache):
    """dx = du/s: that s depends on x is forgotten."""
    _, s = cache
    return du / s


@mistake("unit_backward", *CUSPS)
def direction_projected_and_not_scaled(du, cache):
    """dx = du − (du·u) u: 1/s is forgotten."""
    u, _ = cache
    return du - (du * u).sum(axis=-1, keepdims=True) * u


@mistake("nuclear_backward", CUSPS[0])
def sum_over_nuclei_taken_for_one(db, cache):
    """dr of the last nucleus alone."""
    u_cache, charges, (B, N, _, d) = cache
    dx = unit_backward(-charges * db.reshape(B, N, 1, d), u_cache)
    return dx[:, :, -1].reshape(B, N * d), []


@mistake("electronic_backward", CUSPS[1])
def other_electron_feels_nothing(db, cache):
    """du_ij = c db_i: b_j has −c u_ij too."""
    u_cache, x_cache, slope, _ = cache
    (B, N, d), first, _ = x_cache
    return differences_backward(unit_backward(slope * db.reshape(B, N, d)[:, first], u_cache), x_cache), []


@mistake("cusp_energy_backward", *ENERGY)
def square_without_its_two(dE, cache):
    """d(½ b²) = ½ b."""
    return RIGHT["cusp_energy_backward"](0.5 * dE, cache)


# --------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*HARMONIC)
def spring_without_half():
    """V = k Σ r²: the frequency of the ground state is √2 times what it should be."""

    def forward(r, t, stiffness):
        return RIGHT["harmonic_forward"](r, t, 2 * stiffness)

    return {"harmonic_forward": forward}


@probability_mistake(*GAUSSIANS)
def contact_of_a_normal_density():
    """g N(x; 0, s²) = g/(2π s²) e^(−x²/2s²): s is no standard deviation here, it is √2 times that."""

    def forward(r, t, parameters):
        g, s = parameters
        return RIGHT["gaussians_forward"](r, t, (g, math.sqrt(2) * s))

    return {"gaussians_forward": forward}


@probability_mistake(CHARGES[1])
def every_pair_counted_twice():
    """Σ_{i≠j} for Σ_{i<j}."""

    def forward(r, t, n_dimensions):
        V, cache = RIGHT["repulsion_forward"](r, t, n_dimensions)
        return 2 * V, cache

    def backward(dV, cache):
        return RIGHT["repulsion_backward"](2 * dV, cache)

    return pair("repulsion", forward, backward)


@probability_mistake(CUSPS[0])
def cusp_of_a_proton_at_every_nucleus():
    """b = −x/s without Z: right for hydrogen."""

    def forward(r, t, parameters):
        positions, charges = parameters
        return RIGHT["nuclear_forward"](r, t, (positions, np.ones(len(charges))))

    return {"nuclear_forward": forward}


@probability_mistake(CUSPS[1])
def cusp_of_equal_spins():
    """The slope ¼ of two electrons of the same spin, which keep away from each other anyway."""

    def forward(r, t, parameters):
        slope, n_dimensions = parameters
        return RIGHT["electronic_forward"](r, t, (0.5 * slope, n_dimensions))

    return {"electronic_forward": forward}


@probability_mistake(*ENERGY)
def drift_of_the_density():
    """b = ∇ log ψ² in place of ∇ log ψ: the square of b is four times what it should be."""

    def forward(r, t, parameters):
        E, (b, base, b_cache) = RIGHT["cusp_energy_forward"](r, t, parameters)
        constant = parameters[1]
        return constant + 4 * (E - constant), (2 * b, base, b_cache)

    def backward(dE, cache):
        return RIGHT["cusp_energy_backward"](2 * dE, cache)

    return pair("cusp_energy", forward, backward)
