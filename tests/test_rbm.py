"""The Boltzmann machine as a model: its gradient, contrastive divergence, persistent chains, log Z, and what is measured."""

import math

import numpy as np
import pytest

import npvae
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.models import BoltzmannMachine, partition_function
from npvae.ops.partition import states_of
from npvae.training import checkpoint
from npvae.training.optim import SGD, Momentum
from npvae.training.schedules import Cosine
from npvae.training.step import Step
from npvae.training.validation import validate

STATES = states_of(0, 32, 5)
KINDS = pytest.mark.parametrize("visible", ["binary", "gaussian"])
BACKENDS = pytest.mark.parametrize("backend", ["numpy", "numba"])


def machine(visible="binary", V=5, H=4, scale=0.7, seed=0, **options):
    """A machine with generic parameters and, by default, in float64."""
    model = BoltzmannMachine(V, H, visible, seed=seed, **{"dtype": "float64", "backend": "numpy", **options})
    model.theta = scale * np.random.default_rng(seed).standard_normal(model.theta.size)
    return model


def lattice(n=400, V=12, seed=0):
    """Zeros and ones with one strong collective variable."""
    rng = np.random.default_rng(seed)
    return (rng.random((n, V)) < np.where(rng.random((n, 1)) < 0.4, 0.85, 0.15)).astype(np.float32)


def probabilities(model, states=STATES):
    """p(x) of all states."""
    return np.exp(model.log_likelihood(states))


# ---- the loss and its gradient ----


@BACKENDS
@pytest.mark.parametrize("is_centred", [False, True])
@KINDS
def test_the_gradient_is_the_complex_step_s_in_every_parameter(visible, is_centred, backend):
    model = machine(visible, backend=backend)
    rng = np.random.default_rng(1)
    x, noise = (rng.standard_normal((n, 5)) if visible == "gaussian" else STATES[rng.integers(32, size=n)] for n in (4, 7))
    if is_centred:
        model.centre(np.concatenate([x, 1 - x]))
        model.theta += 0.5 * rng.standard_normal(model.theta.size)
    assert model.is_centred == is_centred
    terms, cache = model.forward(x, noise)
    assert terms.loss == pytest.approx(model.free_energy(x).mean() - model.free_energy(noise).mean(), rel=1e-13)
    assert terms.loss == pytest.approx(terms.positive - terms.negative, rel=1e-13)
    grad = np.concatenate([value.ravel() for value in model.backward(cache).values()])

    def loss(theta):
        twin = model.copy(dtype="complex128", backend="numpy")
        twin.theta = theta
        machine = twin.machine
        F = twin.free_energy_pair[0]
        return F(x, *machine)[0].mean() - F(noise, *machine)[0].mean()

    expected = npvae.gradcheck.complex_step_grad(loss, model.theta.copy())
    np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("is_centred", [False, True])
@pytest.mark.parametrize(("V", "H", "share"), [(5, 4, 0.5), (30, 110, 0.1), (30, 110, 0.6)])  # the second: sums of rows
def test_the_compiled_gradient_in_one_call_is_forward_then_backward(V, H, share, is_centred):
    model, rng = machine(V=V, H=H, scale=0.3, backend="numba"), np.random.default_rng(1)
    x, noise = ((rng.random((n, V)) < share).astype(float) for n in (9, 4))
    if is_centred:
        model.centre(x)
    terms, cache = model.forward(x, noise)
    grad = np.concatenate([value.ravel() for value in model.backward(cache, 0.3).values()])
    workspace = model.workspace(9)
    for buffers in (None, workspace, workspace, model.workspace(1)):  # the last has too few rows
        out = np.full_like(grad, np.nan)
        found, square = model.gradient(x, noise, dloss=0.3, out=out, workspace=buffers)
        np.testing.assert_allclose(found, terms, rtol=1e-12)
        np.testing.assert_allclose(out, grad, rtol=0, atol=1e-13 * np.abs(grad).max())
        assert square == pytest.approx((grad * grad).sum(), rel=1e-12)
    assert machine("gaussian", backend="numba").workspace(9) is None
    assert machine(backend="numpy").workspace(9) is None


def exact_gradient(model, x):
    """The gradient of the mean of −log p(x) by enumeration: the complex step of the exact log-likelihood."""

    def loss(theta):
        twin = model.copy(dtype="complex128", backend="numpy")
        twin.theta = theta
        machine = twin.machine
        return twin.free_energy_pair[0](x, *machine)[0].mean() + twin.ops.enumerated_log_partition(*machine)

    return npvae.gradcheck.complex_step_grad(loss, model.theta.copy())


@pytest.mark.parametrize("is_centred", [False, True])
def test_with_draws_that_have_the_model_s_own_frequencies_the_gradient_is_the_exact_one(is_centred):
    """All 32 states as chains, weighted by p(x'): a mean over rows is a sum of p over different states."""
    model = machine(scale=0.5)
    x = STATES[[3, 5, 17, 30, 30]]
    if is_centred:
        model.centre(x)
        model.theta += 0.3 * np.random.default_rng(2).standard_normal(model.theta.size)
    p = probabilities(model)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    negative = np.zeros_like(model.theta)
    for state, weight in zip(STATES, p):
        _, cache = model.forward(x, state[None])
        negative += weight * np.concatenate([value.ravel() for value in model.backward(cache).values()])
    expected = exact_gradient(model, x)
    np.testing.assert_allclose(negative, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def estimated_gradients(model, x, n_steps, n, chains=None, seed=0):
    """n estimates of the gradient, (n, P), by contrastive divergence from the rows x, or with persistent chains."""
    rng, grads = np.random.default_rng(seed), np.empty((n, model.theta.size))
    for out in grads:
        noise = model.draw(rng, x, n_steps) if chains is None else model.draw(rng, x, n_steps, chains=chains)
        model.backward(model.forward(x, noise)[1], out=out)
    return grads


def test_contrastive_divergence_tends_to_the_exact_gradient_as_k_grows():
    """CD-1 is biased by many standard errors; CD-k comes nearer, and CD-20 agrees within its standard error."""
    model = machine(scale=0.9)
    x = np.repeat(STATES[[0, 7, 31]], 100, axis=0)
    exact, distances = exact_gradient(model, x), []
    for n_steps in (1, 3, 20):
        grads = estimated_gradients(model, x, n_steps, 60)
        mean, error = grads.mean(axis=0), grads.std(axis=0, ddof=1) / np.sqrt(60)
        distances.append(np.sqrt(np.mean(((mean - exact) / error) ** 2)))
    assert distances[0] > 10
    assert distances[1] < 0.7 * distances[0]
    assert distances[2] < 1.5
    assert np.abs(mean - exact).max() < 4.5 * error.max()


@KINDS
def test_persistent_chains_give_the_exact_gradient_once_they_are_stationary(visible):
    model = machine(visible, V=3, H=3, scale=0.6, n_chains=300)
    x = np.random.default_rng(3).standard_normal((4, 3)) if visible == "gaussian" else STATES[[1, 6, 7, 4], :3]
    estimated_gradients(model, x, 20, 1, model.chains)
    grads = estimated_gradients(model, x, 4, 60, model.chains, seed=1)
    of_blocks = grads.reshape(6, 10, -1).mean(axis=1)  # of ten in a row, which are a little correlated
    mean, error = of_blocks.mean(axis=0), of_blocks.std(axis=0, ddof=1) / np.sqrt(6)
    deviations = (mean - exact_gradient(model, x)) / error
    assert np.sqrt(np.mean(deviations**2)) < 2
    assert np.abs(deviations).max() < 8


# ---- the chains ----


@BACKENDS
def test_draws_start_at_the_batch_or_move_the_persistent_chains(backend):
    model = machine(n_chains=6, backend=backend, scale=3.0)
    x, chains = STATES[[1, 9, 30]], model.chains.copy()
    noise = model.draw(np.random.default_rng(0), x)
    assert noise.shape == (3, 5)
    np.testing.assert_array_equal(model.chains, chains)
    moved = model.draw(np.random.default_rng(0), x, chains=model.chains[2:5])
    np.testing.assert_array_equal(model.chains[2:5], moved)
    np.testing.assert_array_equal(model.chains[[0, 1, 5]], chains[[0, 1, 5]])
    assert not np.shares_memory(moved, model.chains)
    again = model.copy()
    assert again.chains.dtype == np.float64
    np.testing.assert_array_equal(again.chains, model.chains)
    assert model.copy(dtype="float32").chains.dtype == np.float32
    assert BoltzmannMachine(5, 4).chains is None


def test_fresh_chains_are_those_of_the_seed():
    one, same, other = (BoltzmannMachine(50, 4, n_chains=20, seed=seed).chains for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert set(np.unique(one)) == {0, 1}
    assert 0.4 < one.mean() < 0.6
    real = BoltzmannMachine(50, 4, "gaussian", n_chains=100).chains
    assert abs(real.mean()) < 0.1
    assert 0.9 < real.std() < 1.1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("n_chains", [0, 10])
@BACKENDS
def test_training_resumes_bit_for_bit(n_chains, workers, backend, tmp_path):
    x = lattice(60)
    options = {"epochs": 3, "batch_size": 25, "optimizer": Momentum(0.02), "workers": workers, "weight_decay": 0.01,
               "n_steps": 2, "progress": False}  # fmt: skip

    def new():
        model = BoltzmannMachine(12, 6, n_chains=n_chains, backend=backend, dtype="float32", seed=1)
        model.centre(x)
        return model

    whole, model = new(), new()
    npvae.fit(whole, x, x[:20], **options)

    def on_step(state):
        checkpoint.save_progress(tmp_path, model, state)
        return state.step == 5

    npvae.fit(model, x, x[:20], on_step=on_step, **options)
    model, state = checkpoint.load_progress(tmp_path)
    npvae.fit(model, x, x[:20], resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)
    for name, value in whole.buffers.items():
        np.testing.assert_array_equal(model.buffers[name], value)
    assert not np.array_equal(whole.theta, new().theta)


def test_validation_measures_without_moving_the_chains():
    model, x = machine(V=12, n_chains=5), lattice(30).astype(float)
    chains = model.chains.copy()
    first, second = (validate(model, Rows.of(model, x, "x"), {"n_steps": 2}, 10) for _ in range(2))
    assert first == second
    assert first.positive == pytest.approx(model.free_energy(x).mean(), rel=1e-12)
    np.testing.assert_array_equal(model.chains, chains)


@pytest.mark.parametrize(("backend", "n_chains"), [("numpy", 0), ("numpy", 100), ("numba", 100)])
def test_training_raises_the_exact_log_likelihood_nearly_to_the_best(n_chains, backend):
    """Near the entropy of the density that the rows are drawn from, for both kinds of chains."""
    x = lattice(2000)
    model = BoltzmannMachine(12, 3, n_chains=n_chains, backend=backend)
    model.centre(x)
    p = states_of(0, 4096, 12).sum(axis=1)  # of ones
    exact = 0.4 * 0.85**p * 0.15 ** (12 - p) + 0.6 * 0.15**p * 0.85 ** (12 - p)
    entropy = -(exact * np.log(exact)).sum()
    before = -model.log_likelihood(lattice(2000, seed=1)).mean()
    npvae.fit(model, x, epochs=25, batch_size=100, optimizer=npvae.Adam(0.01), n_steps=1, workers=1, progress=False)
    after = -model.log_likelihood(lattice(2000, seed=1)).mean()
    assert before > entropy + 1
    assert entropy - 0.2 < after < entropy + 0.2


def test_a_step_of_gaussian_units_learns_their_variances():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3000, 2)) * [0.5, 2.0] + [1.0, -1.0] + 2 * (rng.random((3000, 1)) < 0.5)).astype(np.float32)
    model = BoltzmannMachine(2, 4, "gaussian", n_chains=100)
    model.centre(x)
    npvae.fit(model, x, epochs=40, batch_size=100, optimizer=npvae.Adam(Cosine(0.02, 1200)), n_steps=3, workers=1,
              progress=False)  # fmt: skip
    std = np.exp(0.5 * model.parameters["logvar"])
    assert 0.4 < std[0] < 0.6  # without the two groups' distance, which the hidden units explain
    assert 1.8 < std[1] < 2.1
    draws = model.sample(4000, 0)
    np.testing.assert_allclose(draws.mean(axis=0), x.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(draws.std(axis=0), x.std(axis=0), rtol=0.05)


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


def test_gaussian_units_need_columns_that_vary():
    with pytest.raises(ValueError, match="column 1 does not"):
        BoltzmannMachine(2, 3, "gaussian").centre(np.array([[1.0, 2.0], [3.0, 2.0]]))


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
