"""What models with a latent variable share: noise, the posterior, samples of z and their nll."""

import numpy as np
import pytest
import scipy.stats

import npvae
from npvae.models import latent_variable
from npvae.models.cvae import PRIORS, ConditionalVAE
from npvae.ops.full_posterior import full_posterior_forward

L = 3


def vae(posterior="diagonal", dtype="float64", likelihood="bernoulli"):
    model = npvae.VAE(5, L, (4,), "tanh", likelihood, "numpy", dtype, seed=1, posterior=posterior)
    rng = np.random.default_rng(2)
    for name, value in model.parameters.items():
        if name.endswith(".b"):
            value[:] = 0.5 * rng.standard_normal(value.shape)
    return model


def conditional(prior, dtype="float64"):
    model = ConditionalVAE(5, 3, L, (4,), "tanh", "bernoulli", "numpy", dtype, seed=1, prior=prior)
    biases = {"posterior.b": 0.3 * np.arange(6), "prior.b": -0.2 * np.arange(6)}
    model.parameters.update({name: value for name, value in biases.items() if name in model.parameters})
    return model


X = (np.random.default_rng(3).random((4, 5)) < 0.5).astype(float)
CONDITION = np.random.default_rng(4).standard_normal((4, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_of_a_step_is_standard_normal_of_the_model_s_dtype(dtype):
    model = vae(dtype=dtype)
    eps = latent_variable.draw(model, np.random.default_rng(0), np.zeros((4000, 5)), n_samples=2, beta=0.5)
    assert (eps.shape, eps.dtype) == ((2, 4000, L), dtype)
    assert abs(eps.mean()) < 5 / np.sqrt(eps.size)
    assert abs(eps.var() - 1) < 5 * np.sqrt(2 / eps.size)
    again = latent_variable.draw(model, np.random.default_rng(0), np.zeros((4000, 5)), np.zeros((4000, 2)), n_samples=2)
    np.testing.assert_array_equal(again, eps)  # the condition has no part in it
    assert latent_variable.draw(vae(dtype="complex128"), np.random.default_rng(0), X).dtype == np.float64
    assert latent_variable.draw(model, np.random.default_rng(0), X).shape == (1, 4, L)


def test_noise_and_latents_are_checked():
    model = vae(dtype="float32")
    for shape in ((4, L), (2, 4, L)):
        eps = latent_variable.checked_noise(model, np.asfortranarray(np.ones(shape)), 4)
        assert (eps.shape, eps.dtype, eps.flags.c_contiguous) == (shape, np.float32, True)
    assert latent_variable.checked_latent(model, [[1, 2, 3]]).dtype == np.float32
    for wrong, message in [
        (np.ones((3, L)), r"^eps must have one row for each of the 4 rows of x; got shape \(3, 3\)$"),
        (np.ones((4, 3, L)), "^eps must have one row for each of the 4 rows of x"),
        (np.ones((4, 2)), r"^eps must be .* \(n, 3\) or \(n, n, 3\); got shape \(4, 2\)$"),
        (np.ones(L), "^eps must be"),
        (np.full((4, L), np.nan), "^eps must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            latent_variable.checked_noise(model, wrong, 4)
    for wrong, message in [(np.ones((4, 2)), r"^z must be .* \(n, 3\)"), (np.full((1, L), np.inf), "^z must be finite")]:
        with pytest.raises(ValueError, match=message):
            latent_variable.checked_latent(model, wrong)


def test_of_a_full_posterior_logvar_is_that_of_each_dimension_on_its_own():
    model = vae("full")
    mu, logvar = model.encode(X)
    (expected, factor), _ = full_posterior_forward(model.encoder_output(X))
    np.testing.assert_array_equal(mu, expected)
    covariance = factor @ factor.transpose(0, 2, 1)
    np.testing.assert_allclose(np.exp(logvar), np.diagonal(covariance, axis1=1, axis2=2), rtol=1e-12)
    assert np.abs(np.tril(factor, -1)).max() > 0.1
    model.parameters["posterior.W"][:, 2 * L :] = model.parameters["posterior.b"][2 * L :] = 0  # F is diagonal
    twin = vae()
    twin.theta = np.concatenate([value[..., : 2 * L].ravel() if name.startswith("posterior") else value.ravel()
                                 for name, value in model.parameters.items()])  # fmt: skip
    for ours, theirs in zip(model.encode(X), twin.encode(X)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


# ---- infer ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_samples_and_their_weights_are_those_of_the_distributions(posterior, dtype):
    """log q(z|x) − log p(z) by SciPy, of a covariance matrix."""
    model = vae(posterior, dtype)
    eps = np.random.default_rng(5).standard_normal((6, 4, L))
    x = X.astype(dtype)
    z, kl = model.infer(eps, x)
    assert z.dtype == kl.dtype == np.float64
    assert z.shape == kl.shape == (6, 4, L)
    output = model.encoder_output(x).astype(float)
    mu, factors = output[:, :L], np.stack([np.diag(np.exp(row[L : 2 * L] / 2)) for row in output])
    if posterior == "full":
        factors[:, *np.tril_indices(L, -1)] = output[:, 2 * L :]
    np.testing.assert_allclose(z, mu + (factors @ eps[..., None])[..., 0], rtol=1e-12)
    for b in range(4):
        log_q = scipy.stats.multivariate_normal(mu[b], factors[b] @ factors[b].T).logpdf(z[:, b])
        log_p = scipy.stats.norm.logpdf(z[:, b]).sum(axis=1)
        np.testing.assert_allclose(kl[:, b].sum(axis=1), log_q - log_p, atol=1e-12)


@pytest.mark.parametrize("prior", PRIORS)
def test_of_a_conditional_model_they_are_against_the_prior_of_each_row(prior):
    model = conditional(prior)
    eps = np.random.default_rng(5).standard_normal((6, 4, L))
    z, kl = model.infer(eps, X, CONDITION)
    output = model.encoder_output(X, CONDITION)
    of_prior = model.prior_output(CONDITION) if prior == "learned" else np.zeros((4, 2 * L))
    log_q = scipy.stats.norm.logpdf(z, output[:, :L], np.exp(output[:, L:] / 2))
    log_p = scipy.stats.norm.logpdf(z, of_prior[:, :L], np.exp(of_prior[:, L:] / 2))
    np.testing.assert_allclose(kl.sum(axis=-1), (log_q - log_p).sum(axis=-1), atol=1e-12)


@pytest.mark.parametrize("model", [vae(), vae("full"), conditional("standard"), conditional("learned")],
                         ids=["diagonal", "full", "standard prior", "learned prior"])  # fmt: skip
def test_the_closed_form_is_the_mean_over_samples(model):
    batch = (X, CONDITION) if isinstance(model, ConditionalVAE) else (X,)
    n = 40000
    eps = np.random.default_rng(6).standard_normal((n, 4, L))
    _, sampled = model.infer(eps, *batch)
    z, closed = model.infer(eps[:2], *batch, objective="elbo")
    np.testing.assert_array_equal(z, model.infer(eps[:2], *batch)[0])
    assert closed.shape == (4, L)
    assert (np.abs(sampled.mean(axis=0) - closed) < 5 * sampled.std(axis=0) / np.sqrt(n)).all()


# ---- nll ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nll_of_samples_is_that_of_each(dtype):
    model, z = vae(dtype=dtype), np.random.default_rng(7).standard_normal((3, 4, L))
    nll = model.nll(z, X.astype(dtype))
    assert (nll.shape, nll.dtype) == ((3, 4), np.float64)
    for s in range(3):
        p = model.copy(dtype="float64").decode(z[s])
        expected = -(X * np.log(p) + (1 - X) * np.log1p(-p)).sum(axis=1)
        np.testing.assert_allclose(nll[s], expected, rtol=1e-12 if dtype == "float64" else 1e-5)


def test_nll_of_samples_of_a_conditional_model_has_the_condition_of_each_datum():
    model, z = conditional("standard"), np.random.default_rng(7).standard_normal((3, 4, L))
    nll = model.nll(z, X, CONDITION)
    for s in range(3):
        p = model.decode(z[s], CONDITION)
        np.testing.assert_allclose(nll[s], -(X * np.log(p) + (1 - X) * np.log1p(-p)).sum(axis=1), rtol=1e-12)
