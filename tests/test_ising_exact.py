"""The exact results for the Ising model: each is judged by enumeration, by the others, or by published values."""

import math

import numpy as np
import pytest

from npvae.data.ising import energy_per_spin
from npvae.data.ising_exact import (
    T_CRITICAL,
    kaufman_energy,
    kaufman_entropy,
    kaufman_log_partition,
    onsager_energy,
    onsager_magnetization,
)

KAUFMAN = (kaufman_energy, kaufman_log_partition, kaufman_entropy)
TEMPERATURES = np.array([0.05, 0.1, 0.5, 1.0, 2.0, 2.269, T_CRITICAL, 2.27, 3.0, 5.0, 20.0])


def boltzmann(size, temperatures):
    """Energies of all states, (2^N,), their weights against the ground state's, (T, 2^N), and the sum of these, (T,)."""
    energy = energy_per_spin(np.arange(2 ** size**2)[:, None] >> np.arange(size**2) & 1, size)
    weight = np.exp(-(energy + 2) * size**2 / temperatures[:, None])
    return energy, weight, weight.sum(1)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_kaufman_energy_is_the_mean_over_all_states(size):
    energy, weight, Z = boltzmann(size, TEMPERATURES)
    np.testing.assert_allclose(kaufman_energy(TEMPERATURES, size), weight @ energy / Z, rtol=0, atol=1e-13)


def test_kaufman_energy_tends_to_onsager_away_from_the_transition():
    temperatures = np.array([1e-3, 0.01, 0.5, 1.5, 2.0, 2.6, 3.0, 10.0, 100.0])
    np.testing.assert_allclose(kaufman_energy(temperatures, 500), onsager_energy(temperatures), rtol=0, atol=1e-12)


def test_kaufman_energy_at_the_transition_approaches_onsager_as_one_over_size():
    """The gap at T_CRITICAL is A/size: doubling the size halves it."""
    gaps = [onsager_energy(T_CRITICAL) - kaufman_energy(T_CRITICAL, size) for size in (64, 128)]
    assert gaps[0] > 1e-3
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=1e-3)


def test_onsager_energy_has_the_published_values():
    temperatures = [1.5, 2.0, 2.25, T_CRITICAL, 2.5, 3.0, 4.0]
    published = [-1.951117, -1.745565, -1.463103, -math.sqrt(2), -1.106079, -0.817310, -0.557272]
    np.testing.assert_allclose(onsager_energy(temperatures), published, rtol=0, atol=6e-7)


def test_onsager_magnetization_has_the_published_values():
    temperatures = [1e-3, 2.0, 2.25, T_CRITICAL, 4.0]
    np.testing.assert_allclose(onsager_magnetization(temperatures), [1, 0.911319, 0.671854, 0, 0], rtol=0, atol=6e-7)


@pytest.mark.parametrize("exact", [onsager_energy, onsager_magnetization, *(lambda T, f=f: f(T, 8) for f in KAUFMAN)])
def test_exact_results_keep_the_shape_of_the_temperatures(exact):
    temperatures = np.array([[1.0, 2.0, 3.0], [2.2, T_CRITICAL, 9.0]])
    table = exact(temperatures)
    assert table.shape == (2, 3)
    assert isinstance(exact(2.0), float)
    assert [exact(T) for T in temperatures.flat] == pytest.approx(list(table.flat), rel=1e-14)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_kaufman_log_partition_and_entropy_are_the_sums_over_all_states(size):
    energy, weight, Z = boltzmann(size, TEMPERATURES)
    log_Z = np.log(Z) + 2 * size**2 / TEMPERATURES
    np.testing.assert_allclose(kaufman_log_partition(TEMPERATURES, size), log_Z, rtol=3e-15, atol=0)
    entropy = np.log(Z) + weight @ (energy + 2) * size**2 / TEMPERATURES / Z
    np.testing.assert_allclose(kaufman_entropy(TEMPERATURES, size), entropy, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [7, 40])
def test_kaufman_log_partition_is_the_integral_of_the_energy(size):
    """d ln Z / dK = -N u from ln Z = N ln 2 at K = 1/T = 0, by Gauss's rule in pieces short against the transition's width."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(0, 1, 41)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1] - edges[0]) / 2
    K = middle[:, None] + half * nodes
    integral = np.cumsum(half * kaufman_energy(1 / K, size) @ weights)
    exact = size**2 * (math.log(2) - integral)
    np.testing.assert_allclose(kaufman_log_partition(1 / edges[1:], size), exact, rtol=1e-13, atol=0)


@pytest.mark.parametrize("size", [2, 16, 1000])
def test_kaufman_log_partition_and_entropy_have_their_limits(size):
    n_sites = size**2
    cold, hot = np.array([1e-6, 0.01, 0.1 - 1e-9, 0.1, 0.11]), 1e8
    np.testing.assert_allclose(kaufman_log_partition(cold, size), math.log(2) + 2 * n_sites / cold, rtol=1e-14, atol=0)
    np.testing.assert_allclose(kaufman_entropy(cold, size), math.log(2), rtol=0, atol=2e-14 * n_sites)
    for exact in (kaufman_log_partition, kaufman_entropy):
        assert exact(hot, size) == pytest.approx(n_sites * math.log(2), rel=1e-14)


@pytest.mark.parametrize("exact", KAUFMAN)
def test_kaufman_says_what_it_needs(exact):
    with pytest.raises(ValueError, match=r"^T must be positive finite numbers; got -1\.0$"):
        exact([2.0, -1.0], 4)
    with pytest.raises(ValueError, match=r"^size must be an integer of at least 2; got 1$"):
        exact(2.0, 1)


@pytest.mark.parametrize(
    "call", [lambda: onsager_energy(0.0), lambda: onsager_magnetization([1.0, -2.0]), lambda: kaufman_energy(math.nan, 4)]
)
def test_bad_temperatures(call):
    with pytest.raises(ValueError, match=r"^T must [^\n]*; got [^\n]*$"):
        call()
