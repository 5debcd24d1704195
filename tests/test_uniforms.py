"""Uniform numbers of many chains: the published generator, its lanes, and the distribution; compiled, the same bits."""

import numpy as np
import pytest
from scipy import stats

from npvae.kernels import uniforms as compiled
from npvae.kernels.ising import xoshiro128
from npvae.ops import uniforms as ops

TABLES = pytest.mark.parametrize("table", [ops, compiled], ids=["numpy", "numba"])
# The first numbers of xoshiro128++ from the state 1, 2, 3, 4.
PUBLISHED = [641, 1573767, 3222811527, 3517856514, 836907274, 4247214768, 3867114732, 1355841295, 495546011, 621204420]


def numbered(values):
    """The numbers of 2⁻²³ that uniforms stand for."""
    return (values * 2**23 - 0.5).astype(int)


@TABLES
def test_each_lane_is_the_published_generator(table):
    states = np.empty((2, 4, ops.LANES), np.uint32)
    states[:] = np.array([1, 2, 3, 4])[:, None]
    states[1, 0] += 1  # another chain
    found = numbered(table.uniforms(states, 10 * ops.LANES)).reshape(2, 10, ops.LANES)
    np.testing.assert_array_equal(found[0], np.repeat(np.array(PUBLISHED)[:, None] >> 9, ops.LANES, axis=1))
    state = 2, 2, 3, 4
    for number in found[1, :, 3]:
        expected, *state = xoshiro128(*state)
        assert number == expected >> 9


@TABLES
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numbers_are_uniform_and_never_0_or_1(table, dtype):
    states = ops.generators(np.random.default_rng(0), 50)
    found = np.concatenate([table.uniforms(states, n, dtype) for n in (16, 100, 1000)], axis=1)
    assert found.dtype == dtype
    assert 0 < found.min() < found.max() < 1
    assert stats.kstest(found.ravel().astype(float), "uniform").pvalue > 1e-3
    of_chains = np.corrcoef(found)
    assert np.abs(of_chains - np.eye(50)).max() < 5 / np.sqrt(found.shape[1])
    neighbours = [np.corrcoef(found[:, :-k].ravel(), found[:, k:].ravel())[0, 1] for k in (1, 16, 32)]
    assert np.abs(neighbours).max() < 4 / np.sqrt(found.size)
    assert (found * 2**23 % 1 == 0.5).all()  # between the numbers that dtype holds: the ends are 2⁻²⁴ away


@TABLES
def test_normals_are_normal(table):
    states = ops.generators(np.random.default_rng(1), 40)
    found = table.normals(states, 500)
    assert stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(found) - np.eye(40)).max() < 5 / np.sqrt(500)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_a_chain_depends_on_its_own_state_and_is_advanced_by_whole_rounds(n):
    states = ops.generators(np.random.default_rng(2), 5)
    one, twin = states[2:3].copy(), states.copy()
    numbers = ops.uniforms(states, n)
    np.testing.assert_array_equal(ops.uniforms(one, n)[0], numbers[2])
    np.testing.assert_array_equal(one[0], states[2])
    np.testing.assert_array_equal(compiled.uniforms(twin, n), numbers)
    np.testing.assert_array_equal(twin, states)
    assert not np.isin(ops.uniforms(states, n), numbers).all()


def test_no_generator_begins_at_zeros():
    class Zeros:
        def integers(self, low, high, shape, dtype):
            return np.zeros(shape, dtype)

    states = ops.generators(Zeros(), 3)
    assert states.any(axis=1).all()
    assert len(np.unique(ops.uniforms(states, 160)[0])) > 5
