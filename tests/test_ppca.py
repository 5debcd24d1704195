"""Probabilistic PCA in closed form, and the linear VAE that has to find it."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import npvae
from npvae.models import ppca
from npvae.training.schedules import Cosine


def data(n=500, D=10, sigma=0.5, seed=0):
    """Three directions of different variance, and noise."""
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((3, D)) * [[2.0], [1.2], [0.7]]
    return rng.standard_normal((n, 3)) @ axes + rng.standard_normal(D) + sigma * rng.standard_normal((n, D))


def test_the_likelihood_is_that_of_the_normal_distribution():
    x = data()
    model = ppca.maximum_likelihood(x, 3)
    expected = multivariate_normal(model.mean, model.covariance).logpdf(x)
    np.testing.assert_allclose(ppca.log_likelihood(model, x), expected, rtol=1e-11)


@pytest.mark.parametrize("sigma", [None, 0.8])
def test_no_model_nearby_has_a_higher_likelihood(sigma):
    x, rng = data(), np.random.default_rng(1)
    best = ppca.maximum_likelihood(x, 3, sigma)
    likelihood = ppca.log_likelihood(best, x).mean()
    for _ in range(50):
        W, mean = (value + 0.02 * rng.standard_normal(value.shape) for value in (best.W, best.mean))
        other = best._replace(W=W, mean=mean)
        assert ppca.log_likelihood(other, x).mean() < likelihood
    if sigma is None:
        for factor in (0.97, 1.03):
            assert ppca.log_likelihood(best._replace(sigma=factor * best.sigma), x).mean() < likelihood
        eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))
        assert best.sigma**2 == pytest.approx(eigenvalues[:-3].mean(), rel=1e-12)
    else:
        assert best.sigma == pytest.approx(sigma, rel=1e-15)


def test_directions_below_the_noise_stay_unused():
    x = data()
    assert np.all(ppca.maximum_likelihood(x, 9, sigma=1.0).W[3:] == 0)
    assert np.any(ppca.maximum_likelihood(x, 9, sigma=0.1).W[3:] != 0)


def test_more_latent_dimensions_than_the_data_can_have_are_refused():
    for n_latent in (0, 10):
        with pytest.raises(ValueError, match="n_latent must be an integer from 1 to 9"):
            ppca.maximum_likelihood(data(), n_latent)


def few_rows(n, D=6):
    return np.random.default_rng(0).standard_normal((n, D))


def with_a_constant_column(n=50, D=5):
    x = few_rows(n, D)
    x[:, 2] = 3
    return x


@pytest.mark.parametrize(("x", "n_latent"), [
    (few_rows(1), 1), (few_rows(4), 3), (few_rows(4), 5), (with_a_constant_column(), 4), (np.full((5, 4), 0.1), 2),
])  # fmt: skip
def test_sigma_cannot_be_estimated_where_the_data_lie_in_the_latent_dimensions(x, n_latent):
    """The likelihood grows without bound as sigma goes to 0; with sigma given it has its maximum."""
    with pytest.raises(ValueError, match=f"sigma cannot be estimated: x varies in no more than {n_latent} dimensions; give"):
        ppca.maximum_likelihood(x, n_latent)
    for sigma in (0.3, 1e-9):
        model = ppca.maximum_likelihood(x, n_latent, sigma)
        assert np.isfinite(ppca.log_likelihood(model, x)).all()
    expected = multivariate_normal((best := ppca.maximum_likelihood(x, n_latent, 0.3)).mean, best.covariance).logpdf(x)
    np.testing.assert_allclose(ppca.log_likelihood(best, x), expected, rtol=1e-11)


@pytest.mark.parametrize(("x", "n_latent"), [(few_rows(4), 2), (few_rows(5, 30), 3), (with_a_constant_column(), 3)])
def test_fewer_data_than_dimensions_have_an_estimate_where_some_variance_is_left_out(x, n_latent):
    model = ppca.maximum_likelihood(x, n_latent)
    expected = multivariate_normal(model.mean, model.covariance).logpdf(x)
    np.testing.assert_allclose(ppca.log_likelihood(model, x), expected, rtol=1e-10)


def test_the_likelihood_is_exact_for_a_noise_that_no_covariance_shows():
    """Wᵀ W + σ² I rounds to Wᵀ W: along the axes of W and beside them the density is a product."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    W, x = np.diag([3.0, 2.0, 1.0]) @ axes, np.array([[1.0, -2.0, 3e-9]]) @ axes
    expected = -0.5 * (1 / 9 + 4 / 4 + 9 + 3 * np.log(2 * np.pi)) - np.log(3 * 2 * 1e-9)
    assert ppca.log_likelihood(ppca.PPCA(W[:2], np.zeros(3), 1e-9), x)[0] == pytest.approx(expected, rel=1e-6)
    square = -0.5 * (1 / 9 + 4 / 4 + 3 * np.log(2 * np.pi)) - np.log(3 * 2)  # nothing is beside W
    assert ppca.log_likelihood(ppca.PPCA(W, np.zeros(3), 1e-30), x)[0] == pytest.approx(square, rel=1e-12)


def test_a_singular_covariance_has_no_likelihood():
    for sigma in (0.0, np.nan, 1e-200):
        with pytest.raises(ValueError, match=r"sigma\^2 must be a finite number above 0"):
            ppca.log_likelihood(ppca.PPCA(np.ones((1, 6)), np.zeros(6), sigma), few_rows(4))
    with pytest.raises(ValueError, match="W must be finite; got nan"):
        ppca.log_likelihood(ppca.PPCA(np.full((1, 6), np.nan), np.zeros(6), 1.0), few_rows(4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_are_not_finite_are_named(bad):
    x = few_rows(9)
    x[3, 1] = bad
    fitted = ppca.maximum_likelihood(few_rows(9), 2)
    for use in (ppca.principal_components, ppca.maximum_likelihood, lambda x, _: ppca.log_likelihood(fitted, x)):
        with pytest.raises(ValueError, match=rf"x must be finite; got {bad} at \[3, 1\]"):
            use(x, 2)
    with pytest.raises(ValueError, match="the covariance of x must be finite; got inf"):
        ppca.principal_components(1e200 * few_rows(9), 2)


def test_angles_between_subspaces():
    a = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert ppca.subspace_angle(a, a[::-1] + a) == pytest.approx(0, abs=1e-6)
    assert ppca.subspace_angle(a, [[1.0, 0, 0], [0, 1, 1]]) == pytest.approx(45)
    assert ppca.subspace_angle(a, [[0.0, 0, 1], [0, 1, 0]]) == pytest.approx(90)


def test_only_a_linear_gaussian_model_is_probabilistic_pca():
    model = npvae.VAE(5, 2, (3,), likelihood="gaussian", decoder_hidden=(), sigma=0.3)
    found = ppca.of_model(model)
    np.testing.assert_array_equal(found.W, model.parameters["likelihood.W"])
    np.testing.assert_array_equal(found.mean, model.parameters["likelihood.b"])
    assert found.sigma == 0.3
    assert found.W.dtype == np.float64
    for other in (npvae.VAE(5, 2, (3,), likelihood="gaussian"), npvae.VAE(5, 2, ())):
        with pytest.raises(ValueError, match="only a linear decoder with the gaussian likelihood"):
            ppca.of_model(other)


def test_a_linear_vae_trained_by_fit_reaches_the_maximum_of_the_likelihood():
    """Within 1e-3 nats per datum and 1 degree, and its ELBO reaches log p(x): Lucas et al. 2019."""
    x = data()
    exact = ppca.maximum_likelihood(x, 3)
    best = ppca.log_likelihood(exact, x).mean()
    model = npvae.VAE(10, 3, (), likelihood="gaussian", sigma=exact.sigma, dtype="float64", seed=1)
    model.set_output_bias(x)
    npvae.fit(model, x, epochs=6000, batch_size=500, optimizer=npvae.Adam(Cosine(0.05, 6000)), n_samples=2, progress=False)
    trained = ppca.of_model(model)
    assert 0 <= best - ppca.log_likelihood(trained, x).mean() < 1e-3
    assert ppca.subspace_angle(trained.W, exact.W) < 1
    bound = npvae.evaluate.elbo(model, x, 0, 500)
    assert abs(bound.elbo - best) < 0.01 + 4 * bound.standard_error
