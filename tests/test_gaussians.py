"""A linear model with Gaussian noise, where log p(x) and the true posterior are known: what a full posterior reaches, and by
how much a diagonal one stays below."""

import math

import numpy as np
import pytest

from npvae import ppca
from npvae.ops import full_posterior as full
from npvae.ops import likelihood


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(z W + b, σ² I), and one x. As derived in examples/learn/08_elbo_and_its_gap.py, p(z|x) is
    N(mean, P⁻¹) with the precision P = I + W Wᵀ/σ² and mean = (x − b) Wᵀ P⁻¹/σ². W (L, D)."""

    def __init__(self, W, sigma=0.8, seed=0):
        rng = np.random.default_rng(seed)
        self.W, self.sigma, (self.L, D) = W, sigma, W.shape
        self.b, self.x = rng.standard_normal(D), rng.standard_normal((1, D))
        self.precision = np.eye(self.L) + W @ W.T / sigma**2
        self.covariance = np.linalg.inv(self.precision)
        self.mean = (self.x - self.b) @ W.T @ self.covariance / sigma**2
        self.log_p = ppca.log_likelihood(ppca.PPCA(W, self.b, sigma), self.x)[0]

    def elbo_and_gradient(self, mu, factor):
        """The ELBO of q = N(mu, F Fᵀ), exactly, and dmu, dfactor of −ELBO. E_q[nll] is the nll at the mean plus ½ trace(W Wᵀ F
        Fᵀ)/σ²."""
        A = self.W @ self.W.T / self.sigma**2
        nll, nll_cache = likelihood.gaussian_nll_forward(mu @ self.W + self.b, self.x, self.sigma**2)
        kl, kl_cache = full.full_kl_forward(mu, factor)
        spread = 0.5 * np.trace(A @ factor[0] @ factor[0].T)
        dmean = likelihood.gaussian_nll_backward(np.ones(1), nll_cache)
        dmu_kl, dfactor_kl = full.full_kl_backward(np.ones_like(kl), kl_cache)
        dmu, dfactor = dmean @ self.W.T + dmu_kl, np.tril(A @ factor[0])[None] + dfactor_kl
        return -(nll[0] + spread + kl.sum()), dmu, dfactor


CORRELATED = np.array([[2.0, 2.0, 1.0], [2.0, 1.0, 2.0]])  # the posterior of lesson 08: correlation −0.8 for σ = 1
LOADINGS = [CORRELATED, np.random.default_rng(7).standard_normal((4, 6)) + 0.7]


@pytest.mark.parametrize("W", LOADINGS)
def test_the_exact_posterior_reaches_log_p_and_its_gradient_is_0(W):
    model = LinearGaussian(W)
    elbo, dmu, dfactor = model.elbo_and_gradient(model.mean, np.linalg.cholesky(model.covariance)[None])
    assert elbo == pytest.approx(model.log_p, abs=1e-10)
    assert np.abs(dmu).max() < 1e-12
    assert np.abs(dfactor).max() < 1e-12


@pytest.mark.parametrize("W", LOADINGS)
def test_the_best_diagonal_posterior_stays_short_by_the_correlations_of_the_precision(W):
    """In the gap KL(q ‖ p(z|x)) the terms with σ_l² are ½ P_ll σ_l² − ½ log σ_l². They are smallest at σ_l² = 1/P_ll. There the
    gap is ½ log(Π_l P_ll/det P) = −½ log det R, R the precision scaled to a unit diagonal, R_lk = P_lk/√(P_ll P_kk)."""
    model = LinearGaussian(W)
    scale = np.sqrt(np.diag(model.precision))
    factor = np.diag(1 / scale)[None]
    elbo, dmu, dfactor = model.elbo_and_gradient(model.mean, factor)
    gap = -0.5 * np.linalg.slogdet(model.precision / np.outer(scale, scale))[1]
    assert gap > 0.3
    assert model.log_p - elbo == pytest.approx(gap, abs=1e-10)
    assert np.abs(dmu).max() < 1e-12
    assert np.abs(np.diag(dfactor[0])).max() < 1e-12
    assert np.abs(dfactor[0][np.tril_indices(model.L, -1)]).min() > 1e-2  # it would turn towards the correlations if it could
    for other in (0.9, 1.1):
        assert model.elbo_and_gradient(model.mean, other * factor)[0] < elbo


def test_the_gap_of_lesson_08_is_log_5_thirds():
    model = LinearGaussian(CORRELATED, sigma=1.0)
    elbo, _, _ = model.elbo_and_gradient(model.mean, np.diag(np.diag(model.precision) ** -0.5)[None])
    assert model.log_p - elbo == pytest.approx(math.log(5 / 3), abs=1e-10)


def test_gradient_descent_on_the_encoder_s_output_finds_the_posterior():
    """The columns that an encoder would give, trained by the backward passes alone."""
    model = LinearGaussian(CORRELATED)
    posterior = np.zeros((1, 5))
    for _ in range(1000):
        (mu, factor), cache = full.full_posterior_forward(posterior)
        elbo, dmu, dfactor = model.elbo_and_gradient(mu, factor)
        posterior = posterior - 0.06 * full.full_posterior_backward(dmu, dfactor, cache)
    assert elbo == pytest.approx(model.log_p, abs=1e-10)
    np.testing.assert_allclose(factor[0] @ factor[0].T, model.covariance, atol=1e-8)
