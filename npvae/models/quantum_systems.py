"""Quantum systems whose ground state a drift can learn, by name: potential, known drift, exact energy, settings.

    system("hydrogen_molecule", distance=2.8)

    H = −½ Σ_i ∇_i² + V(r_1, ..., r_N)                  ħ = 1, masses 1; hartree and bohr where there are charges

Particle i has the columns i d to (i + 1) d of the walkers r (B, N d). Exact energies are closed forms, or numbers that have
converged in all digits given; those of one and two coordinates are held to diagonalisations in tests/test_quantum_systems.py.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.ops import cusps, potentials
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
BOSONS_OF_THE_PAPER = {(2, 15.0): 2.7254, (3, 15.0): 4.9705, (4, 15.0): 7.6566}
DOUBLE_WELL = {(4.0, 1): 2.28964955, (4.0, 3): 2.752077508}  # (height, d) -> energy


class System(NamedTuple):
    """A system and what is known of it."""

    name: str
    n_particles: int
    n_dimensions: int  # of each particle
    potential: Field  # V, (B, N d) -> (B,)
    base: Field  # the drift b = ∇ log ψ_b that is known, (B, N d) -> (B, N d): a network adds to it
    local_energy: Field  # (H ψ_b)/ψ_b = V − ½ (|b|² + ∇·b), (B, N d) -> (B,)
    symmetric: bool  # the particles can be exchanged without a change of sign: bosons, two electrons of opposite spin
    positions: tuple  # of the nuclei, (A, d)
    centres: tuple  # what a drift is measured from: the nuclei, or the middle of the trap, (A, d)
    exact: float | None  # energy of the ground state
    paper: float | None  # that of Barr, Gispen & Lamacraft 2020
    source: str  # of the exact energy
    unit: str  # of energies: hartree; none in a trap, where ħ and masses are 1
    start: Callable  # where walkers begin, a function of standard normals: (B, N d) -> (B, N d)
    defaults: dict  # how a drift is trained where nothing else is said: options of the model, and the learning rate

    @property
    def n_columns(self):
        return self.n_particles * self.n_dimensions


def system(name, **numbers):
    """The System of this name; numbers other than its own defaults as keywords: system("bosons", n_particles=3, g=14)."""
    checks.choice("system", name, SYSTEMS)
    known = inspect.signature(SYSTEMS[name]).parameters
    for number in numbers:
        if number not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no numbers"
            raise ValueError(f"the system {name} {takes}; got {number}")
    return SYSTEMS[name](**numbers)


# ----------------------------------------------------------------------------------------------- one and two coordinates


def oscillator(omega=1.0, n_dimensions=1):
    """A particle in V = ½ ω² r². The base is half of the answer v = −ω r."""
    omega, n_dimensions = positive("omega", omega), checks.integer("n_dimensions", n_dimensions, 1)
    return trapped(
        "oscillator", 1, n_dimensions, (harmonic(omega**2),), 0.5 * omega, 0.5 * n_dimensions * omega, "d ω/2",
        settings(0.05 / omega, 20, 256, (16, 16), 1e-2),
    )  # fmt: skip


def quartic():
    """A particle in V = x⁴."""
    return trapped("quartic", 1, 1, (series(0, 0, 0, 0, 1),), 1.0, 0.667986259, "diagonalisation",
                   settings(0.02, 50, 256, (16, 16), 1e-2))  # fmt: skip


def double_well(height=4.0, n_dimensions=1):
    """A particle in V = h (|r|² − 1)², on a line with wells at −1 and 1.

    In three dimensions the ground state is φ1(|r|)/|r|, with the first excited state φ1 of the line, which is 0 between the
    wells, and has its energy: what it lies above the ground state of the line is the splitting of the double well.
    """
    height, n_dimensions = positive("height", height), checks.integer("n_dimensions", n_dimensions, 1)
    hat = Field(potentials.hat_forward, potentials.hat_backward, height)
    well = series(height, 0, -2 * height, 0, height) if n_dimensions == 1 else hat
    return trapped("double_well", 1, n_dimensions, (well,), 1.0, DOUBLE_WELL.get((height, n_dimensions)), "diagonalisation",
                   settings(0.02, 50, 256, (16, 16), 1e-2))  # fmt: skip


def coupled(omega=1.0, stiffness=2.0):
    """Two particles on a line, oscillators with a spring between them: V = ½ ω² (x_1² + x_2²) + ½ k (x_1 − x_2)².

    Their sum keeps the frequency ω, their difference has √(ω² + 2 k).
    """
    omega, stiffness = positive("omega", omega), checks.number("stiffness", stiffness, 0)
    spring = Field(potentials.springs_forward, potentials.springs_backward, (stiffness, 1))
    exact = 0.5 * (omega + math.sqrt(omega**2 + 2 * stiffness))
    return trapped("coupled", 2, 1, (harmonic(omega**2), spring), omega, exact, "½ (ω + √(ω² + 2 k))",
                   settings(0.04 / omega, 25, 256, (16, 16), 5e-3))  # fmt: skip


def bosons(n_particles=2, g=15.0, s=0.5, omega=1.0):
    """Bosons in a plane, in V = ½ ω² Σ r² + Σ_{i<j} g/(π s²) e^(−|r_i − r_j|²/s²). Mujal, Sarlé, Polls & Juliá-Díaz 2017."""
    n_particles, g = checks.integer("n_particles", n_particles, 2), checks.number("g", g, 0)
    s, omega = positive("s", s), positive("omega", omega)
    contact = Field(potentials.gaussians_forward, potentials.gaussians_backward, (g, s))
    published = (s, omega) == (0.5, 1.0)
    exact = n_particles * omega if g == 0 else BOSONS.get((n_particles, g)) if published else None
    source = "diagonalisation" if n_particles == 2 else "diagonalisation of Mujal et al. 2017"
    found = trapped("bosons", n_particles, 2, (harmonic(omega**2), contact), omega, exact, source,
                    settings(0.04 / omega, 25, 256, (32, 32), 5e-3))  # fmt: skip
    return found._replace(paper=BOSONS_OF_THE_PAPER.get((n_particles, g))) if published else found


def trapped(name, n_particles, n_dimensions, parts, omega, exact, source, defaults):
    """Particles in the potential Σ `parts`, with the base b = −ω r: E_b = V − ½ ω² Σ r² + ½ N d ω."""
    base = Field(cusps.linear_forward, cusps.linear_backward, omega)
    zero_point = Field(potentials.constant_forward, potentials.constant_backward, 0.5 * omega * n_particles * n_dimensions)
    local_energy = potentials.sum_of(*parts, harmonic(-(omega**2)), zero_point)
    return System(name, n_particles, n_dimensions, potentials.sum_of(*parts), base, local_energy, n_particles > 1, (),
                  ((0.0,) * n_dimensions,), exact, None, source, "",
                  partial(spread, (2 * omega) ** -0.5), defaults)  # fmt: skip


# --------------------------------------------------------------------------------------------------- atoms and a molecule


def hydrogen(cusp=1.0):
    """The hydrogen atom, with the base b = −cusp r/|r|. Its cusp is its ground state, φ0 = e^−s: with all of it, 1, nothing is
    left to be learned, and with less a part of the nucleus's attraction stays in the local energy, which is not bounded."""
    cusp, position = positive("cusp", cusp), ((0.0, 0.0, 0.0),)
    nuclei, remaining = (position, (1.0,)), (position, (1.0 - cusp,))
    base = Field(cusps.nuclear_forward, cusps.nuclear_backward, (position, (cusp,)))
    found = with_cusps("hydrogen", 1, (attraction(nuclei),), base, 0.0, nuclei, -0.5, -0.497, "−½", partial(spread, 1.0),
                       settings(0.02, 25, 256, (32, 32), 1e-3))  # fmt: skip
    return found if cusp == 1 else found._replace(local_energy=potentials.sum_of(attraction(remaining), found.local_energy))


def helium():
    """The helium atom, two electrons of opposite spin. The base has all cusps."""
    return electron_pair("helium", (((0.0, 0.0, 0.0),), (2.0,)), 0.0, -2.903724, -2.898, "Pekeris 1959",
                         partial(spread, 0.6), settings(0.02, 25, 256, (32, 32), 1e-3))  # fmt: skip


def hydrogen_molecule(distance=1.401):
    """Two electrons of opposite spin and two nuclei `distance` bohr apart, with their repulsion 1/R. The base has all cusps."""
    distance = positive("distance", distance)
    above, below = (0.0, 0.0, 0.5 * distance), (0.0, 0.0, -0.5 * distance)
    start = partial(spread, 0.7, around=above + below)  # an electron at each nucleus
    return electron_pair("hydrogen_molecule", ((above, below), (1.0, 1.0)), 1 / distance, HYDROGEN_MOLECULE.get(distance),
                         {1.401: -1.169, 2.8: -1.068}.get(distance), "Wolniewicz 1995", start,
                         settings(0.02, 25, 256, (32, 32), 1e-3))  # fmt: skip


def electron_pair(name, nuclei, constant, exact, paper, source, start, defaults):
    """Two electrons of opposite spin in the field of nuclei, (positions, charges), whose own energy is `constant`."""
    repulsion = Field(potentials.repulsion_forward, potentials.repulsion_backward, 3)
    nuclear = Field(cusps.nuclear_forward, cusps.nuclear_backward, nuclei)
    electronic = Field(cusps.electronic_forward, cusps.electronic_backward, (0.5, 3))
    base = potentials.sum_of(nuclear, electronic)
    return with_cusps(name, 2, (attraction(nuclei), repulsion), base, constant, nuclei, exact, paper, source, start, defaults)


def with_cusps(name, n_particles, parts, base, constant, nuclei, exact, paper, source, start, defaults):
    """Charges with the potential Σ `parts` + constant and a base that has every cusp of it."""
    own = Field(potentials.constant_forward, potentials.constant_backward, constant)
    local_energy = Field(cusps.cusp_energy_forward, cusps.cusp_energy_backward, (base, constant))
    return System(name, n_particles, 3, potentials.sum_of(*parts, own), base, local_energy, n_particles > 1, nuclei[0],
                  nuclei[0], exact, paper, source, "hartree", start, defaults)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- parts


def harmonic(stiffness):
    return Field(potentials.harmonic_forward, potentials.harmonic_backward, stiffness)


def series(*coefficients):
    return Field(potentials.series_forward, potentials.series_backward, tuple(map(float, coefficients)))


def attraction(nuclei):
    return Field(potentials.attraction_forward, potentials.attraction_backward, nuclei)


def settings(dt, n_steps, n_walkers, hidden, learning_rate):
    """dt is the length of a step; a walker goes n_steps from one update of the drift to the next."""
    return {"dt": dt, "n_steps": n_steps, "n_walkers": n_walkers, "hidden": hidden, "activation": "tanh",
            "learning_rate": learning_rate}  # fmt: skip


def spread(width, eps, around=0.0):
    """Walkers of this width around a place (N d,): eps (B, N d) standard normal -> (B, N d)."""
    return width * eps + np.asarray(around, eps.dtype)


def positive(name, value):
    return checks.number(name, value, 0, exclusive=True)


SYSTEMS = {
    function.__name__: function
    for function in (oscillator, quartic, double_well, coupled, bosons, hydrogen, helium, hydrogen_molecule)
}
