"""Training a Boltzmann machine: its gradient, contrastive divergence, persistent chains."""

import numpy as np
import pytest

import npvae
from npvae.data.rows import Rows
from npvae.models import BoltzmannMachine
from npvae.ops.partition import states_of
from npvae.training import checkpoint
from npvae.training.optim import Momentum
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
