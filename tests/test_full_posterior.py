"""The full-covariance posterior: against scalar twins, numerical derivatives and autograd, and as a distribution."""

import math

import naive
import numpy as np
import pytest

import npvae
from npvae import gradcheck
from npvae.ops import full_posterior as full
from npvae.ops import latent

SHAPES = [(1, 1), (1, 3), (5, 2), (1, 5, 3), (4, 5, 1), (3, 2, 6)]  # of eps: (B, L) or (S, B, L)

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)
several = pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])


def case(shape, dtype="float64", layout="C"):
    """The encoder's output (B, L (L + 3)/2), two of its log-variances out of bounds; eps, dz of `shape`; dkl (B, L)."""
    rng = np.random.default_rng(1)
    B, L = shape[-2:]
    sizes = (B, full.full_posterior_width(L)), shape, shape, (B, L)
    posterior, eps, dz, dkl = (naive.draw(rng, s, dtype, layout) for s in sizes)
    posterior[0, L], posterior[-1, 2 * L - 1] = 21, -31
    return posterior, eps, dz, dkl


def mild(shape):
    """As `case`, but the numbers are of one size, so that none hides the gradient of another; some log-variances clipped."""
    posterior, eps, dz, dkl = case(shape)
    return np.clip(posterior, -31, 3), eps, dz, dkl


def parameters(posterior):
    """mu, logvar (clipped) and below of the encoder's output, as lists."""
    L = full.n_latent_of(posterior.shape[1])
    return posterior[:, :L].tolist(), naive.clip_forward(posterior[:, L : 2 * L].tolist()), posterior[:, 2 * L :].tolist()


def standard(B, L):
    """Mean and factor of the prior N(0, I), as lists."""
    return np.zeros((B, L)).tolist(), np.tile(np.eye(L), (B, 1, 1)).tolist()


def gaussian(L, seed=2):
    """mu (1, L) and factor (1, L, L) of a correlated Gaussian."""
    posterior = np.random.default_rng(seed).standard_normal((1, full.full_posterior_width(L)))
    return full.full_posterior_forward(posterior)[0]


# ---- against the scalar twins ----


@dtypes
@layouts
@shapes
def test_latent_is_split_clip_factor_sample_and_kl(shape, dtype, layout):
    posterior, eps, _, _ = case(shape, dtype, layout)
    (z, kl), _ = full.full_latent_forward(posterior, eps)
    mu, logvar, below = parameters(posterior)
    factor = naive.cholesky_factor(logvar, below)
    expected = naive.full_sample_forward(mu, factor, eps.reshape(-1, *shape[-2:]).tolist())
    naive.assert_close(z, np.reshape(expected, shape), dtype)
    naive.assert_close(kl, naive.full_pair_kl_forward(mu, factor, *standard(*shape[-2:])), dtype)
    (mu_array, factor_array), _ = full.full_posterior_forward(posterior)
    naive.assert_close(mu_array, mu, dtype)
    naive.assert_close(factor_array, factor, dtype)


def test_the_posterior_is_mu_then_logvar_clipped_then_the_factor_row_by_row():
    posterior = np.array([[1.0, 2, 3, 0, 40, -40, 0.1, 0.2, 0.3]])
    (mu, factor), cache = full.full_posterior_forward(posterior)
    assert mu.tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(factor, [[[1, 0, 0], [0.1, np.exp(10), 0], [0.2, 0.3, np.exp(-15)]]], rtol=1e-15)
    dfactor = np.arange(11.0, 20).reshape(1, 3, 3)
    dposterior = full.full_posterior_backward(np.array([[4.0, 5, 6]]), dfactor, cache)
    assert dposterior.tolist() == [[4, 5, 6, 11 / 2, 0, 0, 14, 17, 18]]
    assert latent.clipped_share(posterior[:, :6]) == 2 / 3  # the first 2 L columns are those of the diagonal posterior


@pytest.mark.parametrize(("n_latent", "width"), [(1, 2), (2, 5), (3, 9), (50, 1325)])
def test_the_width_of_the_encoder_s_output(n_latent, width):
    assert full.full_posterior_width(n_latent) == width
    assert full.n_latent_of(width) == n_latent


@dtypes
@several
def test_without_entries_below_the_diagonal_it_is_the_diagonal_posterior(shape, dtype):
    posterior, eps, dz, dkl = case(shape, dtype)
    posterior[:, 6:] = 0
    posterior[:, 3:6] = np.clip(posterior[:, 3:6], -31, 3)
    (z, kl), cache = full.full_latent_forward(posterior, eps)
    (z_diagonal, kl_diagonal), cache_diagonal = latent.latent_forward(posterior[:, :6], eps)
    naive.assert_close(z, z_diagonal, dtype)
    naive.assert_close(kl, kl_diagonal, dtype)
    dposterior = full.full_latent_backward(dz, dkl, cache)
    naive.assert_close(dposterior[:, :6], latent.latent_backward(dz, dkl, cache_diagonal), dtype)
    if len(shape) == 3:
        (z, kl), cache = full.full_latent_sampled_forward(posterior, eps)
        (z_diagonal, kl_diagonal), cache_diagonal = latent.latent_sampled_forward(posterior[:, :6], eps)
        naive.assert_close(z, z_diagonal, dtype)
        naive.assert_close(kl, kl_diagonal, dtype)
        dposterior = full.full_latent_sampled_backward(dz, dz, cache)
        naive.assert_close(dposterior[:, :6], latent.latent_sampled_backward(dz, dz, cache_diagonal), dtype)


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_the_kl_add_up_to_the_formula_of_the_lectures(seed):
    mu, factor = gaussian(4, seed)
    covariance = factor[0] @ factor[0].T
    expected = 0.5 * (np.trace(covariance) + (mu**2).sum() - 4 - np.linalg.slogdet(covariance)[1])
    assert full.full_kl_forward(mu, factor)[0].sum() == pytest.approx(expected, rel=1e-13)


def test_a_part_of_the_kl_is_that_of_its_own_distribution_and_what_the_dimensions_before_tell_of_it():
    """KL of the marginal q(z_l), plus the mutual information of z_l and z_<l, ½ log(Σ_ll/F_ll²)."""
    mu, factor = gaussian(4)
    logvar = full.marginal_logvar(factor)
    np.testing.assert_allclose(np.exp(logvar[0]), np.diag(factor[0] @ factor[0].T), rtol=1e-14)
    information = 0.5 * (logvar - 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)))
    np.testing.assert_allclose(full.full_kl_forward(mu, factor)[0], latent.gaussian_kl_forward(mu, logvar)[0] + information)
    assert information[0, 0] == pytest.approx(0, abs=1e-15)
    assert (information[0, 1:] > 0).all()


# ---- regimes ----


def test_no_function_reads_above_the_diagonal_and_the_gradient_there_is_0():
    mu, factor = gaussian(3)
    eps, upper = np.ones((2, 1, 3)), np.triu_indices(3, 1)
    other = factor.copy()
    other[:, *upper] = np.nan
    for forward, backward, arguments, dout in [
        (full.full_sample_forward, full.full_sample_backward, (mu, "factor", eps), np.ones((2, 1, 3))),
        (full.full_kl_forward, full.full_kl_backward, (mu, "factor"), np.ones((1, 3))),
        (full.full_sampled_kl_forward, full.full_sampled_kl_backward, (2 * eps, "factor", eps), np.ones((2, 1, 3))),
    ]:
        results = []
        for F in (factor, other):
            out, cache = forward(*(F if isinstance(a, str) else a for a in arguments))
            results.append([out, *backward(dout, cache)])
        for a, b in zip(*results):
            np.testing.assert_array_equal(a, b)
        assert not results[1][2][:, *upper].any()
    np.testing.assert_array_equal(full.marginal_logvar(other), full.marginal_logvar(factor))


def test_kl_is_zero_at_the_prior_alone():
    posterior = np.zeros((5, 5))
    posterior[[1, 2, 3, 4], [0, 2, 3, 4]] = 0.1, 0.1, -0.1, 0.1
    kl = full.full_latent_forward(posterior, np.zeros((5, 2)))[0][1]
    assert kl[0].tolist() == [0, 0]
    assert (kl[1:].sum(axis=1) > 0).all()
    assert (kl >= 0).all()


@pytest.mark.parametrize("logvar", [1e-4, -1e-4])
def test_kl_in_float32_does_not_cancel_near_the_prior(logvar):
    posterior = np.array([[0, logvar]], "float32")
    truth = naive.gaussian_kl_forward([[0.0]], [[float(posterior[0, 1])]])[0][0]
    (_, kl), cache = full.full_latent_forward(posterior, np.zeros((1, 1), "float32"))
    assert kl.dtype == "float32"
    assert kl.item() == pytest.approx(truth, rel=0.01)
    dposterior = full.full_latent_backward(np.zeros((1, 1), "float32"), np.ones((1, 1), "float32"), cache)
    assert dposterior[0, 1] == pytest.approx(math.expm1(logvar) / 2, rel=0.01)  # of the rounding of F_ll to float32


@dtypes
@pytest.mark.parametrize("logvar", [latent.LOGVAR_MIN, latent.LOGVAR_MAX])
def test_everything_is_finite_at_the_bounds(logvar, dtype):
    posterior, ones = np.array([[0.5, -0.5, 9 * logvar, logvar, 2]], dtype), np.ones((1, 1, 2), dtype)
    (z, kl), cache = full.full_latent_forward(posterior, ones)
    factor = naive.cholesky_factor([[logvar, logvar]], [[2.0]])
    naive.assert_close(z, naive.full_sample_forward([[0.5, -0.5]], factor, ones.tolist()), dtype)
    naive.assert_close(kl, naive.full_pair_kl_forward([[0.5, -0.5]], factor, *standard(1, 2)), dtype)
    dposterior = full.full_latent_backward(ones, ones[0], cache)
    assert dposterior.dtype == dtype
    assert np.isfinite(dposterior).all()
    assert dposterior[0, 2] == 0
    assert dposterior[0, 3] != 0


@pytest.mark.parametrize(("column", "reached"), [(0, [True, False]), (2, [True, False]), (4, [False, True])])
def test_nan_goes_through_to_what_it_reaches(column, reached):
    posterior = np.zeros((1, 5))
    posterior[0, column] = np.nan
    (z, kl), _ = full.full_latent_forward(posterior, np.ones((1, 2)))
    assert np.isnan(z[0]).tolist() == np.isnan(kl[0]).tolist() == reached


# ---- each labelled identity against numerical derivatives ----


def test_FACTOR_logvar_is_the_derivative():
    logvar, below, dfactor = (naive.draw(np.random.default_rng(3), s) for s in ((4, 3), (4, 3), (4, 3, 3)))
    dlogvar, _ = full.factor_backward(dfactor, full.factor_forward(logvar, below)[1])
    naive.assert_is_gradient(dlogvar, lambda v: (dfactor * full.factor_forward(v, below)[0]).sum(), logvar)


def test_FACTOR_below_is_the_derivative():
    logvar, below, dfactor = (naive.draw(np.random.default_rng(3), s) for s in ((4, 3), (4, 3), (4, 3, 3)))
    _, dbelow = full.factor_backward(dfactor, full.factor_forward(logvar, below)[1])
    naive.assert_is_gradient(dbelow, lambda b: (dfactor * full.factor_forward(logvar, b)[0]).sum(), below)


def sampler_case(shape):
    posterior, eps, dz, dkl = mild(shape)
    return *full.full_posterior_forward(posterior)[0], eps, dz, dkl


@several
def test_FULL_Z_mu_is_the_derivative(shape):
    mu, factor, eps, dz, _ = sampler_case(shape)
    dmu, _ = full.full_sample_backward(dz, full.full_sample_forward(mu, factor, eps)[1])
    naive.assert_is_gradient(dmu, lambda mu: (dz * full.full_sample_forward(mu, factor, eps)[0]).sum(), mu)


@several
def test_FULL_Z_factor_is_the_derivative(shape):
    mu, factor, eps, dz, _ = sampler_case(shape)
    _, dfactor = full.full_sample_backward(dz, full.full_sample_forward(mu, factor, eps)[1])
    naive.assert_is_gradient(dfactor, lambda F: (dz * full.full_sample_forward(mu, F, eps)[0]).sum(), factor)


def test_FULL_KL_mu_is_the_derivative():
    mu, factor, _, _, dkl = sampler_case((4, 3))
    dmu, _ = full.full_kl_backward(dkl, full.full_kl_forward(mu, factor)[1])
    naive.assert_is_gradient(dmu, lambda mu: (dkl * full.full_kl_forward(mu, factor)[0]).sum(), mu)


def test_FULL_KL_factor_is_the_derivative():
    _, _, _, dkl = mild((4, 3))
    mu, factor = full.full_posterior_forward(naive.draw(np.random.default_rng(4), (4, 9)))[0]
    _, dfactor = full.full_kl_backward(dkl, full.full_kl_forward(mu, factor)[1])
    naive.assert_is_gradient(dfactor, lambda F: (dkl * full.full_kl_forward(mu, F)[0]).sum(), factor)


def test_FULL_SAMPLED_z_is_the_derivative():
    _, factor, eps, dkl, _ = sampler_case((5, 4, 3))
    z = 1.3 * eps + 0.2
    dz, _ = full.full_sampled_kl_backward(dkl, full.full_sampled_kl_forward(z, factor, eps)[1])
    naive.assert_is_gradient(dz, lambda z: (dkl * full.full_sampled_kl_forward(z, factor, eps)[0]).sum(), z)


def test_FULL_SAMPLED_factor_is_the_derivative():
    _, eps, dkl, _ = mild((5, 4, 3))
    _, factor = full.full_posterior_forward(naive.draw(np.random.default_rng(4), (4, 9)))[0]
    _, dfactor = full.full_sampled_kl_backward(dkl, full.full_sampled_kl_forward(eps, factor, eps)[1])
    naive.assert_is_gradient(dfactor, lambda F: (dkl * full.full_sampled_kl_forward(eps, F, eps)[0]).sum(), factor)


@several
def test_latent_gradient_by_numerical_derivatives(shape):
    posterior, eps, dz, dkl = mild(shape)

    def loss(posterior):
        (z, kl), _ = full.full_latent_forward(posterior, eps)
        return (dz * z).sum() + (dkl * kl).sum()

    _, cache = full.full_latent_forward(posterior, eps)
    naive.assert_is_gradient(full.full_latent_backward(dz, dkl, cache), loss, posterior)


@pytest.mark.parametrize("shape", [(1, 4, 3), (5, 4, 3)])
def test_sampled_latent_is_the_latent_with_the_divergence_of_each_sample(shape):
    posterior, eps, dz, _ = mild(shape)
    (z, kl), cache = full.full_latent_sampled_forward(posterior, eps)
    np.testing.assert_array_equal(z, full.full_latent_forward(posterior, eps)[0][0])
    assert kl.shape == shape
    dkl = naive.draw(np.random.default_rng(5), shape)

    def loss(posterior):
        (z, kl), _ = full.full_latent_sampled_forward(posterior, eps)
        return (dz * z).sum() + (dkl * kl).sum()

    naive.assert_is_gradient(full.full_latent_sampled_backward(dz, dkl, cache), loss, posterior)


def test_check_pair_passes_each_pair_and_finds_one_gradient_left_out():
    posterior, eps, _, _ = mild((2, 4, 3))
    pair = full.full_latent_forward, full.full_latent_backward
    gradcheck.check_pair(*pair, posterior, eps, wrt=("posterior",), strict=True)
    sampled = full.full_latent_sampled_forward, full.full_latent_sampled_backward
    gradcheck.check_pair(*sampled, posterior, eps, wrt=("posterior",), strict=True)

    def without_the_kl(dz, dkl, cache):
        return full.full_latent_backward(dz, 0 * dkl, cache)

    report = gradcheck.check_pair(pair[0], without_the_kl, posterior, eps, wrt=("posterior",), assert_passed=False)
    assert report.verdict == "wrong"


@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_latent_is_pure_and_linear(shape):
    posterior, eps, dz, dkl = case(shape)
    naive.assert_pure_and_linear(full.full_latent_forward, (posterior, eps), full.full_latent_backward, (dz, dkl))
    if len(shape) == 3:
        forward, backward = full.full_latent_sampled_forward, full.full_latent_sampled_backward
        naive.assert_pure_and_linear(forward, (posterior, eps), backward, (dz, eps))


@pytest.mark.parametrize("sampled", [False, True])
def test_the_gradient_is_that_of_autograd(sampled):
    torch = pytest.importorskip("torch")
    posterior, eps, dz = (naive.draw(np.random.default_rng(6), s) for s in ((5, 9), (4, 5, 3), (4, 5, 3)))
    weight = np.arange(1.0, 6) if not sampled else np.arange(1.0, 21).reshape(4, 5)  # of the divergence of each row, or sample
    forward = full.full_latent_sampled_forward if sampled else full.full_latent_forward
    backward = full.full_latent_sampled_backward if sampled else full.full_latent_backward
    (z, kl), cache = forward(posterior, eps)
    grad = backward(dz, np.repeat(weight[..., None], 3, axis=-1), cache)

    p = torch.tensor(posterior, requires_grad=True)
    factor = torch.diag_embed(torch.exp(p[:, 3:6].clamp(-30, 20) / 2))
    rows, columns = np.tril_indices(3, -1)
    factor = factor.index_put((torch.arange(5)[:, None], torch.tensor(rows), torch.tensor(columns)), p[:, 6:])
    q = torch.distributions.MultivariateNormal(p[:, :3], scale_tril=factor)
    prior = torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    z_torch = p[:, :3] + (factor @ torch.tensor(eps)[..., None])[..., 0]
    divergence = q.log_prob(z_torch) - prior.log_prob(z_torch) if sampled else torch.distributions.kl_divergence(q, prior)
    np.testing.assert_allclose(z, z_torch.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(kl.sum(axis=-1), divergence.detach().numpy(), rtol=1e-10)
    ((torch.tensor(dz) * z_torch).sum() + (torch.tensor(weight) * divergence).sum()).backward()
    expected = p.grad.numpy()
    assert (np.abs(grad - expected).max(axis=0) <= 1e-10 * np.abs(expected).max(axis=0)).all()


# ---- as probabilities ----


def test_samples_have_the_posterior_s_mean_and_covariance():
    n, (mu, factor) = 200_000, gaussian(3)
    z, _ = full.full_sample_forward(mu, factor, np.random.default_rng(3).standard_normal((n, 1, 3)))
    covariance = factor[0] @ factor[0].T
    variances = np.diag(covariance)
    assert (np.abs(z.mean(axis=0) - mu) < 4 * np.sqrt(variances / n)).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)  # of a sample covariance of Gaussians
    assert (np.abs(np.cov(z[:, 0].T) - covariance) < 4 * error).all()


def log_normal(z, mu, covariance):
    """log N(z; mu, Σ) of the rows of z, by the inverse and the determinant."""
    residual = z - mu
    distance = np.einsum("ni,ij,nj->n", residual, np.linalg.inv(covariance), residual)
    return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])


@pytest.mark.parametrize("seed", range(3))
def test_the_sampled_divergence_is_the_log_ratio_of_the_densities_and_its_mean_the_kl(seed):
    n, (mu, factor) = 100_000, gaussian(3, seed)
    eps = np.random.default_rng(4).standard_normal((n, 1, 3))
    z, _ = full.full_sample_forward(mu, factor, eps)
    kl, _ = full.full_sampled_kl_forward(z, factor, eps)  # (n, 1, 3)
    covariance = factor[0] @ factor[0].T
    ratio = log_normal(z[:, 0], mu, covariance) - log_normal(z[:, 0], np.zeros(3), np.eye(3))
    np.testing.assert_allclose(kl[:, 0].sum(axis=1), ratio, atol=1e-9)
    exact, _ = full.full_kl_forward(mu, factor)
    difference = np.abs(kl.mean(axis=0) - exact)
    assert (difference < 4 * kl.std(axis=0) / math.sqrt(n)).all()  # of each part
    total = kl[:, 0].sum(axis=1)
    assert abs(total.mean() - exact.sum()) < 4 * total.std() / math.sqrt(n)


# ---- the compiled twins ----


@dtypes
@shapes
def test_the_compiled_latent_equals_the_op(shape, dtype):
    import npvae.kernels.full_posterior as compiled

    posterior, eps, dz, dkl = case(shape, dtype)
    (z, kl), cache = compiled.full_latent_forward(posterior, eps)
    (z_op, kl_op), cache_op = full.full_latent_forward(posterior, eps)
    naive.assert_close(z, z_op, dtype)
    naive.assert_close(kl, kl_op, dtype)
    dposterior = compiled.full_latent_backward(dz, dkl, cache)
    naive.assert_close(dposterior, full.full_latent_backward(dz, dkl, cache_op), dtype)


@dtypes
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (4, 5, 2), (3, 2, 6)])
def test_the_compiled_sampled_latent_equals_the_op(shape, dtype):
    import npvae.kernels.full_posterior as compiled

    posterior, eps, dz, _ = case(shape, dtype)
    dkl = naive.draw(np.random.default_rng(5), shape, dtype)
    (z, kl), cache = compiled.full_latent_sampled_forward(posterior, eps)
    (z_op, kl_op), cache_op = full.full_latent_sampled_forward(posterior, eps)
    naive.assert_close(z, z_op, dtype)
    naive.assert_close(kl, kl_op, dtype)
    dposterior = compiled.full_latent_sampled_backward(dz, dkl, cache)
    naive.assert_close(dposterior, full.full_latent_sampled_backward(dz, dkl, cache_op), dtype)


def test_the_compiled_twins_clip_beyond_the_bounds_and_not_on_them():
    import npvae.kernels.full_posterior as compiled

    posterior, ones = np.array([[1.0, 2, 3, 21, 20, -31, 1, 1, 1], [1, 2, 3, -30, 19, -29, 1, 1, 1]]), np.ones((1, 2, 3))
    (_, kl), cache = compiled.full_latent_forward(posterior, ones)
    sampled_cache = compiled.full_latent_sampled_forward(posterior, ones)[1]
    for grad in (compiled.full_latent_backward(ones, np.ones_like(kl), cache),
                 compiled.full_latent_sampled_backward(ones, ones, sampled_cache)):  # fmt: skip
        assert (grad[:, 3:6] != 0).tolist() == [[False, True, False], [True, True, True]]


def test_the_compiled_gradient_in_one_call_counts_the_log_variances_that_are_clipped():
    model = npvae.VAE(4, 3, (5,), "tanh", posterior="full", dtype="float64", backend="numba")  # which others compile too
    model.parameters["posterior.W"][:] = 0
    x, eps = np.ones((2, 4)), np.zeros((3, 2, 3))
    for column, clipped in [(2, 0), (3, 1 / 3), (5, 1 / 3), (6, 0), (8, 0)]:  # mu, logvar, logvar, below the diagonal
        model.parameters["posterior.b"][:] = 21 * (np.arange(9) == column)
        assert model.gradient(x, eps)[0].clipped == model.forward(x, eps)[0].clipped == clipped


def test_the_compiled_twins_are_right_by_the_complex_step_pure_and_let_nan_through():
    import npvae.kernels.full_posterior as compiled

    posterior, eps, dz, dkl = mild((2, 4, 3))
    latent_pair = compiled.full_latent_forward, compiled.full_latent_backward
    sampled_pair = compiled.full_latent_sampled_forward, compiled.full_latent_sampled_backward
    for forward, backward in (latent_pair, sampled_pair):
        gradcheck.check_pair(forward, backward, posterior, eps, wrt=("posterior",), strict=True)
    naive.assert_pure_and_linear(latent_pair[0], (posterior.copy(), eps.copy()), latent_pair[1], (dz, dkl))
    naive.assert_pure_and_linear(sampled_pair[0], (posterior.copy(), eps.copy()), sampled_pair[1], (dz, dz))
    posterior[:, 8] = np.nan
    for forward in (latent_pair[0], sampled_pair[0]):
        assert np.isnan(forward(posterior, eps)[0][0]).tolist() == [[[False, False, True]] * 4] * 2
