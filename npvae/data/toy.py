"""Eight densities in the plane to try a model on, each with samples, its log-density and its entropy.

All have mean about 0 and standard deviation about 1 in each direction. The entropy H = −E[log p] is the smallest mean of
−log q(x), in nats per datum, that any model q can reach.

    ring          8 Gaussians on a circle                          log p in closed form, entropy by quadrature
    moons         two half circles, interleaved, with noise        log p and entropy by quadrature
    spirals       two arms that wind 1½ times, with noise          log p and entropy by quadrature
    checkerboard  uniform on the 8 dark squares of a 4 × 4 board   both in closed form
    pinwheel      5 Gaussian arms, twisted                         log p in closed form, entropy by quadrature
    circles       two concentric circles, with noise               log p in closed form, entropy by quadrature
    banana        a Gaussian bent along a parabola                 both in closed form
    funnel        a Gaussian whose width depends on the other      both in closed form
                  coordinate (Neal 2003, section 8, in two dimensions)

"By quadrature" means to 1e-9 or better, in log p where p is above 1e-100.

Shapes: n points, x (n, 2).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.core.numerics import log_sum_exp

CHUNK = 4096  # points at a time, so that a quadrature over many of them needs little memory
LOG_2PI = math.log(2 * math.pi)

RING_CENTRES, RING_RADIUS, RING_SIGMA = 8, 1.4, 0.175
MOONS_RADIUS, MOONS_SIGMA = 1.4, 0.14
SPIRALS_RADIUS, SPIRALS_ANGLE, SPIRALS_SIGMA = 2.0, 3 * math.pi, 0.1
SQUARE = math.sqrt(3) / 2  # side of a square of the checkerboard
ARMS, ARM_RADIUS, ARM_LENGTH, ARM_WIDTH, TWIST = 5, 1.35, 0.4, 0.13, 0.6  # of the pinwheel; twist: radians per unit radius
CIRCLES_RADII, CIRCLES_SIGMA = (0.9, 1.8), 0.15
BANANA_SIGMA, BEND = 0.5, 0.6
FUNNEL_SIGMA = 0.8


def polar(radius, angle):
    """Points (radius cos angle, radius sin angle): (..., 2)."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def log_normal(residual, sigma):
    """log N(residual; 0, σ² I) in two dimensions: (..., 2) -> (...)."""
    return -0.5 * (residual * residual).sum(axis=-1) / sigma**2 - LOG_2PI - 2 * math.log(sigma)


def log_mixture(x, centres, weights, sigma):
    """log Σ_k weights_k N(x; centres_k, σ² I): x (n, 2), centres (K, 2), weights (K,) -> (n,)."""
    parts = [x[start : start + CHUNK] for start in range(0, len(x), CHUNK)]
    log_weights = np.log(weights)[:, None]
    return np.concatenate([log_sum_exp(log_weights + log_normal(part - centres[:, None], sigma)) for part in parts])


# ---- Gaussians on a ring ----


def ring_centres():
    return polar(RING_RADIUS, 2 * np.pi * np.arange(RING_CENTRES) / RING_CENTRES)  # (8, 2)


def sample_ring(n, rng):
    return ring_centres()[rng.integers(RING_CENTRES, size=n)] + RING_SIGMA * rng.standard_normal((n, 2))


def log_ring(x):
    return log_mixture(x, ring_centres(), np.full(RING_CENTRES, 1 / RING_CENTRES), RING_SIGMA)


# ---- noisy curves: p(x) = ∫ N(x; curve(u), σ² I) w(u) du, by Gauss–Legendre quadrature over the curve ----


def moons_curves(u):
    """The two half circles at u in [0, 1], with weight w(u) = 1: (2, ..., 2)."""
    upper = polar(1, np.pi * u) - [0.5, 0.25]
    return MOONS_RADIUS * np.stack([upper, -upper])


def spirals_curves(u):
    """The two arms at u in [0, 1]: the radius grows with the angle, and w(u) = 2u: (2, ..., 2)."""
    arm = polar(SPIRALS_RADIUS * u, SPIRALS_ANGLE * u)
    return np.stack([arm, -arm])


def sample_curves(curves, u, sigma, rng):
    """One point on either curve at each u (n,), with noise: (n, 2)."""
    n = len(u)
    return curves(u)[rng.integers(2, size=n), np.arange(n)] + sigma * rng.standard_normal((n, 2))


def log_curves(x, curves, power, sigma, n_nodes):
    """log p of two noisy curves with w(u) = (power + 1) u^power, with n_nodes nodes on each curve: x (n, 2) -> (n,)."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)  # on [−1, 1]
    u, weights = (nodes + 1) / 2, weights / 2
    weights = weights * (power + 1) * u**power / 2  # either curve has half of the mass
    return log_mixture(x, curves(u).reshape(-1, 2), np.concatenate([weights, weights]), sigma)


def sample_moons(n, rng):
    return sample_curves(moons_curves, rng.uniform(size=n), MOONS_SIGMA, rng)


def log_moons(x):
    return log_curves(x, moons_curves, 0, MOONS_SIGMA, 96)


def sample_spirals(n, rng):
    u = np.sqrt(rng.uniform(size=n))  # has the density 2u
    return sample_curves(spirals_curves, u, SPIRALS_SIGMA, rng)


def log_spirals(x):
    return log_curves(x, spirals_curves, 1, SPIRALS_SIGMA, 320)


# ---- checkerboard ----


def sample_checkerboard(n, rng):
    row = rng.integers(4, size=n)
    column = 2 * rng.integers(2, size=n) + row % 2
    return SQUARE * (np.stack([column, row], axis=1) - 2 + rng.uniform(size=(n, 2)))


def log_checkerboard(x):
    column, row = np.floor(x / SQUARE).T + 2
    on_dark = (column >= 0) & (column < 4) & (row >= 0) & (row < 4) & ((column + row) % 2 == 0)
    return np.where(on_dark, -checkerboard_entropy(), -np.inf)


def checkerboard_entropy():
    return math.log(8 * SQUARE**2)


# ---- pinwheel: a Gaussian arm, turned by the arm's angle plus a twist that grows with the radius ----


def turned(x, angle):
    """x (..., 2) turned by angle (...): a rotation by an angle that depends on the radius alone keeps areas."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], axis=-1)


def sample_pinwheel(n, rng):
    arm = 2 * np.pi * rng.integers(ARMS, size=n) / ARMS
    x = rng.standard_normal((n, 2)) * [ARM_LENGTH, ARM_WIDTH] + [ARM_RADIUS, 0]
    return turned(x, arm + TWIST * np.hypot(*x.T))


def log_pinwheel(x):
    arms = 2 * np.pi * np.arange(ARMS)[:, None] / ARMS
    straight = turned(x, -arms - TWIST * np.hypot(*x.T))  # (5, n, 2)
    scaled = (straight - [ARM_RADIUS, 0]) / [ARM_LENGTH, ARM_WIDTH]
    return log_sum_exp(log_normal(scaled, 1)) - math.log(ARMS * ARM_LENGTH * ARM_WIDTH)


# ---- circles ----


def sample_circles(n, rng):
    radius = rng.choice(CIRCLES_RADII, size=n)
    return polar(radius, 2 * np.pi * rng.uniform(size=n)) + CIRCLES_SIGMA * rng.standard_normal((n, 2))


def log_circles(x):
    """The noise averaged over a circle of radius R: e^(−(r² + R²)/2σ²) I₀(rR/σ²)/2πσ² at distance r from the centre."""
    from scipy.special import i0e  # I₀(t) e^−t, without overflow

    r, R = np.hypot(*x.T), np.array(CIRCLES_RADII)[:, None]  # (n,), (2, 1)
    log_parts = -0.5 * ((r - R) / CIRCLES_SIGMA) ** 2 + np.log(i0e(r * R / CIRCLES_SIGMA**2))
    return log_sum_exp(log_parts) - math.log(2) - LOG_2PI - 2 * math.log(CIRCLES_SIGMA)


# ---- banana and funnel: Gaussians under maps whose determinant is known ----


def sample_banana(n, rng):
    first, second = rng.standard_normal((2, n))
    return np.stack([first, BANANA_SIGMA * second + BEND * (first * first - 1)], axis=1)


def log_banana(x):
    first, second = x.T
    second = (second - BEND * (first * first - 1)) / BANANA_SIGMA
    return -0.5 * (first * first + second * second) - LOG_2PI - math.log(BANANA_SIGMA)


def banana_entropy():
    return 1 + LOG_2PI + math.log(BANANA_SIGMA)  # of the two Gaussians: bending keeps areas


def sample_funnel(n, rng):
    first, second = rng.standard_normal((2, n))
    return np.stack([first, FUNNEL_SIGMA * np.exp(first / 2) * second], axis=1)


def log_funnel(x):
    first, second = x.T
    second = second * np.exp(-first / 2) / FUNNEL_SIGMA
    return -0.5 * (first * first + second * second) - LOG_2PI - math.log(FUNNEL_SIGMA) - first / 2


def funnel_entropy():
    return 1 + LOG_2PI + math.log(FUNNEL_SIGMA)  # + E[first]/2, which is 0


# ---- the table, and what is called from outside ----


class Density(NamedTuple):
    """Functions of one density."""

    sample: Callable  # n, rng -> (n, 2)
    log_density: Callable  # (n, 2) -> (n,)
    entropy: Callable | None = None  # in closed form; None: by quadrature


DENSITIES = {
    "ring": Density(sample_ring, log_ring),
    "moons": Density(sample_moons, log_moons),
    "spirals": Density(sample_spirals, log_spirals),
    "checkerboard": Density(sample_checkerboard, log_checkerboard, checkerboard_entropy),
    "pinwheel": Density(sample_pinwheel, log_pinwheel),
    "circles": Density(sample_circles, log_circles),
    "banana": Density(sample_banana, log_banana, banana_entropy),
    "funnel": Density(sample_funnel, log_funnel, funnel_entropy),
}
NAMES = tuple(DENSITIES)


def sample(name, n, rng=None):
    """n points of the density `name`, (n, 2) float64; rng is a Generator or a seed. ValueError for an unknown name."""
    checks.choice("name", name, NAMES)
    return DENSITIES[name].sample(checks.integer("n", n, 1), np.random.default_rng(rng))


def log_density(name, x):
    """log p(x) in nats: x (n, 2) -> (n,); −inf outside the checkerboard's squares."""
    checks.choice("name", name, NAMES)
    x = checks.real_array("x", x, n_columns=2).astype(np.float64)
    checks.finite("x", x)
    return DENSITIES[name].log_density(x)


@functools.cache
def entropy(name):
    """H = −∫ p log p in nats, exact or by quadrature to 1e-9."""
    checks.choice("name", name, NAMES)
    density = DENSITIES[name]
    return density.entropy() if density.entropy else entropy_by_quadrature(density.log_density)


def entropy_by_quadrature(log_density, limit=4.0, step=1 / 32):
    """−∫ p log p over the square [−limit, limit]² by the trapezoidal rule, whose error falls exponentially with 1/step for a
    smooth density that vanishes at the border."""
    line = np.arange(-limit, limit + step / 2, step)
    log_p = log_density(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))
    return float(-(np.exp(log_p) * log_p).sum() * step**2)


def dataset_rows(name, n_train=50_000, n_val=10_000, seed=0):
    """Rows to train and to validate on: (n_train, 2), (n_val, 2) float64, independent draws and a pure function of seed."""
    return tuple(sample(name, n, np.random.default_rng([seed, part])) for part, n in enumerate((n_train, n_val)))
