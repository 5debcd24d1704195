"""Evaluation against models whose log p(x) is known: by quadrature for L ≤ 2, in closed form for the linear Gaussian one."""

import math

import numpy as np
import pytest
import scipy.stats
from small_models import rows_for

import npvae
from npvae.core.levels import GREY
from npvae.models import evaluate
from npvae.models.cvae import ConditionalVAE
from npvae.models.likelihoods import LOGVAR
from npvae.models.vae import LIKELIHOODS, POSTERIORS
from npvae.ops.full_posterior import full_posterior_forward


def small_model(n_latent):
    """A model with a lively decoder, and five rows of zeros and ones."""
    model = npvae.VAE(6, n_latent, (4,), "tanh", dtype="float64", backend="numpy")
    model.theta = np.random.default_rng(3).standard_normal(model.theta.size)
    model.parameters["posterior.W"][:] *= 0.3  # a posterior wide enough to cover p(z|x), so that the weights have a variance
    model.parameters["posterior.b"][:] *= 0.3
    x = (np.random.default_rng(4).random((5, 6)) < 0.5).astype(float)
    return model, x


def log_p_by_quadrature(model, x):
    """log ∫ p(x|z) p(z) dz on a grid of one or two latent dimensions, (B,)."""
    axis = np.linspace(-9, 9, 301)
    z = np.stack(np.meshgrid(*[axis] * model.n_latent), axis=-1).reshape(-1, model.n_latent)
    weights = (axis[1] - axis[0]) ** model.n_latent * np.exp(-0.5 * (z**2).sum(axis=1)) / (2 * np.pi) ** (model.n_latent / 2)
    p = model.decode(z)
    likelihood = np.exp(x @ np.log(p).T + (1 - x) @ np.log1p(-p).T)  # (B, grid)
    return np.log(likelihood @ weights)


@pytest.mark.parametrize("n_latent", [1, 2])
def test_log_likelihood_is_that_of_quadrature(n_latent):
    model, x = small_model(n_latent)
    estimates = [evaluate.log_likelihood(model, x, 20_000, seed) for seed in range(4)]
    error = np.std(estimates, axis=0, ddof=1)
    assert (error < 0.1).all()
    difference = np.mean(estimates, axis=0) - log_p_by_quadrature(model, x)
    assert (np.abs(difference) < 5 * error / 2 + 1e-3).all()


@pytest.mark.parametrize("n_latent", [1, 2])
def test_elbo_is_below_the_importance_weighted_bound_below_log_p(n_latent):
    model, x = small_model(n_latent)
    many = np.tile(x, (1000, 1))  # a thousand estimates for each of the five rows
    bounds = [evaluate.log_likelihood(model, many, k, 0).reshape(1000, 5) for k in (1, 5, 50)]
    means = [bound.mean(axis=0) for bound in bounds]
    error = max(bound.std(axis=0).max() for bound in bounds) / math.sqrt(1000)
    elbo = [evaluate.elbo(model, many[i::5], 1, 4).elbo for i in range(5)]
    assert np.abs(means[0] - elbo).max() < 5 * error  # one sample: the ELBO
    assert (np.diff([*means, log_p_by_quadrature(model, x)], axis=0) > -2 * error).all()
    assert means[2].mean() > means[1].mean() > means[0].mean()


def linear_gaussian(sigma=0.4):
    """A linear model, whose x is N(b, W Wᵀ + σ² I), with its exact posterior as far as a diagonal one can be: W orthogonal."""
    model = npvae.VAE(5, 2, (), likelihood="gaussian", sigma=sigma, dtype="float64", backend="numpy")
    rng = np.random.default_rng(6)
    W = np.linalg.qr(rng.standard_normal((5, 2)))[0].T * [[1.5], [0.7]]  # (L, D), rows orthogonal
    b = rng.standard_normal(5)
    precision = 1 + (W**2).sum(axis=1) / sigma**2  # of p(z|x), diagonal
    model.parameters["likelihood.W"][:], model.parameters["likelihood.b"][:] = W, b
    model.parameters["posterior.W"][:, :2] = W.T / sigma**2 / precision
    model.parameters["posterior.W"][:, 2:] = 0
    model.parameters["posterior.b"][:2] = -b @ W.T / sigma**2 / precision
    model.parameters["posterior.b"][2:] = -np.log(precision)
    covariance = W.T @ W + sigma**2 * np.eye(5)
    x = rng.multivariate_normal(b, covariance, 20)
    residual = x - b
    quadratic = (residual @ np.linalg.inv(covariance) * residual).sum(axis=1)
    return model, x, -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_with_the_exact_posterior_every_weight_is_p_of_x():
    """Probabilistic PCA (Tipping & Bishop 1999): with q = p(z|x) one sample gives log p(x) without any noise."""
    model, x, log_p = linear_gaussian()
    for n_samples in (1, 7):
        np.testing.assert_allclose(evaluate.log_likelihood(model, x, n_samples, 0), log_p, rtol=1e-11)


def test_elbo_of_the_exact_posterior_is_log_p():
    model, x, log_p = linear_gaussian()
    bound = evaluate.elbo(model, x, 0, 3000)
    assert bound.elbo == pytest.approx(log_p.mean(), abs=5 * bound.standard_error)
    assert bound.elbo == -bound.nll - bound.kl


class DecoderGiven(npvae.VAE):
    """A linear Gaussian model of which only the encoder is trained, with noise over which its loss has the exact mean.

    Of a linear decoder nll is quadratic in eps, and the points ±√L e_l have the mean 0 and the covariance I.
    """

    def draw(self, rng, x, **_):
        L = self.n_latent
        points = math.sqrt(L) * np.concatenate([np.eye(L), -np.eye(L)])  # (2L, L)
        return np.repeat(points[:, None], len(x), axis=1)

    def backward(self, cache, dloss=1.0, out=None):
        grads = super().backward(cache, dloss, out)
        for name in ("likelihood.W", "likelihood.b"):
            grads[name][:] = 0
        return grads


def correlated(posterior, sigma=0.7):
    """A linear model with loadings that are not orthogonal, so that z are correlated given x; some data; and what is exact:
    log p(x) of each, the precision of p(z|x), and its mean as slope (D, L) and offset (L,) of x."""
    model = DecoderGiven(5, 3, (), likelihood="gaussian", sigma=sigma, dtype="float64", backend="numpy", posterior=posterior)
    rng = np.random.default_rng(8)
    W, b = rng.standard_normal((3, 5)) + 1.5 * rng.standard_normal(5), rng.standard_normal(5)
    model.parameters.update({"likelihood.W": W, "likelihood.b": b})
    covariance = W.T @ W + sigma**2 * np.eye(5)
    x = rng.multivariate_normal(b, covariance, 40)
    precision = np.eye(3) + W @ W.T / sigma**2
    slope = W.T @ np.linalg.inv(precision) / sigma**2
    log_p = scipy.stats.multivariate_normal(b, covariance).logpdf(x)
    return model, x, log_p, precision, (slope, -b @ slope)


def exact_elbo(model, x):
    return -model.forward(x, model.draw(None, x))[0].loss


def gap(precision):
    """KL(q ‖ p(z|x)) of the best q without correlations, N(mean, diag(1/Λ_ll)): ½ (Σ_l log Λ_ll − log det Λ), Λ the
    precision."""
    return 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])


def test_the_exact_full_posterior_reaches_log_p_and_the_best_diagonal_one_is_short_by_the_gap():
    elbos = {}
    for posterior in POSTERIORS:
        model, x, log_p, precision, (slope, offset) = correlated(posterior)
        factor = np.linalg.cholesky(np.linalg.inv(precision))
        full = np.concatenate([np.log(np.diag(factor) ** 2), factor[np.tril_indices(3, -1)]])
        model.parameters["posterior.W"][:] = 0
        model.parameters["posterior.W"][:, :3] = slope
        model.parameters["posterior.b"][:3] = offset
        model.parameters["posterior.b"][3:] = full if posterior == "full" else -np.log(np.diag(precision))
        elbos[posterior] = exact_elbo(model, x)
        if posterior == "full":  # and every importance weight is p(x)
            np.testing.assert_allclose(evaluate.log_likelihood(model, x, 1, 0), log_p, rtol=1e-11)
    assert elbos["full"] == pytest.approx(log_p.mean(), abs=1e-11)
    assert gap(precision) > 0.4
    assert elbos["diagonal"] == pytest.approx(log_p.mean() - gap(precision), abs=1e-11)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_trained_the_full_posterior_reaches_log_p_and_the_diagonal_one_does_not(posterior):
    """From random weights, with the decoder as it is."""
    model, x, log_p, precision, _ = correlated(posterior)
    decoder = model.parameters["likelihood.W"].copy()
    npvae.fit_lbfgs(model, x, iterations=400, progress=False)
    np.testing.assert_array_equal(model.parameters["likelihood.W"], decoder)
    short = gap(precision) if posterior == "diagonal" else 0
    assert exact_elbo(model, x) == pytest.approx(log_p.mean() - short, abs=1e-5)
    weighted = evaluate.log_likelihood(model, x, 2000, 0).mean()  # which many samples bring to log p(x) all the same
    assert weighted == pytest.approx(log_p.mean(), abs=0.05 if posterior == "diagonal" else 1e-3)


def test_the_kl_of_the_elbo_has_no_noise():
    model, x, _ = linear_gaussian()
    model.parameters["likelihood.W"][:] = 0  # then p(x|z) has none either
    bounds = [evaluate.elbo(model, x, seed, 3) for seed in (0, 1)]
    assert bounds[0].elbo == pytest.approx(bounds[1].elbo, rel=1e-14)
    assert bounds[0].standard_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_samples", [2, 10])
def test_standard_error_of_the_elbo_is_the_spread_over_seeds(n_samples):
    model, x = small_model(2)
    bounds = [evaluate.elbo(model, x, seed, n_samples) for seed in range(400)]
    spread = np.std([bound.elbo for bound in bounds])
    errors = np.array([bound.standard_error for bound in bounds])
    assert math.sqrt((errors**2).mean()) == pytest.approx(spread, rel=0.15)  # a variance of two is unbiased, its root is not
    assert math.isnan(evaluate.elbo(model, x, 0).standard_error)


def test_passes_of_many_rows_and_samples_give_the_same(monkeypatch):
    """The passes only bound memory: with the exact posterior every way of cutting gives log p(x)."""
    model, x, log_p = linear_gaussian()
    for rows_per_pass in (1, 3, 7, 100):
        monkeypatch.setattr(evaluate, "ROWS_PER_PASS", rows_per_pass)
        np.testing.assert_allclose(evaluate.log_likelihood(model, x, 5, 0), log_p, rtol=1e-11)
        assert evaluate.elbo(model, x, 0, 2).kl == pytest.approx(evaluate.kl_per_dimension(model, x).sum(), rel=1e-12)
        for whole, once in zip(evaluate.posterior(model, x), model.encode(x)):
            np.testing.assert_allclose(whole, once, rtol=1e-12)


def test_log_sum_exp_does_not_overflow():
    values = np.array([[1000.0, -1000.0], [1000.0, -2000.0]])
    np.testing.assert_allclose(evaluate.log_sum_exp(values), [1000 + math.log(2), -1000], rtol=1e-15)


def test_active_units_are_those_whose_mean_moves_with_x():
    model = npvae.VAE(4, 3, (), dtype="float64", backend="numpy")
    model.theta[:] = 0
    model.parameters["posterior.W"][0, :3] = [1, 0.19, 0]  # mu = (x0, 0.19 x0, 0)
    x = np.zeros((4, 4))
    x[::2, 0] = 1  # Var(x0) = 1/4, so Var(mu) = 0.25, 0.009, 0
    np.testing.assert_array_equal(evaluate.active_units(model, x), [True, False, False])
    np.testing.assert_array_equal(evaluate.active_units(model, x, threshold=0.009), [True, True, False])
    mu, logvar = evaluate.posterior(model, x)
    np.testing.assert_allclose(mu, x[:, :1] * [1, 0.19, 0], atol=1e-15)
    np.testing.assert_array_equal(logvar, np.zeros((4, 3)))
    assert mu.dtype == logvar.dtype == np.float64
    np.testing.assert_allclose(evaluate.kl_per_dimension(model, x), [0.25, 0.19**2 / 4, 0], atol=1e-15)


def test_bits_of_a_density_are_named_so_and_grey_levels_have_their_own():
    """A likelihood of zeros and ones has bits; a density has bits in its units, and log2 255 more for levels from 0 to 255."""
    grey = np.random.default_rng(0).integers(0, 256, (30, 16), np.uint8)
    for likelihood, x, names in [
        ("bernoulli", grey > 99, {"bits_per_dimension"}),
        ("bernoulli", grey, {"bits_per_dimension"}),
        ("gaussian", grey / 255, {"bits_per_dimension"}),
        ("gaussian", (grey > 99).astype(np.uint8), {"bits_per_dimension"}),
        ("gaussian", grey, {"bits_per_dimension", "bits_per_grey_level"}),
    ]:
        model = npvae.VAE(16, 2, (4,), likelihood=likelihood, backend="numpy")
        npvae.fit(model, x, epochs=1, progress=False)
        measures = {measure.name: measure for measure in model.measure(x, n_samples=2) if measure.name.startswith("bits")}
        assert set(measures) == names
        assert ("density" in measures["bits_per_dimension"].note) == (likelihood == "gaussian")
    bits, levels = measures["bits_per_dimension"].value, measures["bits_per_grey_level"].value
    assert set(bits) == set(levels) == {"elbo", "log_likelihood"}
    for name in bits:
        assert levels[name] == pytest.approx(bits[name] + math.log2(255), rel=1e-12)


def test_bits_per_dimension():
    assert evaluate.bits_per_dimension(784 * math.log(2), 784) == pytest.approx(1)
    assert evaluate.bits_per_dimension(105.4, 784) == pytest.approx(0.19395, abs=1e-5)


def test_elbo_is_that_of_the_model_s_own_loss():
    model, x = small_model(2)
    many = np.tile(x, (4000, 1))
    bound = evaluate.elbo(model, many, 0, 2)
    terms, _ = model.forward(many, np.random.default_rng(1).standard_normal((2, len(many), 2)))
    assert bound.kl == pytest.approx(terms.kl, rel=1e-12)
    assert bound.nll == pytest.approx(terms.nll, abs=5 * math.sqrt(2) * bound.standard_error)


def test_draws_differ_between_passes_and_between_samples(monkeypatch):
    model, x = small_model(2)
    monkeypatch.setattr(evaluate, "ROWS_PER_PASS", 4)
    rows = np.tile(x[:1], (20, 1))
    assert len(set(evaluate.log_likelihood(model, rows, 1, 0))) == 20
    assert evaluate.elbo(model, rows[:1], 0, 4).standard_error > 0


@pytest.mark.parametrize("call", [evaluate.log_likelihood, evaluate.elbo, evaluate.posterior])
def test_grey_levels_beyond_1_are_refused(call):
    with pytest.raises(ValueError, match="x must lie in"):
        call(small_model(2)[0], np.full((2, 6), 255.0))


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_on_a_terminal_where_asked_for(capsys, monkeypatch, terminal, progress):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    model, x = small_model(1)
    evaluate.log_likelihood(model, x, 2, 0, progress)
    out, err = capsys.readouterr()
    assert ("log-likelihood" in err) == (progress and terminal)
    assert out == ""


def test_same_seed_same_numbers_and_float32_close_to_float64():
    model, x = small_model(2)
    a, b = (evaluate.log_likelihood(model, x, 50, 1) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(evaluate.log_likelihood(model, x.tolist(), 50, 1), a)
    assert not np.array_equal(a, evaluate.log_likelihood(model, x, 50, 2))
    assert evaluate.elbo(model, x, 1, 3) == evaluate.elbo(model, x, np.random.default_rng(1), 3)
    assert evaluate.elbo(model, x, 1, 3) != evaluate.elbo(model, x, 2, 3)
    np.testing.assert_allclose(evaluate.log_likelihood(model.copy(dtype="float32"), x, 50, 1), a, rtol=1e-5)


@pytest.mark.parametrize("n_samples", [0, -1, 2.7])
def test_numbers_of_samples_that_cannot_be_are_refused(n_samples):
    model, x = small_model(2)
    for estimate in (evaluate.elbo, evaluate.log_likelihood):
        with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
            estimate(model, x, rng=0, n_samples=n_samples)


class Encoder(npvae.VAE):
    """A model whose posteriors are given: row i of the data, which is i, has mu[i] and logvar[i]."""

    def encoder_output(self, x):
        index = x[:, 0].astype(int)
        return np.hstack([self.mu[index], self.logvar[index]])


def encoder(mu, logvar):
    model = Encoder(1, np.shape(mu)[1], (), likelihood="gaussian", dtype="float64")
    model.mu, model.logvar = np.array(mu, float), np.array(logvar, float)
    return model, np.arange(len(mu), dtype=float)[:, None]


def test_posteriors_that_ignore_x_have_no_mutual_information():
    model, x = encoder(np.full((7, 3), 0.4), np.full((7, 3), -1.0))
    information, aggregate_kl = evaluate.kl_parts(model, x, 0)
    assert information == pytest.approx(0, abs=1e-14)
    assert aggregate_kl == pytest.approx(3 * 0.5 * (0.16 + np.expm1(-1) + 1), rel=1e-12)


def test_posteriors_that_do_not_overlap_tell_which_datum_it_was():
    n = 50
    model, x = encoder(np.arange(2.0 * n).reshape(n, 2), np.full((n, 2), -12.0))
    information, aggregate_kl = evaluate.kl_parts(model, x, 0)
    assert information == pytest.approx(math.log(n), rel=1e-7)
    kl = evaluate.kl_per_dimension(model, x).sum()
    assert information + aggregate_kl == pytest.approx(kl, rel=1e-12)


def test_mutual_information_is_that_of_quadrature():
    mu, logvar = np.array([[-0.5], [0.3], [1.4]]), np.array([[-1.0], [0.2], [-0.3]])
    model, x = encoder(np.repeat(mu, 4, axis=0), np.repeat(logvar, 4, axis=0))  # each datum four times is the same q(z)
    z = np.linspace(-12, 12, 20001)
    q = np.exp(-0.5 * ((z - mu) ** 2 / np.exp(logvar) + logvar + math.log(2 * math.pi)))  # (3, points)
    exact = np.mean(np.sum(q * (np.log(q) - np.log(q.mean(axis=0))), axis=1)) * (z[1] - z[0])
    parts = np.array([evaluate.kl_parts(model, x, seed) for seed in range(2000)])
    error = parts[:, 0].std() / math.sqrt(len(parts))
    assert abs(parts[:, 0].mean() - exact) < 4 * error < 0.05
    mixture = q.mean(axis=0)
    prior = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    assert abs(parts[:, 1].mean() - np.sum(mixture * np.log(mixture / prior)) * (z[1] - z[0])) < 4 * error


def test_kl_parts_pass_by_pass_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    model, x = encoder(rng.standard_normal((11, 2)), rng.standard_normal((11, 2)))
    whole = evaluate.kl_parts(model, x, 0)
    monkeypatch.setattr(evaluate, "PAIRS_PER_PASS", 25)
    monkeypatch.setattr(evaluate, "ROWS_PER_PASS", 4)
    assert evaluate.kl_parts(model, x, 0) == pytest.approx(whole, rel=1e-12)


# ---- a full posterior ----


def full_model(n_rows=7, n_latent=3):
    model = npvae.VAE(4, n_latent, (3,), "tanh", "gaussian", "numpy", "float64", seed=2, posterior="full")
    model.theta += 0.3 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model, np.random.default_rng(2).standard_normal((n_rows, 4))


def test_kl_parts_of_a_full_posterior_are_those_of_all_pairs_by_scipy(monkeypatch):
    model, x = full_model()
    (mu, factor), _ = full_posterior_forward(model.encoder_output(x))
    assert np.abs(np.tril(factor, -1)).max() > 0.3
    z = mu + (factor @ np.random.default_rng(0).standard_normal(mu.shape)[..., None])[..., 0]
    log_q = np.array([scipy.stats.multivariate_normal(m, F @ F.T).logpdf(z) for m, F in zip(mu, factor)])  # (posterior, z)
    information = np.mean(np.diag(log_q) - np.log(np.exp(log_q).mean(axis=0)))
    kl = np.mean([0.5 * (np.trace(F @ F.T) + m @ m - 3 - np.linalg.slogdet(F @ F.T)[1]) for m, F in zip(mu, factor)])
    assert evaluate.kl_per_dimension(model, x).sum() == pytest.approx(kl, rel=1e-12)
    assert evaluate.kl_parts(model, x, 0) == pytest.approx((information, kl - information), rel=1e-11)
    monkeypatch.setattr(evaluate, "PAIRS_PER_PASS", 50)  # two posteriors at a time
    monkeypatch.setattr(evaluate, "ROWS_PER_PASS", 4)
    assert evaluate.kl_parts(model, x, 0) == pytest.approx((information, kl - information), rel=1e-11)


def test_without_correlations_a_full_posterior_has_the_parts_of_the_diagonal_one():
    model, x = full_model()
    model.parameters["posterior.W"][:, 6:] = model.parameters["posterior.b"][6:] = 0
    twin = npvae.VAE(4, 3, (3,), "tanh", "gaussian", "numpy", "float64")
    twin.parameters.update({name: value[..., :6] if name.startswith("posterior") else value
                            for name, value in model.parameters.items()})  # fmt: skip
    assert evaluate.kl_parts(model, x, 4) == pytest.approx(evaluate.kl_parts(twin, x, 4), rel=1e-12)
    np.testing.assert_allclose(evaluate.kl_per_dimension(model, x), evaluate.kl_per_dimension(twin, x), rtol=1e-12)
    np.testing.assert_allclose(evaluate.log_likelihood(model, x, 5, 1), evaluate.log_likelihood(twin, x, 5, 1), rtol=1e-12)
    assert evaluate.elbo(model, x, 1, 3) == pytest.approx(evaluate.elbo(twin, x, 1, 3), rel=1e-12)


# ---- conditional models ----


def conditional_linear_gaussian(prior, sigma=0.4):
    """p(x|c) = N(Wᵀ m(c) + Vᵀ c + b, Wᵀ S W + σ² I) with the prior N(m(c), S), and its exact posterior: W orthogonal."""
    model = ConditionalVAE(5, 2, 2, (), likelihood="gaussian", sigma=sigma, dtype="float64", backend="numpy", prior=prior)
    rng = np.random.default_rng(6)
    W = np.linalg.qr(rng.standard_normal((5, 2)))[0].T * [[1.5], [0.7]]  # (L, D), rows orthogonal
    V, b, A, a = rng.standard_normal((2, 5)), rng.standard_normal(5), rng.standard_normal((2, 2)), rng.standard_normal(2)
    logvar_p = np.array([0.6, -0.9])
    if prior == "standard":
        A, a, logvar_p = 0 * A, 0 * a, 0 * logvar_p
    else:
        model.parameters.update({"prior.W": np.hstack([A, np.zeros((2, 2))]), "prior.b": np.concatenate([a, logvar_p])})
    precision_p = np.exp(-logvar_p)
    precision = precision_p + (W**2).sum(axis=1) / sigma**2  # of p(z|x, c), diagonal
    to_mu = np.vstack([W.T / sigma**2, A * precision_p - V @ W.T / sigma**2]) / precision  # (D + C, L)
    model.parameters.update({
        "likelihood.W": np.vstack([W, V]), "likelihood.b": b,
        "posterior.W": np.hstack([to_mu, np.zeros((7, 2))]),
        "posterior.b": np.concatenate([(a * precision_p - b @ W.T / sigma**2) / precision, -np.log(precision)]),
    })  # fmt: skip
    condition = rng.standard_normal((20, 2))
    means = (condition @ A + a) @ W + condition @ V + b
    p_x = scipy.stats.multivariate_normal(cov=W.T * np.exp(logvar_p) @ W + sigma**2 * np.eye(5))
    x = means + p_x.rvs(20, random_state=9)
    return model, (x, condition), p_x.logpdf(x - means)


@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_of_a_linear_conditional_model_with_its_exact_posterior_every_weight_is_p_of_x(prior, monkeypatch):
    model, batch, log_p = conditional_linear_gaussian(prior)
    bound = evaluate.elbo(model, batch, 0, 1000)
    assert bound.elbo == pytest.approx(log_p.mean(), abs=5 * bound.standard_error)
    for rows_per_pass in (2000, 3):
        monkeypatch.setattr(evaluate, "ROWS_PER_PASS", rows_per_pass)
        np.testing.assert_allclose(evaluate.log_likelihood(model, batch, 4, 0), log_p, rtol=1e-11)
    np.testing.assert_allclose(model.log_likelihood(*batch, 2, 0), log_p, rtol=1e-11)
    mu, logvar = evaluate.posterior(model, batch)
    for whole, once in zip((mu, logvar), model.encode(*batch)):
        np.testing.assert_allclose(whole, once, rtol=1e-12)


@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_conditional_bounds_are_below_log_p_by_quadrature(prior):
    """A lively model of zeros and ones, whose prior's mean and variance depend on the condition."""
    model = ConditionalVAE(6, 2, 1, (4,), "tanh", dtype="float64", backend="numpy", prior=prior)
    model.theta = np.random.default_rng(3).standard_normal(model.theta.size)
    model.parameters["posterior.W"][:] *= 0.3
    model.parameters["posterior.b"][:] = [0, 2]  # wide enough to cover p(z|x, c)
    x, labels = (np.random.default_rng(4).random((5, 6)) < 0.5).astype(float), np.array([0, 1, 1, 0, 1])
    z = np.linspace(-12, 12, 2001)[:, None]
    exact = []
    for row, label in zip(x, labels):
        mu, logvar = model.prior_output(np.eye(2)[[label]])[0] if prior == "learned" else (0, 0)
        p = model.decode(z, np.full(len(z), label))
        joint = np.exp(np.log(np.where(row == 1, p, 1 - p)).sum(axis=1)) * scipy.stats.norm.pdf(z[:, 0], mu, np.exp(logvar / 2))
        exact.append(np.log(np.trapezoid(joint, z[:, 0])))
    estimates = [evaluate.log_likelihood(model, (x, labels), 2500, seed) for seed in range(16)]
    error = np.std(estimates, axis=0, ddof=1) / 4
    assert (np.abs(np.mean(estimates, axis=0) - exact) < 5 * error + 1e-3).all()
    many = np.tile(x, (2000, 1)), np.tile(labels, 2000)
    for i in range(5):
        bound = evaluate.elbo(model, tuple(array[i::5] for array in many), 1, 2)
        assert bound.elbo < exact[i] + 3 * bound.standard_error
        few = evaluate.log_likelihood(model, tuple(array[i::5] for array in many), 5, 1)
        spread = few.std() / math.sqrt(2000)
        assert bound.elbo - 3 * bound.standard_error < few.mean() + 3 * spread
        assert few.mean() < exact[i] + 3 * spread


# ---- measures ----

MEASURES = ["elbo", "nll", "kl", "mutual_information", "aggregate_kl", "elbo_standard_error", "elbo_samples", "log_likelihood",
            "log_likelihood_samples", "bits_per_dimension", "active_units", "n_latent", "kl_per_dimension"]  # fmt: skip
DENSITY, LEVEL = "of a density in the units of x: it may be negative", "of the grey levels 0 to 255"
WITH_SIGMA = ("gaussian_global", "gaussian_learned")


def measures_of(model, *batch):
    return {measure.name: measure for measure in model.measure(*batch, n_samples=2)}


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_measures_of_each_likelihood_have_its_units(likelihood, posterior):
    model = npvae.VAE(4, 2, (3,), likelihood=likelihood, backend="numpy", posterior=posterior)
    found = measures_of(model, rows_for(model, 12))
    assert set(found) == {*MEASURES, *(["sigma", "sigma_at_floor"] if likelihood in WITH_SIGMA else [])}
    bits = found["bits_per_dimension"]
    assert bits.unit == "bits"
    assert bits.note == {"binary": "", "levels": LEVEL, "real": DENSITY}[model.data_kind]
    for name in ("elbo", "log_likelihood"):
        assert bits.value[name] == pytest.approx(-found[name].value / (4 * math.log(2)), rel=1e-12)
        assert found[name].unit == "nats"
    assert found["kl"].value == pytest.approx(found["mutual_information"].value + found["aggregate_kl"].value, rel=1e-6)
    assert "log p(x) is at least this" in found["log_likelihood"].note


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_grey_bytes_have_bits_of_a_level_whatever_the_likelihood(likelihood):
    """Of a density as a figure of its own, of levels as the one there is; of zeros and ones drawn from them there is none."""
    grey = np.random.default_rng(0).integers(0, 256, (30, 4), np.uint8)
    model = npvae.VAE(4, 2, (3,), likelihood=likelihood, backend="numpy")
    npvae.fit(model, grey, epochs=1, progress=False)
    assert evaluate.levels.kept_by(model) == GREY
    found = measures_of(model, grey)
    assert ("bits_per_grey_level" in found) == likelihood.startswith("gaussian")


@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_measures_of_a_conditional_model_name_the_condition_and_leave_out_the_parts(prior):
    for likelihood in LIKELIHOODS:
        model = ConditionalVAE(4, 3, 2, (3,), likelihood=likelihood, backend="numpy", prior=prior)
        batch = rows_for(model, 12), np.arange(12) % 3
        found = measures_of(model, *batch)
        wanted = [name for name in MEASURES if name not in ("mutual_information", "aggregate_kl")]
        assert set(found) == {*wanted, *(["sigma", "sigma_at_floor"] if likelihood in WITH_SIGMA else [])}
        assert found["log_likelihood"].note.startswith("log p(x|condition) is at least this")
        assert found["kl"].note == "KL(q(z|x, condition) ‖ p(z|condition))"
        assert found["kl"].value == pytest.approx(sum(found["kl_per_dimension"].value), rel=1e-6)


def test_sigma_is_that_of_the_likelihood_and_its_share_at_the_floor_is_counted():
    model = npvae.VAE(4, 1, (), likelihood="gaussian_global", backend="numpy", min_sigma=0.1)
    x = rows_for(model, 12)
    for logvar, sigma, share in [(-1.0, math.exp(-0.5), 0), (-9.0, 0.1, 1)]:
        model.parameters[LOGVAR] = logvar
        found = measures_of(model, x)
        assert found["sigma"].value == pytest.approx(sigma, rel=1e-6)
        assert found["sigma_at_floor"].value == share
    model = npvae.VAE(4, 1, (), likelihood="gaussian_learned", backend="numpy", min_sigma=0.1)
    model.parameters["likelihood.W"][:] = 0
    model.parameters["likelihood.b"][4:] = [-1, -9, 0.5, -2]
    found = measures_of(model, x)
    assert found["sigma"].value == pytest.approx(math.exp((-1 + 2 * math.log(0.1) + 0.5 - 2) / 8), rel=1e-6)
    assert found["sigma_at_floor"].value == 0.25
    assert found["sigma"].note == "at mu(x), geometric mean; 25.0% lie on the floor min_sigma = 0.1"
