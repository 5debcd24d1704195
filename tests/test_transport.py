"""The exact optimal-transport distance of two sets of points, and how much of the data samples cover."""

import itertools

import numpy as np
import pytest

from npvae.models import transport


def test_the_distance_is_that_of_the_best_of_all_permutations():
    x, y = np.random.default_rng(0).standard_normal((2, 6, 3))
    ways = np.linalg.norm(x[:, None] - y, axis=2)
    best = min(ways[range(6), order].mean() for order in itertools.permutations(range(6)))
    assert transport.distance(x, y) == pytest.approx(best, rel=1e-14)


def test_on_a_line_the_distance_is_that_of_sorted_points():
    x, y = np.random.default_rng(0).standard_normal((2, 50, 1))
    assert transport.distance(x, 2 * y) == pytest.approx(np.abs(np.sort(x, 0) - np.sort(2 * y, 0)).mean(), rel=1e-12)


def test_the_distance_is_a_metric():
    x, y, z = np.random.default_rng(0).standard_normal((3, 40, 2))
    order = np.random.default_rng(1).permutation(40)
    assert transport.distance(x, x[order]) == 0
    assert transport.distance(x, y) == pytest.approx(transport.distance(y, x[order]), rel=1e-12)
    assert transport.distance(x, z) < transport.distance(x, y) + transport.distance(y, z)


def test_coverage_is_the_share_of_data_with_a_sample_near():
    """Data at 0, 1, 2, ...: the third neighbour of an inner one is 2 away."""
    x = np.arange(20.0)[:, None]
    assert transport.coverage(x, x, 3) == 1
    assert transport.coverage(x, np.array([[10.0]]), 3) == 3 / 20  # 9, 10, 11 are nearer than 2
    assert transport.coverage(x, np.array([[100.0]]), 3) == 0


def test_samples_of_the_data_s_density_cover_what_is_expected():
    """Each datum has one of n samples nearer than its k-th neighbour with the probability 1 − 2^−k."""
    x, samples = np.random.default_rng(0).standard_normal((2, 4000, 2))
    for k in (1, 3, 5):
        share = 1 - 0.5**k
        assert transport.coverage(x, samples, k) == pytest.approx(share, abs=4 * np.sqrt(share * 0.5**k / 1000))


def test_measures_tell_of_samples_and_of_the_floor():
    x, samples = np.random.default_rng(0).standard_normal((2, 300, 2))
    found = {measure.name: measure.value for measure in transport.measures(x, samples + np.array([6, 0]))}
    assert found["transport_distance"] == pytest.approx(6, abs=0.3)
    assert found["transport_distance_of_data"] < 0.5
    assert found["coverage"] < 0.1 < 0.9 < found["coverage_of_data"]
    for n, names in [(1, ["transport_distance"]), (8, ["transport_distance", "transport_distance_of_data"])]:
        assert [measure.name for measure in transport.measures(x[:n], samples[:n])] == names


def test_sets_that_do_not_fit_are_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="as many rows"):
        transport.distance(x, x[:3])
    with pytest.raises(ValueError, match="the same columns"):
        transport.distance(x, x[:, :1])
    with pytest.raises(ValueError, match="y must be a real array"):
        transport.coverage(x, np.zeros(4))
