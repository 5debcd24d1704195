"""The energy-based model: gradients, log Z in closed form, the identity of the divergence, samples, chains, training, resuming.

A model without hidden layers has E = ½ c ‖x‖² + w·x + b: p = N(−w/c, I/c) and log Z = ½ D log(2π/c) + ‖w‖²/2c − b.
"""

import math

import naive
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, multivariate_normal

import npvae
from npvae.data import toy
from npvae.models import EnergyModel, energy_density
from npvae.training import checkpoint

EXAMPLES = list(EnergyModel.examples("numpy"))
backends = pytest.mark.parametrize("backend", ["numpy", "numba"])


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


def small(D=2, hidden=(6,), **options):
    """A small model with generic parameters."""
    model = EnergyModel(D, hidden, **{"backend": "numpy", "dtype": "float64", **options})
    model.theta += 0.3 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


def linear(D=2, confinement=1.5, **options):
    """A model without hidden layers, and the mean of its normal density."""
    model = small(D, (), confinement=confinement, **options)
    return model, -model.parameters["energy.W"][:, 0].astype(float) / confinement


def log_Z_of(model):
    """That of a model without hidden layers."""
    c, (W, b) = model.confinement, model.parameters.values()
    return 0.5 * model.n_features * math.log(2 * math.pi / c) + (W**2).sum() / (2 * c) - b.item()


# ---- gradients ----


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_the_gradient_by_the_complex_step(example):
    naive.assert_is_the_complex_step(example)


def test_the_terms_are_what_they_are_called():
    model, rng = small(), np.random.default_rng(0)
    x, samples = rng.standard_normal((2, 5, 2))
    data, of_samples = model.energy(x), model.energy(samples)
    terms, _ = model.forward(x, samples, alpha=0.1)
    np.testing.assert_allclose(terms[1:], [data.mean(), of_samples.mean()], rtol=1e-12)
    squares = (data**2).mean() + (of_samples**2).mean()
    assert terms.loss == pytest.approx(data.mean() - of_samples.mean() + 0.1 * squares, rel=1e-12)
    terms, _ = model.forward(x, samples, "score", noise_scale=0.2)
    both = [0.5 * ((0.2 * model.score(x + 0.2 * eps) + eps) ** 2).sum(axis=1).mean() for eps in (samples, -samples)]
    assert terms.loss == pytest.approx(np.mean(both), rel=1e-12)
    assert terms.samples == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="activation must be one of tanh, sigmoid, softplus, silu; got 'relu'"):
        EnergyModel(2, activation="relu")
    with pytest.raises(ValueError, match="start must be one of buffer, data, noise"):
        EnergyModel(2, start="nowhere")
    with pytest.raises(ValueError, match=r"noise must have a row for each of x, 3; got shape \(2, 2\)"):
        small().forward(np.zeros((3, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="objective must be one of score, contrastive"):
        small().forward(np.zeros((3, 2)), np.zeros((3, 2)), "exact")


# ---- density ----


@pytest.mark.parametrize("D", [1, 2])
def test_log_Z_is_the_closed_form(D):
    model, mean = linear(D)
    value, error = model.log_partition()
    assert value == pytest.approx(log_Z_of(model), abs=1e-12)
    assert error < 1e-12
    x = np.random.default_rng(0).standard_normal((4, D))
    wanted = multivariate_normal(mean, np.eye(D) / 1.5).logpdf(x)
    np.testing.assert_allclose(model.log_likelihood(x), wanted, rtol=0, atol=1e-12)


def test_log_Z_of_a_network_is_an_integral():
    model = small(1, (7, 5), activation="softplus")
    integral, _ = quad(lambda x: math.exp(-model.energy([[x]]).item()), -12, 12, epsabs=1e-13, limit=200)
    value, error = model.log_partition()
    assert value == pytest.approx(math.log(integral), abs=1e-10)
    assert abs(value - math.log(integral)) <= error + 1e-12


def test_a_new_model_is_a_standard_normal_density():
    model = EnergyModel(2, (16,), backend="numpy", dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 2))
    np.testing.assert_allclose(model.log_likelihood(x), multivariate_normal(np.zeros(2)).logpdf(x), atol=1e-12)
    np.testing.assert_allclose(model.score(x), -x, atol=1e-15)


def test_what_has_no_finite_Z_is_refused():
    with pytest.raises(ValueError, match="at most 2 columns; the model has 3"):
        small(3).log_partition()
    with pytest.raises(ValueError, match="no end within ±64, so that Z cannot be computed; confinement makes it finite"):
        small(confinement=0.0).log_partition()


def test_the_divergence_is_the_entropy_the_energy_and_log_Z():
    """KL(f ‖ p) = ⟨log f⟩ + ⟨E⟩ + log Z with the Measures of rows of f, here N(m, I/a), against the divergence of two normal
    densities; and the rows' mean of log f/p is the same number."""
    model, mean = linear(confinement=1.5)
    f_mean, a, n = np.array([0.3, -0.2]), 2.0, 2000
    rows = f_mean + normal_rows(n, (0, 0)) / math.sqrt(a)
    found = {measure.name: measure.value for measure in model.measure(rows)}
    log_f = multivariate_normal(f_mean, np.eye(2) / a).logpdf(rows)
    divergence = 0.5 * (2 * 1.5 / a - 2 + 2 * math.log(a / 1.5) + 1.5 * ((f_mean - mean) ** 2).sum())
    assert log_f.mean() + found["energy"] + found["log_partition"] == pytest.approx(divergence, rel=1e-10)
    assert (log_f - model.log_likelihood(rows)).mean() == pytest.approx(divergence, rel=1e-10)
    assert found["log_likelihood"] == pytest.approx(-found["energy"] - found["log_partition"], rel=1e-12)


def test_measures_of_many_columns_are_those_that_need_no_Z():
    assert [measure.name for measure in small(3).measure(np.zeros((4, 3)))] == ["score_matching", "acceptance"]


# ---- samples ----


@backends
def test_draws_have_the_density(backend):
    model, mean = linear(backend=backend)
    drawn = model.sample(2000, 0, 60, 0.5)
    assert drawn.shape == (2000, 2)
    assert min(kstest(column, "norm", (m, 1 / math.sqrt(1.5))).pvalue for column, m in zip(drawn.T, mean)) > 1e-3
    np.testing.assert_array_equal(drawn, model.sample(2000, 0, 60, 0.5))
    without = model.sample(2000, 0, 60, 1.0, "unadjusted")
    wanted = 1 / 1.5 / (1 - 1.5 / 4)  # the step in units of the standard deviation is √c ε
    np.testing.assert_allclose(without.var(axis=0), wanted, rtol=5 * math.sqrt(2 / 2000))


def test_both_back_ends_draw_the_same():
    numpy, numba = (small(activation="silu", backend=backend).sample(70, 3, 25, 0.3) for backend in ("numpy", "numba"))
    np.testing.assert_allclose(numpy, numba, atol=1e-10)


def test_draws_of_a_network_have_its_mean():
    """By quadrature of one column, at a step of which a fifth is refused."""
    model = small(1, (7, 5), activation="softplus")
    line = np.linspace(-8, 8, 2001)[:, None]
    p = np.exp(model.log_likelihood(line))
    mean = (p * line[:, 0]).sum() / p.sum()
    variance = (p * (line[:, 0] - mean) ** 2).sum() / p.sum()
    drawn = model.sample(3000, 0, 60, 0.8)
    assert drawn.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / 3000))


# ---- chains of training ----


def test_rows_of_the_buffer_are_moved_in_place_and_the_samples_are_copies():
    model = small(n_chains=9, fresh=0.0)
    before, x = model.chains.copy(), np.zeros((4, 2))
    samples = model.draw(np.random.default_rng(0), x, chains=model.chains[2:7])
    changed = (model.chains != before).any(axis=1)
    np.testing.assert_array_equal(changed[[0, 1, 7, 8]], False)
    assert changed.sum() == 4
    assert not np.shares_memory(samples, model.chains)
    np.testing.assert_array_equal(np.sort(samples, axis=0), np.sort(model.chains[changed], axis=0))


def test_a_batch_may_have_more_rows_than_the_buffer():
    model = small(n_chains=3)
    assert model.draw(np.random.default_rng(0), np.zeros((8, 2)), chains=model.chains).shape == (8, 2)


@pytest.mark.parametrize("fresh", [0.0, 1.0])
def test_a_share_of_the_samples_begins_again(fresh):
    model = small(n_chains=6, fresh=fresh, n_langevin=1, step_size=0.01)
    model.buffers["chains"] += 100
    samples = model.draw(np.random.default_rng(0), np.zeros((6, 2)), chains=model.chains)
    assert (np.abs(samples - 100 * (fresh == 0)) < 10).all()


@pytest.mark.parametrize(("start", "near"), [("buffer", 50), ("data", 50), ("noise", 0)])
def test_without_chains_the_sampler_begins_at_the_data_or_in_noise(start, near):
    """As validation and checks draw; no buffer is moved."""
    model = small(start=start, n_langevin=1, step_size=0.01)
    before = model.buffers["chains"].copy()
    samples = model.draw(np.random.default_rng(0), np.full((6, 2), 50.0))
    assert (np.abs(samples - near) < 6).all()
    np.testing.assert_array_equal(model.buffers["chains"], before)
    assert (model.chains is None) == (start != "buffer")


# ---- training ----


def normal_rows(n=2000, mean=(0.5, -1.0)):
    """Rows of N(mean, I) whose moments are exact."""
    rows = np.random.default_rng(0).standard_normal((n, 2))
    rows -= rows.mean(axis=0)
    return rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T, bias=True))).T + mean


@pytest.mark.parametrize("start", ["buffer", "noise"])
def test_contrastive_training_finds_the_mean(start):
    """A model without hidden layers has w = −mean where it is best."""
    model = EnergyModel(2, (), start=start, backend="numpy", dtype="float64", step_size=1.0, n_langevin=10, n_chains=500)
    optimizer = npvae.SGD(lambda t: 0.3 / (1 + t / 20))
    npvae.fit(model, normal_rows(), epochs=12, batch_size=100, optimizer=optimizer, progress=False)
    np.testing.assert_allclose(model.parameters["energy.W"][:, 0], [-0.5, 1.0], atol=0.05)


def test_score_matching_finds_the_mean_and_the_width():
    """Of N(m, I) with noise σ, and c = 1: the best score −x − w in the mean over the noisy rows has w = −m."""
    model = EnergyModel(2, (), backend="numpy", dtype="float64")
    npvae.fit(model, normal_rows(), epochs=30, batch_size=100, optimizer=npvae.SGD(lambda t: 2 / (1 + t / 60)),
              objective="score", noise_scale=0.5, progress=False)  # fmt: skip
    np.testing.assert_allclose(model.parameters["energy.W"][:, 0], [-0.5, 1.0], atol=0.05)


@pytest.mark.parametrize(("objective", "learning_rate"), [("score", 6e-3), ("contrastive", 2e-3)])
def test_training_comes_near_the_entropy(objective, learning_rate):
    """A ring of 8 Gaussians in few steps: from 1.4 nats of a new model to below 0.4."""
    x, test = toy.dataset_rows("ring", 4000, 1000)
    model = EnergyModel(2, (24, 24), step_size=0.2, n_langevin=10, backend="numpy")

    def excess():
        return (toy.log_density("ring", test) - model.log_likelihood(test)).mean()

    assert excess() > 1.3
    npvae.fit(model, x, epochs=20, batch_size=100, optimizer=npvae.Adam(learning_rate), objective=objective, workers=1,
              noise_scale=0.1, progress=False)  # fmt: skip
    assert 0 < excess() < 0.4


@pytest.mark.parametrize("workers", [1, 2])
def test_training_with_a_buffer_resumes_bit_for_bit(workers, tmp_path):
    x = normal_rows(60)
    options = {"epochs": 3, "batch_size": 20, "workers": workers, "seed": 3, "progress": False}

    def new():
        return small(n_chains=30, n_langevin=2)

    whole, model = new(), new()
    npvae.fit(whole, x, **options)
    assert not np.array_equal(whole.chains, new().chains)

    def on_step(state):
        checkpoint.save_progress(tmp_path, model, state)
        return state.step == 5

    npvae.fit(model, x, on_step=on_step, **options)
    model, state = checkpoint.load_progress(tmp_path)
    npvae.fit(model, x, resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)
    np.testing.assert_array_equal(model.chains, whole.chains)


def test_validation_is_by_score_matching_and_moves_no_chain():
    model, x = small(n_chains=20), normal_rows(40)
    before = model.chains.copy()
    assert EnergyModel.validation_settings(objective="contrastive", alpha=0.1, noise_scale=0.3) == {
        "objective": "score", "noise_scale": 0.3}  # fmt: skip
    found = npvae.training.validation.validate(model, npvae.data.rows.Rows.of(model, x, "x"), model.validation_settings())
    assert 0 < found.loss < 2
    np.testing.assert_array_equal(model.chains, before)


def test_copies_and_files_keep_the_buffer(tmp_path):
    model = small(n_chains=5)
    model.buffers["chains"] += 1
    model.save(tmp_path / "model.npz")
    for twin in (model.copy(), EnergyModel.load(tmp_path / "model.npz")):
        np.testing.assert_array_equal(twin.buffers["chains"], model.buffers["chains"])
        assert twin.config == model.config


def test_the_text_says_what_it_is():
    assert repr(small()) == "EnergyModel(2, 6, tanh, confinement 1, float64, numpy: 25 parameters)"
    assert "linear" in repr(small(hidden=()))


def test_long_chains_are_drawn_in_passes():
    """Two passes are a pass, and from its end another with the numbers that come next; the shares taken are averaged."""
    model, x, most = small(step_size=1.5), np.zeros((30, 2)), energy_density.STEPS_PER_PASS
    rng = np.random.default_rng(0)
    middle, first = energy_density.moved(model, x, rng, most)
    end, second = energy_density.moved(model, middle, rng, 5)
    found, share = energy_density.moved(model, x, np.random.default_rng(0), most + 5)
    np.testing.assert_array_equal(found, end)
    assert share == pytest.approx((most * first + 5 * second) / (most + 5), rel=1e-12)
    assert 0 < share < 1
