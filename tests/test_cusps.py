"""Known drifts and the energies that they leave: gradients, slopes at the cusps, no infinity where charges meet."""

import naive
import numpy as np
import pytest

from npvae.ops import cusps, potentials
from npvae.ops.sde import Field

NUCLEI = ((0.0, 0.1, -0.7), (0.2, 0.0, 0.8)), (1.0, 2.0)
NUCLEAR = Field(cusps.nuclear_forward, cusps.nuclear_backward, NUCLEI)
ELECTRONIC = Field(cusps.electronic_forward, cusps.electronic_backward, (0.5, 3))
BASE = potentials.sum_of(NUCLEAR, ELECTRONIC)
FIELDS = {
    "linear": Field(cusps.linear_forward, cusps.linear_backward, 1.3),
    "nuclear": NUCLEAR,
    "electronic": ELECTRONIC,
    "cusp energy": Field(cusps.cusp_energy_forward, cusps.cusp_energy_backward, (BASE, 0.6)),
}


def walkers(N=3, dtype="float64"):
    return naive.draw(np.random.default_rng(1), (5, 3 * N), dtype)


def assert_gradient(name):
    r, (forward, backward, parameters) = walkers(), FIELDS[name]
    value, cache = forward(r, 0.0, parameters)
    dvalue = np.random.default_rng(2).standard_normal(value.shape)
    dr, others = backward(dvalue, cache)
    assert others == []
    naive.assert_is_gradient(dr, lambda r: (dvalue * forward(r, 0.0, parameters)[0]).sum(), r)


def test_LINEAR_is_the_derivative():
    assert_gradient("linear")


def test_NUCLEAR_is_the_derivative():
    assert_gradient("nuclear")


def test_ELECTRONIC_is_the_derivative():
    assert_gradient("electronic")


def test_CUSP_ENERGY_is_the_derivative():
    assert_gradient("cusp energy")


def test_UNIT_is_the_derivative():
    x = np.random.default_rng(1).standard_normal((4, 2, 3))
    du = np.random.default_rng(2).standard_normal(x.shape)
    dx = cusps.unit_backward(du, cusps.unit_forward(x)[1])
    naive.assert_is_gradient(dx, lambda x: (du * cusps.unit_forward(x)[0]).sum(), x)
    np.testing.assert_allclose((dx * x).sum(axis=-1), 0, atol=1e-14)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_pure_and_linear_and_stays_float32(name):
    forward, backward, parameters = FIELDS[name]
    value, cache = forward(walkers(dtype="float32"), 0.0, parameters)
    assert value.dtype == backward(value, cache)[0].dtype == np.float32
    dvalue = np.random.default_rng(2).standard_normal(value.shape)
    naive.assert_pure_and_linear(lambda r: forward(r, 0.0, parameters), (walkers(),),
                                 lambda dvalue, cache: backward(dvalue, cache)[0], (dvalue,))  # fmt: skip


@pytest.mark.parametrize("direction", np.random.default_rng(3).standard_normal((3, 3)))
def test_drifts_have_the_slopes_of_the_cusps_where_charges_meet(direction):
    """Along a line through a nucleus of charge Z the drift jumps by −2 Z, through another electron by 2 · ½."""
    unit, (positions, charges) = direction / np.linalg.norm(direction), NUCLEI
    for R, Z in zip(np.array(positions), charges):
        beyond, before = (cusps.nuclear_forward(R + step * unit[None], 0.0, NUCLEI)[0] @ unit for step in (1e-9, -1e-9))
        assert (beyond - before).item() == pytest.approx(-2 * Z, rel=1e-6)
    place = np.array([0.3, 0.2, 0.1])
    beyond, before = (cusps.electronic_forward(np.concatenate([place + step * unit, place])[None], 0.0, (0.5, 3))[0][0, :3]
                      @ unit for step in (1e-9, -1e-9))  # fmt: skip
    assert beyond - before == pytest.approx(1.0, rel=1e-6)


def test_where_charges_meet_the_potential_is_infinite_and_the_energy_that_is_left_is_not():
    """At 1e-9 bohr of a nucleus and of the other electron, where E_b is that at 1e-5 bohr."""
    X, Y, Z = R = NUCLEI[0][1]
    for x, y, z in ((0.9, 0.4, 0.1), R):
        near = np.array([[X + step, Y, Z, x, y + step, z] for step in (1e-9, 1e-5)])
        V = potentials.attraction_forward(near, 0.0, NUCLEI)[0]
        E, _ = cusps.cusp_energy_forward(near, 0.0, (BASE, 0.0))
        assert V[0] < -1e9
        assert abs(E[0] - E[1]) < 1e-4
        assert abs(E[0]) < 20
