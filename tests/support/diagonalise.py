"""Ground states of small quantum systems by diagonalisation, converged: what energies of learned drifts are held to.

    H = −½ d²/dx² + V(x)                      on a line: `levels`, `log_ground_state`
    H = −½ (d²/ρ² + 1/ρ d/dρ) + V(ρ)          in a plane, without angular momentum: `radial_levels`
"""

import numpy as np
from scipy.interpolate import CubicSpline

EDGE, POINTS = 6.0, 240  # of the line


def levels(V, edge=EDGE, n=POINTS):
    """Energies, ascending, and the wave functions as columns on the grid (n,): V a function of an array.

    Basis functions are sin(x)/x of the grid's spacing h, in which the kinetic energy is known in closed form (Colbert & Miller
    1992): π²/6h² on the diagonal, (−1)^(i−j)/(h (i−j))² beside it. The error falls exponentially in 1/h.
    """
    x, h = np.linspace(-edge, edge, n, retstep=True)
    apart = np.arange(n)[:, None] - np.arange(n)
    kinetic = (-1.0) ** apart / (h * np.where(apart, apart, 1)) ** 2
    np.fill_diagonal(kinetic, np.pi**2 / (6 * h**2))
    energies, states = np.linalg.eigh(kinetic + np.diag(V(x)))
    return energies, states, x


def log_ground_state(V, edge=EDGE, n=POINTS):
    """log φ0 as a spline on [−edge, edge]; its derivative is the best drift. Where φ0 is lost in rounding it is left out."""
    _, states, x = levels(V, edge, n)
    inside = states[:, 0] ** 2 > 1e-18 * (states[:, 0] ** 2).max()
    return CubicSpline(x[inside], np.log(np.abs(states[inside, 0])))


def radial_levels(V, n=60, omega=2.0):
    """Energies, ascending, of H = −½ ∇² + V(ρ) in the plane without angular momentum.

    The basis are the first n such states of the oscillator of frequency ω, L_k(ω ρ²) e^(−ω ρ²/2) √(ω/π), with the energies
    ω (2k + 1); V − ½ ω² ρ² is integrated by a Gauss–Laguerre rule in ω ρ², in which they are orthonormal.
    """
    u, weights = np.polynomial.laguerre.laggauss(150)
    basis = np.polynomial.laguerre.lagvander(u, n - 1)  # (points, n), ∫ L_j L_k e^−u du = δ_jk
    rho = np.sqrt(u / omega)
    rest = V(rho) - 0.5 * omega**2 * rho**2
    return np.linalg.eigvalsh(np.diag(omega * (2 * np.arange(n) + 1)) + basis.T @ (basis * (weights * rest)[:, None]))


def two_bosons(g, s=0.5):
    """The energy of two bosons in a plane, ω = 1: 1 for the centre of mass, and that of x = (r_1 − r_2)/√2, which is a particle
    in ½ x² + g/(π s²) e^(−2 x²/s²)."""
    return 1 + radial_levels(lambda rho: 0.5 * rho**2 + g / (np.pi * s**2) * np.exp(-2 * rho**2 / s**2))[0]
