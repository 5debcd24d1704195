"""Potentials of quantum systems: against scalar twins, their forces by the complex step, Newton's third law, known values."""

import math

import naive
import numpy as np
import pytest

from npvae.ops import potentials
from npvae.ops.sde import Field

NUCLEI = ((0.0, 0.1, -0.7), (0.2, 0.0, 0.8)), (1.0, 2.0)
COEFFICIENTS = (0.3, -0.2, 1.1, 0.4, 0.7)


def of_pairs(r, d, value):
    """Σ_{i<j} value(|r_i − r_j|) of one walker r (N d,)."""
    places = [r[i : i + d] for i in range(0, len(r), d)]
    return math.fsum(value(math.dist(places[i], places[j])) for j in range(len(places)) for i in range(j))


def to_nuclei(r):
    """−Σ Z/s of one walker r (3 N,)."""
    places = [r[i : i + 3] for i in range(0, len(r), 3)]
    return -math.fsum(Z / math.dist(place, R) for place in places for R, Z in zip(*NUCLEI))


CASES = {  # name -> columns of r, parameters, V of one walker as a list
    "harmonic": (4, 1.7, lambda r: 0.85 * math.fsum(x * x for x in r)),
    "series": (3, COEFFICIENTS, lambda r: math.fsum(c * x**k for x in r for k, c in enumerate(COEFFICIENTS))),
    "hat": (3, 1.3, lambda r: 1.3 * (math.fsum(x * x for x in r) - 1) ** 2),
    "springs": (6, (0.7, 2), lambda r: of_pairs(r, 2, lambda s: 0.35 * s * s)),
    "gaussians": (8, (3.0, 0.6), lambda r: of_pairs(r, 2, lambda s: 3 / (math.pi * 0.36) * math.exp(-s * s / 0.36))),
    "attraction": (6, NUCLEI, to_nuclei),
    "repulsion": (9, 3, lambda r: of_pairs(r, 3, lambda s: 1 / s)),
    "constant": (2, -1.3, lambda r: -1.3),
}
cases = pytest.mark.parametrize("name", CASES)


def field(name):
    return Field(*(getattr(potentials, f"{name}_{way}") for way in ("forward", "backward")), CASES[name][1])


def walkers(name, B=5, dtype="float64"):
    return 0.5 * naive.draw(np.random.default_rng(1), (B, CASES[name][0]), dtype)


@cases
def test_a_potential_equals_its_twin(name):
    for dtype in ("float64", "float32"):
        r, (forward, backward, parameters) = walkers(name, dtype=dtype), field(name)
        V, cache = forward(r, 0.0, parameters)
        dr, others = backward(V, cache)
        assert (V.dtype, dr.dtype, dr.shape, others) == (dtype, dtype, r.shape, [])
        naive.assert_close(V, [CASES[name][2](row) for row in r.tolist()], dtype)


def assert_force(name):
    r, (forward, backward, parameters) = walkers(name), field(name)
    dV = np.random.default_rng(2).standard_normal(len(r))
    dr, _ = backward(dV, forward(r, 0.0, parameters)[1])
    naive.assert_is_gradient(dr, lambda r: (dV * forward(r, 0.0, parameters)[0]).sum(), r)


def test_HARMONIC_is_the_derivative():
    assert_force("harmonic")


def test_SERIES_is_the_derivative():
    assert_force("series")


def test_HAT_is_the_derivative():
    assert_force("hat")


def test_SPRINGS_is_the_derivative():
    assert_force("springs")


def test_GAUSSIANS_is_the_derivative():
    assert_force("gaussians")


def test_ATTRACTION_is_the_derivative():
    assert_force("attraction")


def test_REPULSION_is_the_derivative():
    assert_force("repulsion")


@cases
def test_a_potential_is_pure_and_linear(name):
    forward, backward, parameters = field(name)
    dV = np.random.default_rng(2).standard_normal(5)
    naive.assert_pure_and_linear(lambda r: forward(r, 0.0, parameters), (walkers(name),),
                                 lambda dV, cache: backward(dV, cache)[0], (dV,))  # fmt: skip


@pytest.mark.parametrize("name", ["springs", "gaussians", "repulsion"])
def test_forces_between_particles_add_up_to_zero(name):
    forward, backward, parameters = field(name)
    d = {"springs": 2, "gaussians": 2, "repulsion": 3}[name]
    dr, _ = backward(np.ones(5), forward(walkers(name), 0.0, parameters)[1])
    assert np.abs(dr).max() > 0.1
    np.testing.assert_allclose(dr.reshape(5, -1, d).sum(axis=1), 0, atol=1e-13)


def test_a_sum_has_the_values_and_the_forces_of_its_parts():
    parts = [field("attraction"), Field(potentials.repulsion_forward, potentials.repulsion_backward, 3), field("harmonic")]
    whole, r, dV = potentials.sum_of(*parts), walkers("attraction"), np.random.default_rng(2).standard_normal(5)
    results = [part.forward(r, 0.0, part.parameters) for part in parts]
    V, cache = whole.forward(r, 0.0, whole.parameters)
    naive.assert_close(V, sum(value for value, _ in results))
    dr, others = whole.backward(dV, cache)
    naive.assert_close(dr, sum(part.backward(dV, of_part)[0] for part, (_, of_part) in zip(parts, results)))
    assert others == []


def test_values_that_are_known():
    """An electron 2 bohr from a proton, two electrons 4 bohr apart, a contact that integrates to g over the plane."""
    at = np.array([[0.0, 0.0, 2.0]])
    assert potentials.attraction_forward(at, 0.0, (((0.0, 0.0, 0.0),), (1.0,)))[0] == -0.5
    assert potentials.repulsion_forward(np.concatenate([at, -at], axis=1), 0.0, 3)[0] == 0.25
    x = np.linspace(-4, 4, 81)
    r = np.stack([*np.meshgrid(x, x), *np.zeros((2, 81, 81))], axis=-1).reshape(-1, 4)
    assert potentials.gaussians_forward(r, 0.0, (7.0, 0.5))[0].sum() * 0.1**2 == pytest.approx(7.0, rel=1e-12)
