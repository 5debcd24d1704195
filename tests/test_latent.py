"""The latent variable: against scalar twins and numerical derivatives, and as the probability distribution that it is."""

import math

import naive
import numpy as np
import pytest

from npvae import gradcheck
from npvae.ops import latent

SHAPES = [(1, 1), (1, 3), (5, 3), (1, 5, 3), (4, 5, 1), (3, 1, 7)]  # of eps: (B, L) or (S, B, L)
POSTERIORS = [(0.0, 0.0), (1.5, -2.0), (-0.3, 1.0), (3.0, 0.5)]  # mu, logvar

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)
posteriors = pytest.mark.parametrize(("mu", "logvar"), POSTERIORS)


def case(shape, dtype="float64", layout="C"):
    """mu, logvar (B, L), eps and dz of `shape`, dkl (B, L)."""
    rng = np.random.default_rng(1)
    return [naive.draw(rng, s, dtype, layout) for s in (shape[-2:], shape[-2:], shape, shape, shape[-2:])]


def posterior_case(shape, dtype="float64", layout="C"):
    """The encoder's output (B, 2L), two of its log-variances out of bounds; eps, dz of `shape`; dkl (B, L)."""
    _, _, eps, dz, dkl = case(shape, dtype, layout)
    B, L = shape[-2:]
    posterior = naive.draw(np.random.default_rng(2), (B, 2 * L), dtype, layout)
    posterior[0, L], posterior[-1, -1] = 21, -31
    return posterior, eps, dz, dkl


def lists(*arrays):
    return [array.tolist() for array in arrays]


def with_samples(array):
    """(B, L) as one sample (1, B, L): the twins know only that."""
    return array.reshape(-1, *array.shape[-2:]).tolist()


# ---- against the scalar twins ----


@dtypes
@layouts
@shapes
def test_reparameterize_equals_its_twin(shape, dtype, layout):
    mu, logvar, eps, dz, _ = case(shape, dtype, layout)
    z, cache = latent.reparameterize_forward(mu, logvar, eps)
    expected = naive.reparameterize_forward(*lists(mu, logvar), with_samples(eps))
    naive.assert_close(z, np.reshape(expected, shape), dtype)
    expected_grads = naive.reparameterize_backward(with_samples(dz), logvar.tolist(), with_samples(eps))
    for grad, expected in zip(latent.reparameterize_backward(dz, cache), expected_grads):
        naive.assert_close(grad, expected, dtype)


@dtypes
@layouts
@shapes
def test_gaussian_kl_equals_its_twin(shape, dtype, layout):
    mu, logvar, _, _, dkl = case(shape, dtype, layout)
    kl, cache = latent.gaussian_kl_forward(mu, logvar)
    naive.assert_close(kl, naive.gaussian_kl_forward(*lists(mu, logvar)), dtype)
    for grad, expected in zip(latent.gaussian_kl_backward(dkl, cache), naive.gaussian_kl_backward(*lists(dkl, mu, logvar))):
        naive.assert_close(grad, expected, dtype)


@dtypes
@layouts
@shapes
def test_clip_equals_its_twin(shape, dtype, layout):
    _, raw, _, _, dlogvar = case(shape, dtype, layout)
    raw *= 30  # in place, which keeps the layout
    logvar, cache = latent.clip_logvar_forward(raw)
    naive.assert_close(logvar, naive.clip_forward(raw.tolist()), dtype)
    naive.assert_close(latent.clip_logvar_backward(dlogvar, cache), naive.clip_backward(*lists(dlogvar, raw)), dtype)


@dtypes
@layouts
@shapes
def test_latent_is_split_clip_sample_and_kl(shape, dtype, layout):
    posterior, eps, dz, dkl = posterior_case(shape, dtype, layout)
    (z, kl), cache = latent.latent_forward(posterior, eps)
    mu, raw = (half.tolist() for half in np.split(posterior, 2, axis=1))
    logvar = naive.clip_forward(raw)
    naive.assert_close(z, np.reshape(naive.reparameterize_forward(mu, logvar, with_samples(eps)), shape), dtype)
    naive.assert_close(kl, naive.gaussian_kl_forward(mu, logvar), dtype)
    assert latent.clipped_share(posterior) == np.mean(np.array(raw) != np.array(logvar))

    through_z = naive.reparameterize_backward(with_samples(dz), logvar, with_samples(eps))
    through_kl = naive.gaussian_kl_backward(dkl.tolist(), mu, logvar)
    dmu, dlogvar = (np.add(a, b) for a, b in zip(through_z, through_kl))
    dposterior = np.concatenate([dmu, naive.clip_backward(dlogvar.tolist(), raw)], axis=1)
    naive.assert_close(latent.latent_backward(dz, dkl, cache), dposterior, dtype)


# ---- regimes ----


@dtypes
def test_clip_below_at_inside_and_above_its_bounds(dtype):
    low, high = np.array([-30, 20], dtype)
    just_below, just_above = np.nextafter(low, 2 * low), np.nextafter(high, 2 * high)
    raw = np.array([-1e30, just_below, -30, -29, 0, 19, 20, just_above], dtype)
    logvar, cache = latent.clip_logvar_forward(raw)
    assert logvar.tolist() == [-30, -30, -30, -29, 0, 19, 20, 20]
    assert latent.clip_logvar_backward(np.full(8, 3, dtype), cache).tolist() == [0, 0, 3, 3, 3, 3, 3, 0]


def test_clip_lets_nan_through():
    logvar, cache = latent.clip_logvar_forward(np.array([np.nan, np.inf, -np.inf]))
    np.testing.assert_array_equal(logvar, [np.nan, 20, -30])
    assert latent.clip_logvar_backward(np.ones(3), cache).tolist() == [1, 0, 0]


@pytest.mark.parametrize("bad", ["mu", "logvar", "eps"])
def test_latent_lets_nan_through(bad):
    posterior, eps = np.zeros((2, 6)), np.ones((2, 3))
    target = {"mu": posterior[:, 0], "logvar": posterior[:, 3], "eps": eps[:, 0]}[bad]
    target[:] = np.nan
    (z, _), _ = latent.latent_forward(posterior, eps)
    assert np.isnan(z).tolist() == [[True, False, False]] * 2
    assert latent.clipped_share(posterior) == 0


def test_share_of_clipped_log_variances():
    posterior = np.array([[99, -99, 99, -31, 0, 20], [0, 0, 0, -30, 21, 1e9]])  # a mu of 99 is not clipped
    assert latent.clipped_share(posterior) == 3 / 6
    assert latent.clipped_share(posterior + 1e3j) == 3 / 6  # the complex step branches on the real part
    assert latent.clipped_share(np.array([[1e9, 0.0]])) == 0
    assert latent.clipped_share(np.array([[0.0, 20.5], [0.0, -30.5]])) == 1


def test_sample_and_kl_use_the_same_clipped_logvar():
    (z, kl), _ = latent.latent_forward(np.array([[0.0, 1000.0]]), np.array([[1.0]]))
    assert z.item() == pytest.approx(math.exp(10), rel=1e-14)
    assert kl.item() == pytest.approx(0.5 * (math.exp(20) - 21), rel=1e-14)


@dtypes
@pytest.mark.parametrize("logvar", [latent.LOGVAR_MIN, latent.LOGVAR_MAX])
def test_everything_is_finite_at_the_bounds(logvar, dtype):
    mu, logvar, ones = np.zeros((1, 1), dtype), np.full((1, 1), logvar, dtype), np.ones((1, 1), dtype)
    (z, kl), cache = latent.latent_forward(np.concatenate([mu, logvar], axis=1), ones)
    naive.assert_close(z, np.exp(logvar.astype(float) / 2), dtype)
    naive.assert_close(kl, naive.gaussian_kl_forward(*lists(mu, logvar)), dtype)
    assert latent.clipped_share(np.concatenate([mu, logvar], axis=1)) == 0
    assert np.isfinite(latent.latent_backward(ones, ones, cache)).all()


@pytest.mark.parametrize("logvar", [1e-4, -1e-4])
def test_kl_in_float32_does_not_cancel_near_the_prior(logvar):
    one = np.float32(1)
    logvar = np.float32(logvar)
    truth = naive.gaussian_kl_forward([[0.0]], [[float(logvar)]])[0][0]
    kl, cache = latent.gaussian_kl_forward(np.zeros((1, 1), "float32"), np.full((1, 1), logvar))
    assert kl.dtype == "float32"
    assert kl.item() == pytest.approx(truth, rel=0.01)
    cancelled = (np.exp(logvar) - one - logvar) / 2  # what the test guards against
    assert cancelled != pytest.approx(truth, rel=0.5)
    _, dlogvar = latent.gaussian_kl_backward(np.ones((1, 1), "float32"), cache)
    assert dlogvar.item() == pytest.approx(math.expm1(logvar) / 2, rel=2e-6)


def test_kl_is_zero_at_the_prior_alone():
    kl, _ = latent.gaussian_kl_forward(np.array([[0.0, 0.1, 0.0, 0.0]]), np.array([[0.0, 0.0, 0.1, -0.1]]))
    assert kl[0, 0] == 0
    assert (kl[0, 1:] > 0).all()


# ---- each labelled identity against numerical derivatives ----


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_Z_mu_is_the_derivative(shape):
    mu, logvar, eps, dz, _ = case(shape)
    dmu, _ = latent.reparameterize_backward(dz, latent.reparameterize_forward(mu, logvar, eps)[1])
    naive.assert_is_gradient(dmu, lambda mu: (dz * latent.reparameterize_forward(mu, logvar, eps)[0]).sum(), mu)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_Z_logvar_is_the_derivative(shape):
    mu, logvar, eps, dz, _ = case(shape)
    _, dlogvar = latent.reparameterize_backward(dz, latent.reparameterize_forward(mu, logvar, eps)[1])
    naive.assert_is_gradient(dlogvar, lambda v: (dz * latent.reparameterize_forward(mu, v, eps)[0]).sum(), logvar)


def test_KL_mu_is_the_derivative():
    mu, logvar, _, _, dkl = case((4, 3))
    dmu, _ = latent.gaussian_kl_backward(dkl, latent.gaussian_kl_forward(mu, logvar)[1])
    naive.assert_is_gradient(dmu, lambda mu: (dkl * latent.gaussian_kl_forward(mu, logvar)[0]).sum(), mu)


def test_KL_logvar_is_the_derivative():
    mu, logvar, _, _, dkl = case((4, 3))
    _, dlogvar = latent.gaussian_kl_backward(dkl, latent.gaussian_kl_forward(mu, logvar)[1])
    naive.assert_is_gradient(dlogvar, lambda logvar: (dkl * latent.gaussian_kl_forward(mu, logvar)[0]).sum(), logvar)


def test_SAMPLED_z_is_the_derivative():
    _, logvar, eps, dkl, _ = case((5, 4, 3))
    z = 1.3 * eps + 0.2
    dz, _ = latent.sampled_kl_backward(dkl, latent.sampled_kl_forward(z, logvar, eps)[1])
    naive.assert_is_gradient(dz, lambda z: (dkl * latent.sampled_kl_forward(z, logvar, eps)[0]).sum(), z)


def test_SAMPLED_logvar_is_the_derivative():
    _, logvar, eps, dkl, _ = case((5, 4, 3))
    _, dlogvar = latent.sampled_kl_backward(dkl, latent.sampled_kl_forward(eps, logvar, eps)[1])
    naive.assert_is_gradient(dlogvar, lambda v: (dkl * latent.sampled_kl_forward(eps, v, eps)[0]).sum(), logvar)


@posteriors
def test_the_sampled_divergence_is_the_log_ratio_of_the_densities_and_its_mean_the_kl(mu, logvar):
    eps = np.random.default_rng(0).standard_normal((200_000, 1, 1))
    z = mu + math.exp(logvar / 2) * eps
    kl, _ = latent.sampled_kl_forward(z, np.array([[logvar]]), eps)
    log_q = -0.5 * ((z - mu) ** 2 / math.exp(logvar) + logvar)
    np.testing.assert_allclose(kl, log_q + 0.5 * z * z, atol=1e-9)
    exact, _ = latent.gaussian_kl_forward(np.array([[mu]]), np.array([[logvar]]))
    assert kl.mean() == pytest.approx(exact.item(), abs=5 * kl.std() / math.sqrt(kl.size) + 1e-12)


@pytest.mark.parametrize("shape", [(1, 4, 3), (5, 4, 3)])
def test_sampled_latent_is_the_latent_with_the_divergence_of_each_sample(shape):
    posterior, eps, dz, _ = posterior_case(shape)
    (z, kl), _ = latent.latent_sampled_forward(posterior, eps)
    (z_twin, _), _ = latent.latent_forward(posterior, eps)
    np.testing.assert_array_equal(z, z_twin)
    assert kl.shape == shape
    logvar = np.clip(posterior[:, 3:], latent.LOGVAR_MIN, latent.LOGVAR_MAX)
    np.testing.assert_array_equal(kl, latent.sampled_kl_forward(z, logvar, eps)[0])
    posterior, dkl = np.clip(posterior, -31, 3), naive.draw(np.random.default_rng(5), shape)

    def loss(posterior):
        (z, kl), _ = latent.latent_sampled_forward(posterior, eps)
        return (dz * z).sum() + (dkl * kl).sum()

    dposterior = latent.latent_sampled_backward(dz, dkl, latent.latent_sampled_forward(posterior, eps)[1])
    naive.assert_is_gradient(dposterior, loss, posterior)


def test_CLIP_is_the_derivative():
    raw = np.array([[-31.0, -29.9, -1.0], [0.0, 19.9, 20.1]])  # no difference step crosses a bound
    dlogvar = naive.draw(np.random.default_rng(2), raw.shape)
    draw = latent.clip_logvar_backward(dlogvar, latent.clip_logvar_forward(raw)[1])
    naive.assert_is_gradient(draw, lambda raw: (dlogvar * latent.clip_logvar_forward(raw)[0]).sum(), raw)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_latent_gradient_by_numerical_derivatives(shape):
    posterior, eps, dz, dkl = posterior_case(shape)
    posterior = np.clip(posterior, -31, 3)  # e^20 beside 1 would hide the small gradients

    def loss(posterior):
        (z, kl), _ = latent.latent_forward(posterior, eps)
        return (dz * z).sum() + (dkl * kl).sum()

    _, cache = latent.latent_forward(posterior, eps)
    naive.assert_is_gradient(latent.latent_backward(dz, dkl, cache), loss, posterior)


# ---- as probabilities ----


@posteriors
def test_samples_have_the_posterior_mean_and_variance(mu, logvar):
    n = 200_000
    eps = np.random.default_rng(3).standard_normal((n, 1, 1))
    z, _ = latent.reparameterize_forward(np.full((1, 1), mu), np.full((1, 1), logvar), eps)
    variance = math.exp(logvar)
    assert abs(z.mean() - mu) < 5 * math.sqrt(variance / n)
    assert abs(z.var() - variance) < 5 * variance * math.sqrt(2 / n)  # Var[s²] = 2σ⁴/n


def log_normal(z, mu, variance):
    return -0.5 * ((z - mu) ** 2 / variance + math.log(2 * math.pi * variance))


@posteriors
def test_kl_is_the_mean_of_log_q_minus_log_p(mu, logvar):
    z = mu + math.exp(logvar / 2) * np.random.default_rng(4).standard_normal(200_000)
    differences = log_normal(z, mu, math.exp(logvar)) - log_normal(z, 0, 1)
    kl, _ = latent.gaussian_kl_forward(np.full((1, 1), mu), np.full((1, 1), logvar))
    standard_error = differences.std() / math.sqrt(z.size)
    assert abs(differences.mean() - kl.item()) <= 5 * standard_error + 1e-15


@posteriors
def test_kl_is_the_integral_of_q_log_q_over_p(mu, logvar):
    z = np.linspace(-30, 30, 6001)
    log_q = log_normal(z, mu, math.exp(logvar))
    kl, _ = latent.gaussian_kl_forward(np.full((1, 1), mu), np.full((1, 1), logvar))
    assert np.trapezoid(np.exp(log_q) * (log_q - log_normal(z, 0, 1)), z) == pytest.approx(kl.item(), abs=1e-12)


# ---- the contract of a pair ----


@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_reparameterize_is_pure_and_linear(shape):
    mu, logvar, eps, dz, _ = case(shape)
    naive.assert_pure_and_linear(latent.reparameterize_forward, (mu, logvar, eps), latent.reparameterize_backward, (dz,))


def test_gaussian_kl_is_pure_and_linear():
    mu, logvar, _, _, dkl = case((5, 3))
    naive.assert_pure_and_linear(latent.gaussian_kl_forward, (mu, logvar), latent.gaussian_kl_backward, (dkl,))


def test_clip_is_pure_and_linear():
    _, raw, _, _, dlogvar = case((5, 3))
    naive.assert_pure_and_linear(latent.clip_logvar_forward, (30 * raw,), latent.clip_logvar_backward, (dlogvar,))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_latent_is_pure_and_linear(shape):
    posterior, eps, dz, dkl = posterior_case(shape)
    naive.assert_pure_and_linear(latent.latent_forward, (posterior, eps), latent.latent_backward, (dz, dkl))


def test_the_posterior_is_mu_first_and_then_logvar_clipped():
    posterior = np.array([[0.0, 99, 2, 3, 4, 20], [6, 7, -99, -31, 21, -30]])
    (mu, logvar), cache = latent.posterior_forward(posterior)
    assert mu.tolist() == [[0, 99, 2], [6, 7, -99]]
    assert logvar.tolist() == [[3, 4, 20], [-30, 20, -30]]
    dmu, dlogvar = np.arange(1.0, 7).reshape(2, 3), np.arange(11.0, 17).reshape(2, 3)
    assert latent.posterior_backward(dmu, dlogvar, cache).tolist() == [[1, 2, 3, 11, 12, 13], [4, 5, 6, 0, 0, 16]]


def test_posterior_gradient_by_the_complex_step():
    posterior, _, _, _ = posterior_case((4, 3))
    gradcheck.check_pair(latent.posterior_forward, latent.posterior_backward, posterior)
    mu_and_logvar_swapped = lambda dmu, dlogvar, cache: latent.posterior_backward(dlogvar, dmu, cache)  # noqa: E731
    assert not gradcheck.check_pair(latent.posterior_forward, mu_and_logvar_swapped, posterior, assert_passed=False).passed


def test_posterior_is_pure_and_linear():
    posterior, _, _, dkl = posterior_case((5, 3))
    dmu = np.roll(dkl, 1)
    naive.assert_pure_and_linear(latent.posterior_forward, (posterior,), latent.posterior_backward, (dmu, dkl), may_alias=True)
