"""The example of the machine that learns the Ising model: what it calls exact, and chains that turn over."""

from pathlib import Path

import numpy as np
import pytest

from npvae.data import ising

SIZE, T = 2, 1.8


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import ising_machine

    return ising_machine


def test_sums_over_all_states_are_kaufman_s(example):
    for size, temperature in [(2, 1.8), (3, 4.0)]:
        states = example.all_states(size**2)
        log_f = example.boltzmann(states, temperature)
        assert len(np.unique(states, axis=0)) == len(states) == 2 ** (size**2)
        assert np.exp(log_f).sum() == pytest.approx(1, rel=1e-12)
        entropy = -(np.exp(log_f) @ log_f)
        assert entropy == pytest.approx(ising.kaufman_entropy(temperature, size), rel=1e-10)
        (energy, _), (heat, _), _ = example.observables(states, temperature, np.exp(log_f))
        assert energy == pytest.approx(ising.kaufman_energy(temperature, size), rel=1e-10)
        step = 1e-4
        slope = (ising.kaufman_energy(temperature + step, size) - ising.kaufman_energy(temperature - step, size)) / (2 * step)
        assert heat == pytest.approx(slope, rel=1e-5)  # the heat is de/dT


def test_draws_have_the_exact_observables_within_their_errors(example):
    states = example.all_states(9)
    f = np.exp(example.boltzmann(states, T))
    drawn = states[np.random.default_rng(0).choice(len(states), 5000, p=f / f.sum())]
    for (exact, none), (found, error) in zip(example.observables(states, T, f), example.observables(drawn, T)):
        assert none == 0
        assert 0 < abs(found - exact) < 4 * error


def machine(example, kind=None):
    """A machine of 4 spins with a field, so that up and down are not alike."""
    model = (kind or example.Machine)(4, 3, n_chains=4000, dtype="float64", backend="numpy")
    model.theta = np.random.default_rng(1).standard_normal(model.theta.size)
    return model


def test_the_divergence_is_0_from_the_machine_s_own_distribution_and_not_from_another(example):
    model, states = machine(example), example.all_states(4)
    F = model.free_energy(states)
    log_p = -F - np.logaddexp.reduce(-F)
    found, p = example.divergence(model, states, log_p)
    assert found == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(p, np.exp(log_p), rtol=1e-12)
    log_f = example.boltzmann(states, T)
    found, _ = example.divergence(model, states, log_f)
    assert found == pytest.approx((np.exp(log_f) * (log_f - log_p)).sum(), rel=1e-10)
    assert found > 0.1


def test_turning_over_leaves_the_machine_s_distribution_as_it_is(example):
    """Chains that are draws of p stay so, state by state, and every state's opposite is reached at once."""
    model, states = machine(example), example.all_states(4)
    p = np.exp(-model.free_energy(states))
    p /= p.sum()
    rng, n = np.random.default_rng(0), 20_000
    chains = states[rng.choice(16, n, p=p)].astype(float)
    start = chains.copy()
    moved = model.draw(rng, start[:1], 1, chains=chains)
    np.testing.assert_array_equal(moved, chains)
    assert not np.shares_memory(moved, chains)
    counts = np.bincount((chains @ [1, 2, 4, 8]).astype(int), minlength=16)
    assert np.abs((counts - n * p) / np.sqrt(n * p * (1 - p))).max() < 4


def test_a_small_lattice_is_learned(example):
    states = example.all_states(SIZE**2)
    log_f = example.boltzmann(states, T)
    model, curve = example.train_small(T, example.Machine, states, log_f, 1)
    assert len(curve) == 1
    assert 0 < curve[0] < 0.02
    assert model.n_features == 4
