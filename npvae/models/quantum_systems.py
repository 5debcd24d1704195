"""Quantum systems whose ground state a drift can learn, by name: potential, known drift, exact energy, how to train.

    system("hydrogen_molecule", distance=2.8)

    H = −½ Σ_i ∇_i² + V(r_1, ..., r_N)                  ħ = 1, masses 1; hartree and bohr where there are charges

Particle i has the columns i d to (i + 1) d of the walkers r (B, N d). Exact energies are closed forms, or numbers that have
converged in all digits given; those of one and two coordinates are held to diagonalisations in tests/test_quantum_systems.py.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.ops import cusps, potentials
from npvae.ops.potentials import Potential
from npvae.ops.sde import Field

HYDROGEN_MOLECULE = {  # distance R in bohr -> energy in hartree, rounded: Wolniewicz 1995; Pachucki 2010, table III, agrees
    0.8: -1.020057, 1.0: -1.124540, 1.2: -1.164935, 1.4: -1.174476, 1.401: -1.174476, 1.6: -1.168583, 1.8: -1.155069,
    2.0: -1.138133, 2.2: -1.120132, 2.4: -1.102423, 2.6: -1.085791, 2.8: -1.070683, 3.0: -1.057326, 3.2: -1.045800,
    4.0: -1.016390,
}  # fmt: skip
BOSONS = {  # (N, g) -> energy at s = ½, ω = 1. N = 2: diagonalisation; N = 3, 4: Mujal et al. 2017, a little above the truth
    (2, 3.0): 2.311983, (2, 6.0): 2.483966, (2, 9.0): 2.589980, (2, 12.0): 2.662219, (2, 15.0): 2.715321, (3, 3.0): 3.886440,
    (3, 6.0): 4.347589, (3, 9.0): 4.625953, (3, 12.0): 4.812885, (3, 14.0): 4.907697, (4, 3.0): 5.694597, (4, 6.0): 6.548147,
    (4, 16.0): 7.725793,
}  # fmt: skip
DOUBLE_WELL = {4.0: 2.28964955}  # height -> energy


class Settings(NamedTuple):
    """How a drift is trained where nothing else is said."""

    dt: float  # length of a time step
    n_steps: int  # that a walker goes from one update of the drift to the next
    n_walkers: int
    hidden: tuple  # widths of the hidden layers of the network
    learning_rate: float


class System(NamedTuple):
    """A system and what is known of it."""

    name: str
    n_particles: int
    n_dimensions: int  # of each particle
    potential: Potential
    base: Field  # the drift that is known, without trained parameters: a network adds to it
    symmetric: bool  # the particles can be exchanged without a change of sign: bosons, two electrons of opposite spin
    positions: tuple  # of the nuclei, (A, d)
    exact: float | None  # energy of the ground state
    paper: float | None  # that of Barr, Gispen & Lamacraft 2020
    source: str  # of the exact energy
    start: Callable  # where walkers begin, a function of standard normals: (B, N d) -> (B, N d)
    settings: Settings

    @property
    def n_columns(self):
        return self.n_particles * self.n_dimensions


def system(name, **numbers):
    """The System of this name; numbers other than its own defaults as keywords: system("bosons", n_particles=3, g=14)."""
    checks.choice("system", name, SYSTEMS)
    return SYSTEMS[name](**numbers)


# ----------------------------------------------------------------------------------------------- one and two coordinates


def oscillator(omega=1.0, n_dimensions=1):
    """A particle in V = ½ ω² r². The base is half of the answer v = −ω r."""
    omega, n_dimensions = positive("omega", omega), checks.integer("n_dimensions", n_dimensions, 1)
    return System(
        "oscillator", 1, n_dimensions, harmonic(omega), linear(0.5 * omega), False, (), 0.5 * n_dimensions * omega, None,
        "d ω/2", around(omega**-0.5), Settings(0.05 / omega, 64, 512, (32, 32), 1e-2),
    )  # fmt: skip


def quartic():
    """A particle in V = x⁴."""
    settings = Settings(0.02, 100, 512, (32, 32), 1e-2)
    return System("quartic", 1, 1, series(0, 0, 0, 0, 1), linear(1.0), False, (), 0.667986259, None, "diagonalisation",
                  around(0.6), settings)  # fmt: skip


def double_well(height=4.0):
    """A particle in V = h (x² − 1)², with wells at −1 and 1."""
    height = positive("height", height)
    settings = Settings(0.02, 100, 512, (32, 32), 1e-2)
    return System("double_well", 1, 1, series(height, 0, -2 * height, 0, height), linear(1.0), False, (),
                  DOUBLE_WELL.get(height), None, "diagonalisation", around(1.0), settings)  # fmt: skip


def coupled(omega=1.0, stiffness=2.0):
    """Two particles on a line, oscillators with a spring between them: V = ½ ω² (x_1² + x_2²) + ½ k (x_1 − x_2)².

    Their sum keeps the frequency ω, their difference has √(ω² + 2 k).
    """
    omega, stiffness = positive("omega", omega), checks.number("stiffness", stiffness, 0)
    spring = Potential(potentials.springs_forward, potentials.springs_backward, (stiffness, 1))
    exact = 0.5 * (omega + math.sqrt(omega**2 + 2 * stiffness))
    return System(
        "coupled", 2, 1, potentials.total(harmonic(omega), spring), linear(omega), True, (), exact, None,
        "½ (ω + √(ω² + 2 k))", around(omega**-0.5), Settings(0.02 / omega, 100, 512, (32, 32), 1e-2),
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- atoms and a molecule


def hydrogen():
    """The hydrogen atom. The base is v = −r, without the cusp: v = −r/|r| is the whole answer."""
    attraction = nuclei(((0.0, 0.0, 0.0),), (1.0,))
    settings = Settings(0.01, 100, 1024, (64, 64), 3e-3)
    return System("hydrogen", 1, 3, attraction, linear(1.0), False, ((0.0, 0.0, 0.0),), -0.5, -0.497, "−½", around(1.0),
                  settings)  # fmt: skip


def helium():
    """The helium atom, two electrons of opposite spin. The base has all three cusps."""
    settings = Settings(0.01, 100, 1024, (64, 64), 1e-3)
    return electron_pair("helium", ((0.0, 0.0, 0.0),), (2.0,), -2.903724, -2.898, "Hylleraas; Pekeris 1959", around(0.6),
                         settings)  # fmt: skip


def hydrogen_molecule(distance=1.401):
    """Two electrons of opposite spin and two nuclei `distance` bohr apart, whose repulsion 1/R is part of V. The base has all
    cusps."""
    distance = positive("distance", distance)
    half = 0.5 * distance

    def start(eps):
        near = np.array([0, 0, half, 0, 0, -half], eps.dtype)  # an electron at each nucleus
        return 0.7 * eps + near

    paper = {1.401: -1.169, 2.8: -1.068}.get(distance)
    settings = Settings(0.01, 100, 1024, (64, 64), 1e-3)
    return electron_pair("hydrogen_molecule", ((0.0, 0.0, half), (0.0, 0.0, -half)), (1.0, 1.0),
                         HYDROGEN_MOLECULE.get(distance), paper, "Wolniewicz 1995", start, settings)  # fmt: skip


def electron_pair(name, positions, charges, exact, paper, source, start, settings):
    """Two electrons of opposite spin in the field of nuclei."""
    attraction = nuclei(positions, charges)
    repulsion = Potential(potentials.repulsion_forward, potentials.repulsion_backward, 3)
    nuclear = Field(cusps.nuclear_forward, cusps.nuclear_backward, attraction.parameters)
    electronic = Field(cusps.electronic_forward, cusps.electronic_backward, (0.5, 3))
    return System(name, 2, 3, potentials.total(attraction, repulsion), cusps.sum_of(nuclear, electronic), True, positions,
                  exact, paper, source, start, settings)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ bosons


def bosons(n_particles=2, g=15.0, s=0.5, omega=1.0):
    """Bosons in a plane, in V = ½ ω² Σ r² + Σ_{i<j} g/(π s²) e^(−|r_i − r_j|²/s²). Mujal, Sarlé, Polls & Juliá-Díaz 2017."""
    n_particles, g = checks.integer("n_particles", n_particles, 2), checks.number("g", g, 0)
    s, omega = positive("s", s), positive("omega", omega)
    contact = Potential(potentials.gaussians_forward, potentials.gaussians_backward, (g, s))
    exact = float(n_particles) * omega if g == 0 else BOSONS.get((n_particles, g)) if (s, omega) == (0.5, 1.0) else None
    paper = {(2, 15.0): 2.7254, (3, 15.0): 4.9705, (4, 16.0): 7.6566}.get((n_particles, g))
    source = "diagonalisation" if n_particles == 2 else "diagonalisation of Mujal et al. 2017"
    return System(
        "bosons", n_particles, 2, potentials.total(harmonic(omega), contact), linear(omega), True, (), exact, paper, source,
        around(omega**-0.5), Settings(0.02 / omega, 100, 512, (64, 64), 3e-3),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- parts


def harmonic(omega):
    return Potential(potentials.harmonic_forward, potentials.harmonic_backward, omega)


def series(*coefficients):
    return Potential(potentials.series_forward, potentials.series_backward, tuple(map(float, coefficients)))


def nuclei(positions, charges):
    return Potential(potentials.attraction_forward, potentials.attraction_backward, (positions, charges))


def linear(omega):
    """The drift v = −ω r."""
    return Field(cusps.oscillator_forward, cusps.oscillator_backward, omega)


def around(width):
    """Walkers that begin around 0."""
    return lambda eps: width * eps


def positive(name, value):
    return checks.number(name, value, 0, exclusive=True)


SYSTEMS = {
    function.__name__: function
    for function in (oscillator, quartic, double_well, coupled, hydrogen, helium, hydrogen_molecule, bosons)
}
