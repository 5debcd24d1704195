"""A Boltzmann machine before and after training: its start at the data, samples, log Z, and what is measured."""

import math

import numpy as np
import pytest
from test_rbm import BACKENDS, KINDS, STATES, lattice, machine, probabilities

import npvae
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.models import BoltzmannMachine, partition_function
from npvae.training.optim import SGD
from npvae.training.step import Step

# ---- a new model, and one that starts at the data ----


@KINDS
def test_centred_at_data_independent_units_have_their_mean_and_variance(visible):
    model = BoltzmannMachine(12, 5, visible, n_chains=4000, dtype="float64", seed=2)
    x = lattice(500).astype(float) + (0 if visible == "binary" else np.arange(12))
    model.centre(x)
    model.parameters["W"] = 0
    mean = (x.sum(axis=0) + 0.5) / 501 if visible == "binary" else x.mean(axis=0)
    np.testing.assert_allclose(model.decode(np.zeros((1, 5)))[0], mean, rtol=1e-12)
    np.testing.assert_allclose(model.chains.mean(axis=0), mean, atol=5 * x.std(axis=0).max() / np.sqrt(4000))
    if visible == "gaussian":
        np.testing.assert_allclose(np.exp(model.parameters["logvar"]), x.var(axis=0), rtol=1e-12)
        np.testing.assert_allclose(model.chains.std(axis=0), x.std(axis=0), rtol=0.06)
    np.testing.assert_array_equal(model.buffers["visible_offset"], x.mean(axis=0))
    np.testing.assert_array_equal(model.buffers["hidden_offset"], model.encode(x[:1])[0])  # at W = 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "n_features must be"), ({"n_hidden": 0}, "n_hidden must be"), ({"n_chains": -1}, "n_chains must"),
        ({"visible": "real"}, "visible must be one of binary, gaussian"), ({"backend": "torch"}, "backend must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BoltzmannMachine(**{"n_features": 3, **arguments})


def test_settings_noise_and_workers_that_cannot_be_are_refused():
    model = machine(n_chains=2)
    with pytest.raises(ValueError, match="n_steps must be"):
        npvae.fit(model, STATES, n_steps=0, progress=False)
    with pytest.raises(ValueError, match="noise must"):
        model.forward(STATES, STATES[:, :3])
    with Workers(3) as workers, pytest.raises(ValueError, match="at least as many chains"):
        Step(model, Rows.of(model, STATES, "x"), 10, SGD(), workers)


# ---- using a machine ----


@KINDS
def test_the_log_likelihood_is_normalised(visible):
    if visible == "binary":
        assert probabilities(machine()).sum() == pytest.approx(1, abs=1e-12)
        return
    model = machine(visible, V=2, H=3)
    line = np.linspace(-14, 14, 281)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    assert np.exp(model.log_likelihood(grid)).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=1e-9)


@BACKENDS
@pytest.mark.parametrize("n_chains", [0, 7])
def test_samples_have_the_machine_s_frequencies(n_chains, backend):
    model = machine(scale=0.6, n_chains=n_chains, backend=backend)
    x = model.sample(2000, 0, n_steps=15)
    counts = np.bincount((x @ 2 ** np.arange(5)).astype(int), minlength=32)
    expected = 2000 * probabilities(model)
    assert ((counts - expected) ** 2 / expected).sum() < 65  # of 31 degrees of freedom: one in 3000 is larger
    np.testing.assert_array_equal(x, model.sample(2000, 0, n_steps=15))


def test_samples_start_at_the_persistent_chains_and_without_them_at_independent_units():
    model = machine(n_chains=7)
    np.testing.assert_array_equal(model.sample(9, 0, n_steps=0), model.chains[[*range(7), 0, 1]])
    one, other = (machine().sample(9, seed, n_steps=0) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_a_chain_does_not_depend_on_how_many_move_with_it():
    model = machine(V=40, H=150, scale=0.1, backend="numba")
    x = (np.random.default_rng(0).random((60, 40)) < 0.5).astype(float)
    moved = model.move(x, 30, 5)
    np.testing.assert_array_equal(model.move(x[:1], 30, 5), moved[:1])
    np.testing.assert_array_equal(model.move(x, 0, 5), x)


@KINDS
def test_encode_and_decode_are_the_conditional_means(visible):
    model = machine(visible)
    x = STATES[:7] if visible == "binary" else np.random.default_rng(0).standard_normal((7, 5))
    _, b, W, *logvar = model.machine
    u = x if visible == "binary" else x * np.exp(-logvar[0])
    np.testing.assert_allclose(model.encode(x), 1 / (1 + np.exp(-(u @ W + b))), rtol=1e-12)
    h = model.encode(x)
    a = model.parameters["visible_bias"] + h @ W.T
    np.testing.assert_allclose(model.reconstruct(x), 1 / (1 + np.exp(-a)) if visible == "binary" else a, rtol=1e-12)


# ---- log Z ----


@KINDS
def test_annealing_and_reverse_annealing_bracket_the_exact_log_z(visible):
    model = machine(visible, V=8, H=7, scale=0.5)
    rows = model.sample(300, 1, n_steps=50)
    ladder = np.linspace(0, 1, 150)
    exact = model.log_partition()
    assert (exact.method, exact.error, exact.low, exact.high) == ("exact", 0, exact.log_z, exact.log_z)
    for x in (rows, None):
        for method in ("annealing", "reverse"):
            found = model.log_partition(x, method, 200, 0, ladder)
            assert found.method == method
            assert found.low < found.log_z < found.high
            assert abs(found.log_z - exact.log_z) < 3.5 * found.error < 0.5


def test_the_temperatures_are_those_of_the_paper():
    ladder = partition_function.inverse_temperatures()
    assert len(ladder) == 14501
    assert (ladder[0], ladder[-1]) == (0, 1)
    np.testing.assert_allclose(np.diff(ladder)[[0, 499, 500, 4499, 4500, -1]], [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5], rtol=1e-6)


def test_the_base_of_the_annealing_has_the_mean_of_the_rows():
    x = lattice(50).astype(float)
    bias = partition_function.base_bias(machine(V=12), x)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), (x.sum(axis=0) + 0.5) / 51, rtol=1e-12)
    np.testing.assert_allclose(partition_function.base_bias(machine("gaussian", V=12), x), x.mean(axis=0), rtol=1e-12)
    assert np.isfinite(partition_function.base_bias(machine(V=12), 0 * x)).all()


def test_too_many_units_are_not_enumerated_and_the_smaller_layer_counts():
    assert machine(V=3, H=30).log_partition().method == "exact"
    wide = BoltzmannMachine(30, 26)
    with pytest.raises(ValueError, match="at most 25 units can be enumerated; the smaller layer has 26"):
        wide.log_partition(method="exact")
    assert wide.log_partition(betas=[0, 1], n_chains=2).method == "annealing"
    gaussian = BoltzmannMachine(3, 26, "gaussian")
    assert gaussian.log_partition(betas=[0, 1], n_chains=2).method == "annealing"
    with pytest.raises(ValueError, match="method must be one of"):
        wide.log_partition(method="guess")
    for betas in ([0, 0.5], [0, 0.7, 0.6, 1], [1], [[0, 1]]):
        with pytest.raises(ValueError, match="betas must rise from 0 to 1"):
            wide.log_partition(betas=betas)
    with pytest.raises(ValueError, match="n_chains must be"):
        wide.log_partition(n_chains=0)


# ---- what npvae evaluate tells ----


def measured(model, x, **options):
    return {measure.name: measure.value for measure in model.measure(x, **options)}


def test_the_divergence_from_the_rows_is_mean_log_f_plus_mean_energy_plus_log_z():
    """KL(f ‖ p) = Σ f log f/p, summed over the different rows, and the three terms of the report."""
    model, x = machine(), STATES[[3, 3, 3, 8, 20, 20, 31, 0]]
    f = np.bincount((x @ 2 ** np.arange(5)).astype(int), minlength=32) / 8
    p = probabilities(model)
    expected = (f[f > 0] * np.log(f[f > 0] / p[f > 0])).sum()
    found = measured(model, x)
    assert found["kl_of_rows"] == pytest.approx(expected, rel=1e-12)
    log_f = partition_function.log_frequencies(x)
    assert log_f == pytest.approx((f[f > 0] * np.log(f[f > 0])).sum(), rel=1e-12)
    assert found["kl_of_rows"] == pytest.approx(log_f + found["free_energy"] + found["log_partition"], rel=1e-12)
    assert found["log_likelihood"] == pytest.approx(np.log(p[(x @ 2 ** np.arange(5)).astype(int)]).mean(), rel=1e-12)


def test_the_pseudo_likelihood_is_that_of_each_unit_given_all_others():
    model, total = machine(), np.zeros(32)
    log_p = model.log_likelihood(STATES)
    for i in range(5):
        flipped = STATES.copy()
        flipped[:, i] = 1 - flipped[:, i]
        total += log_p - np.logaddexp(log_p, model.log_likelihood(flipped))
    np.testing.assert_allclose(partition_function.pseudo_log_likelihood(model, STATES), total, rtol=1e-11)
    assert measured(model, STATES)["pseudo_log_likelihood"] == pytest.approx(total.mean(), rel=1e-11)


def test_where_log_z_is_estimated_its_error_is_part_of_that_of_the_mean(monkeypatch):
    monkeypatch.setattr(partition_function, "QUICK_UNITS", 3)
    monkeypatch.setattr(partition_function, "BETAS", np.linspace(0, 1, 100))
    monkeypatch.setattr(partition_function, "BURN_IN", 20)
    model = machine()
    x = model.sample(200, 0, n_steps=20)
    found, exact = measured(model, x, n_samples=100), model.log_partition(method="exact").log_z
    error, of_rows = found["log_partition_standard_error"], model.free_energy(x).std() / np.sqrt(200)
    assert 0 < error < 0.2
    assert abs(found["log_partition"] - exact) < 4 * error
    assert abs(found["log_partition_reverse"] - exact) < 0.5
    assert found["log_likelihood_standard_error"] == pytest.approx(math.hypot(error, of_rows), rel=1e-12)
    assert found["log_likelihood"] == pytest.approx(-found["free_energy"] - found["log_partition"], rel=1e-12)
    again = measured(model, x, n_samples=1)
    assert again["log_partition_standard_error"] is None
