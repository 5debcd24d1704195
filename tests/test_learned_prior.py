"""The latent with a learned prior: against scalar twins, numerical derivatives and autograd, and as two distributions."""

import math

import naive
import numpy as np
import pytest

from npvae import gradcheck
from npvae.ops import latent, learned_prior

SHAPES = [(1, 1), (1, 3), (5, 2), (1, 5, 3), (4, 5, 1), (3, 2, 6)]  # of eps: (B, L) or (S, B, L)
WITH_SAMPLES = [shape for shape in SHAPES if len(shape) == 3] + [(1, 1, 1)]
CLOSED = learned_prior.prior_latent_forward, learned_prior.prior_latent_backward
SAMPLED = learned_prior.prior_latent_sampled_forward, learned_prior.prior_latent_sampled_backward

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)
shapes_with_samples = pytest.mark.parametrize("shape", WITH_SAMPLES)
several = pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
seeds = pytest.mark.parametrize("seed", range(3))


def case(shape, dtype="float64", layout="C"):
    """posterior, prior (B, 2L), a log-variance of each out of bounds, on the side where nothing becomes huge; eps, dz, and dkl
    of each sample, of `shape`; dkl (B, L)."""
    rng = np.random.default_rng(1)
    B, L = shape[-2:]
    sizes = (B, 2 * L), (B, 2 * L), shape, shape, shape, (B, L)
    posterior, prior, eps, dz, dkl_sampled, dkl = (naive.draw(rng, s, dtype, layout) for s in sizes)
    posterior[0, L], prior[-1, -1] = -31, 21
    return posterior, prior, eps, dz, dkl_sampled, dkl


def assert_columns_close(actual, expected, dtype):
    """Column by column, so that a large one does not hide the errors of the others."""
    for ours, theirs in zip(actual.T, np.array(expected).T, strict=True):
        naive.assert_close(ours, theirs, dtype)


def compiled():
    """The two compiled pairs."""
    import npvae.kernels.learned_prior as kernels

    closed = kernels.prior_latent_forward, kernels.prior_latent_backward
    return closed, (kernels.prior_latent_sampled_forward, kernels.prior_latent_sampled_backward)


# ---- against the scalar twins ----


@dtypes
@layouts
@shapes
def test_latent_is_split_clip_sample_and_the_kl_of_two_gaussians(shape, dtype, layout):
    posterior, prior, eps, dz, _, dkl = case(shape, dtype, layout)
    (z, kl), cache = learned_prior.prior_latent_forward(posterior, prior, eps)
    mu_q, raw_q, mu_p, raw_p = (half.tolist() for output in (posterior, prior) for half in np.split(output, 2, axis=1))
    logvar_q, logvar_p = naive.clip_forward(raw_q), naive.clip_forward(raw_p)
    noise, upstream = (array.reshape(-1, *shape[-2:]).tolist() for array in (eps, dz))  # the twins know only (S, B, L)
    naive.assert_close(z, np.reshape(naive.reparameterize_forward(mu_q, logvar_q, noise), shape), dtype)
    naive.assert_close(kl, naive.pair_kl_forward(mu_q, logvar_q, mu_p, logvar_p), dtype)

    through_z = naive.reparameterize_backward(upstream, logvar_q, noise)
    *through_kl, dmu_p, dlogvar_p = naive.pair_kl_backward(dkl.tolist(), mu_q, logvar_q, mu_p, logvar_p)
    dmu_q, dlogvar_q = (np.add(a, b) for a, b in zip(through_z, through_kl))
    dposterior, dprior = learned_prior.prior_latent_backward(dz, dkl, cache)
    draw_q, draw_p = naive.clip_backward(dlogvar_q.tolist(), raw_q), naive.clip_backward(dlogvar_p, raw_p)
    assert_columns_close(dposterior, np.concatenate([dmu_q, draw_q], axis=1), dtype)
    assert_columns_close(dprior, np.concatenate([dmu_p, draw_p], axis=1), dtype)


@dtypes
@layouts
@shapes_with_samples
def test_sampled_latent_equals_its_twin(shape, dtype, layout):
    posterior, prior, eps, dz, dkl, _ = case(shape, dtype, layout)
    (z, kl), cache = learned_prior.prior_latent_sampled_forward(posterior, prior, eps)
    lists = [array.tolist() for array in (posterior, prior, eps)]
    for ours, expected in zip((z, kl), naive.prior_latent_sampled_forward(*lists), strict=True):
        naive.assert_close(ours, expected, dtype)
    expected = naive.prior_latent_sampled_backward(dz.tolist(), dkl.tolist(), *lists)
    for ours, theirs in zip(learned_prior.prior_latent_sampled_backward(dz, dkl, cache), expected, strict=True):
        assert_columns_close(ours, theirs, dtype)


@several
def test_a_prior_of_zeros_is_the_standard_normal(shape):
    """Bit for bit: z, kl and the gradient of posterior."""
    posterior, _, eps, dz, dkl_sampled, dkl = case(shape)
    prior = np.zeros_like(posterior)
    pairs = [(CLOSED, (latent.latent_forward, latent.latent_backward), dkl)]
    if len(shape) == 3:
        pairs.append((SAMPLED, (latent.latent_sampled_forward, latent.latent_sampled_backward), dkl_sampled))
    for (forward, backward), (standard_forward, standard_backward), upstream in pairs:
        out, cache = forward(posterior, prior, eps)
        standard_out, standard_cache = standard_forward(posterior, eps)
        for ours, theirs in zip(out, standard_out, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        dposterior, dprior = backward(dz, upstream, cache)
        np.testing.assert_array_equal(dposterior, standard_backward(dz, upstream, standard_cache))
        assert (dprior[:, :3] != 0).all()


# ---- regimes ----


def test_both_are_mu_first_and_then_logvar_clipped_to_the_same_bounds():
    posterior, prior = np.array([[1.0, 2, 3, 40, 20, -1]]), np.array([[4.0, 6, 3.5, 25, 20, -31]])
    (z, kl), cache = learned_prior.prior_latent_forward(posterior, prior, np.array([[1.0, -1, 2]]))
    np.testing.assert_allclose(z, [[1 + np.exp(10), 2 - np.exp(10), 3 + 2 * np.exp(-0.5)]], rtol=1e-15)
    last = 0.5 * (0.25 * np.exp(30) + np.expm1(29) - 29)
    np.testing.assert_allclose(kl, [[4.5 * np.exp(-20), 8 * np.exp(-20), last]], rtol=1e-15)
    dposterior, dprior = learned_prior.prior_latent_backward(np.ones((1, 3)), np.ones((1, 3)), cache)
    assert (dposterior != 0).tolist() == [[True, True, True, False, True, True]]
    assert (dprior != 0).tolist() == [[True, True, True, False, True, False]]


def test_clipped_log_variances_receive_no_gradient_of_a_sample():
    posterior, prior = np.array([[1.0, 2, 3, 21, 20, -31]]), np.array([[4.0, 6, 3.5, 21, 20, -31]])
    ones = np.ones((2, 1, 3))
    _, cache = learned_prior.prior_latent_sampled_forward(posterior, prior, ones)
    for grad in learned_prior.prior_latent_sampled_backward(ones, ones, cache):
        assert (grad != 0).tolist() == [[True, True, True, False, True, False]]


@several
def test_z_does_not_depend_on_the_prior(shape):
    posterior, prior, eps, dz, dkl_sampled, dkl = case(shape)
    for (forward, backward), upstream in [(CLOSED, dkl), (SAMPLED, dkl_sampled)][: len(shape) - 1]:
        (z, _), cache = forward(posterior, prior, eps)
        np.testing.assert_array_equal(z, forward(posterior, prior + 1, eps)[0][0])
        np.testing.assert_array_equal(backward(dz, upstream, cache)[1], backward(0 * dz, upstream, cache)[1])
        assert not backward(dz, 0 * upstream, cache)[1].any()


def test_kl_is_zero_where_the_two_are_equal_and_nowhere_else():
    posterior = case((4, 3))[0]
    (_, kl), cache = learned_prior.prior_latent_forward(posterior, posterior, np.ones((4, 3)))
    assert not kl.any()
    for grad in learned_prior.prior_latent_backward(np.zeros((4, 3)), np.ones((4, 3)), cache):
        assert not grad.any()
    for shift in (0.1, -0.1):
        moved = posterior + shift * np.array([1, 0, 0, 0, 1, 0])
        (_, kl), _ = learned_prior.prior_latent_forward(posterior, moved, np.ones((4, 3)))
        assert (kl > 0).tolist() == [[True, True, False]] * 4


@pytest.mark.parametrize("difference", [1e-4, -1e-4])
def test_kl_in_float32_does_not_cancel_where_the_variances_are_nearly_equal(difference):
    posterior, prior, one = (np.array([row], "float32") for row in ([3, difference], [3, 0], [1]))
    truth = naive.gaussian_kl_forward([[0.0]], [[float(posterior[0, 1])]])[0][0]
    for forward, backward in (CLOSED, compiled()[0]):
        (_, kl), cache = forward(posterior, prior, one)
        assert kl.dtype == "float32"
        assert kl.item() == pytest.approx(truth, rel=0.01)
        _, dprior = backward(0 * one, one, cache)
        assert dprior[0, 1] == pytest.approx(-math.expm1(difference) / 2, rel=2e-6)


@dtypes
@pytest.mark.parametrize("logvar_q", [latent.LOGVAR_MIN, latent.LOGVAR_MAX])
@pytest.mark.parametrize("logvar_p", [latent.LOGVAR_MIN, latent.LOGVAR_MAX])
def test_everything_is_finite_at_the_bounds(logvar_q, logvar_p, dtype):
    posterior, prior, ones = np.array([[0.5, logvar_q]], dtype), np.array([[-2, logvar_p]], dtype), np.ones((1, 1, 1), dtype)
    expected_z, sampled_kl = naive.prior_latent_sampled_forward(posterior.tolist(), prior.tolist(), ones.tolist())
    closed_kl, tolerance = naive.pair_kl_forward([[0.5]], [[logvar_q]], [[-2.0]], [[logvar_p]]), naive.TOLERANCE[dtype]
    for forward, backward in (CLOSED, SAMPLED, *compiled()):
        (z, kl), cache = forward(posterior, prior, ones)
        naive.assert_close(z, expected_z, dtype)
        expected = sampled_kl if kl.ndim == 3 else closed_kl
        np.testing.assert_allclose(kl, expected, rtol=tolerance, atol=tolerance)  # u² − eps² cancels where p is nearly q
        for grad in backward(ones, np.ones_like(kl), cache):
            assert grad.dtype == dtype
            assert np.isfinite(grad).all()


@pytest.mark.parametrize("column", [1, 4])
def test_nan_goes_through_to_what_it_reaches(column):
    eps, nan = np.ones((2, 4, 3)), [[False, True, False]] * 4
    for forward, _ in (CLOSED, SAMPLED, *compiled()):
        posterior, prior = np.zeros((2, 4, 6))
        prior[:, column] = np.nan
        z, kl = forward(posterior, prior, eps)[0]
        assert not np.isnan(z).any()
        assert np.isnan(kl).tolist() == (nan if kl.ndim == 2 else [nan] * 2)
        z, kl = forward(prior, posterior, eps)[0]
        assert np.isnan(z).tolist() == [nan] * 2
        assert np.isnan(kl).tolist() == (nan if kl.ndim == 2 else [nan] * 2)


# ---- the gradients ----


@several
def test_latent_gradient_by_numerical_derivatives(shape):
    posterior, prior, eps, dz, dkl_sampled, dkl = case(shape)
    for (forward, backward), upstream in [(CLOSED, dkl), (SAMPLED, dkl_sampled)][: len(shape) - 1]:

        def loss(posterior, prior, forward=forward, upstream=upstream):
            z, kl = forward(posterior, prior, eps)[0]
            return (dz * z).sum() + (upstream * kl).sum()

        dposterior, dprior = backward(dz, upstream, forward(posterior, prior, eps)[1])
        naive.assert_is_gradient(dposterior, lambda value: loss(value, prior), posterior)
        naive.assert_is_gradient(dprior, lambda value: loss(posterior, value), prior)


def assert_right_by_the_complex_step(forward, backward, posterior, prior, eps):
    report = gradcheck.check_pair(forward, backward, posterior, prior, eps, wrt=("posterior", "prior"), strict=True)
    assert all(row.threshold == 1e-12 for row in report.rows)  # and not by differences, with a wider one


def test_check_pair_passes_each_pair_and_finds_one_gradient_left_out_and_a_sign_changed():
    posterior, prior, eps, _, _, _ = case((2, 4, 3))
    assert_right_by_the_complex_step(*CLOSED, posterior, prior, eps)
    assert_right_by_the_complex_step(*SAMPLED, posterior, prior, eps)
    forward, backward = CLOSED

    def without_the_kl(dz, dkl, cache):
        return backward(dz, 0 * dkl, cache)[0], backward(dz, dkl, cache)[1]

    def sign_changed(dz, dkl, cache):
        dposterior, dprior = backward(dz, dkl, cache)
        return dposterior, -dprior

    for wrong, argument in ((without_the_kl, "posterior"), (sign_changed, "prior")):
        report = gradcheck.check_pair(forward, wrong, posterior, prior, eps, wrt=("posterior", "prior"), assert_passed=False)
        assert [row.name for row in report.rows if row.wrong] == [argument]


@several
def test_latent_is_pure_and_linear(shape):
    posterior, prior, eps, dz, dkl_sampled, dkl = case(shape)
    naive.assert_pure_and_linear(CLOSED[0], (posterior, prior, eps), CLOSED[1], (dz, dkl))
    if len(shape) == 3:
        naive.assert_pure_and_linear(SAMPLED[0], (posterior, prior, eps), SAMPLED[1], (dz, dkl_sampled))


@pytest.mark.parametrize("sampled", [False, True])
def test_the_gradient_is_that_of_autograd(sampled):
    torch = pytest.importorskip("torch")
    posterior, prior, eps, dz, dkl_sampled, dkl = case((4, 5, 3))
    weight = dkl_sampled if sampled else dkl
    forward, backward = SAMPLED if sampled else CLOSED
    (z, kl), cache = forward(posterior, prior, eps)

    tensors = [torch.tensor(output, requires_grad=True) for output in (posterior, prior)]
    q, p = (torch.distributions.Normal(t[:, :3], torch.exp(t[:, 3:].clamp(-30, 20) / 2)) for t in tensors)
    z_torch = q.mean + q.stddev * torch.tensor(eps)
    divergence = q.log_prob(z_torch) - p.log_prob(z_torch) if sampled else torch.distributions.kl_divergence(q, p)
    np.testing.assert_allclose(z, z_torch.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(kl, divergence.detach().numpy(), rtol=1e-10, atol=1e-12)
    ((torch.tensor(dz) * z_torch).sum() + (torch.tensor(weight) * divergence).sum()).backward()
    for grad, tensor in zip(backward(dz, weight, cache), tensors, strict=True):
        expected = tensor.grad.numpy()
        assert (np.abs(grad - expected).max(axis=0) <= 1e-10 * np.abs(expected).max(axis=0)).all()


# ---- as probabilities ----


def log_normal(z, mu, logvar):
    return -0.5 * ((z - mu) ** 2 * np.exp(-logvar) + logvar + math.log(2 * math.pi))


@seeds
def test_kl_is_the_mean_of_log_q_minus_log_p_at_the_samples(seed):
    rng, n = np.random.default_rng(seed), 100_000
    posterior, prior, eps = rng.standard_normal((1, 6)), rng.standard_normal((1, 6)), rng.standard_normal((n, 1, 3))
    (z, kl), _ = learned_prior.prior_latent_forward(posterior, prior, eps)
    ratio = log_normal(z, posterior[:, :3], posterior[:, 3:]) - log_normal(z, prior[:, :3], prior[:, 3:])  # (n, 1, 3)
    assert (np.abs(ratio.mean(axis=0) - kl) < 4 * ratio.std(axis=0) / math.sqrt(n)).all()
    (z_sampled, kl_sampled), _ = learned_prior.prior_latent_sampled_forward(posterior, prior, eps)
    np.testing.assert_array_equal(z_sampled, z)
    np.testing.assert_allclose(kl_sampled, ratio, atol=1e-10)


# ---- the compiled twins ----


@dtypes
@shapes
def test_the_compiled_latent_equals_the_op(shape, dtype):
    posterior, prior, eps, dz, dkl_sampled, dkl = case(shape, dtype)
    pairs = zip((CLOSED, SAMPLED), compiled(), (dkl, dkl_sampled))
    for (forward, backward), (compiled_forward, compiled_backward), upstream in list(pairs)[: len(shape) - 1]:
        (z, kl), cache = compiled_forward(posterior, prior, eps)
        (z_op, kl_op), cache_op = forward(posterior, prior, eps)
        naive.assert_close(z, z_op, dtype)
        naive.assert_close(kl, kl_op, dtype)
        for ours, theirs in zip(compiled_backward(dz, upstream, cache), backward(dz, upstream, cache_op), strict=True):
            assert_columns_close(ours, theirs, dtype)


def test_the_compiled_twins_clip_both_at_their_bounds():
    posterior = np.array([[1.0, 2, 3, 21, 20, -31], [1, 2, 3, -30, 19, -29]])
    prior = np.array([[4.0, 6, 3.5, 21, 20, -31], [1, 2, 3, -29, 20.5, -30]])
    ones = np.ones((2, 2, 3))
    for (forward, backward), (op_forward, op_backward) in zip(compiled(), (CLOSED, SAMPLED)):
        (_, kl), cache = forward(posterior, prior, ones)
        np.testing.assert_allclose(kl, op_forward(posterior, prior, ones)[0][1], rtol=1e-8)  # u² − eps² cancels
        expected = op_backward(ones, np.ones_like(kl), op_forward(posterior, prior, ones)[1])
        for grad, theirs in zip(backward(ones, np.ones_like(kl), cache), expected, strict=True):
            np.testing.assert_allclose(grad, theirs, rtol=1e-8)
            assert (grad[:, 3:] == 0).tolist() == (theirs[:, 3:] == 0).tolist()


def test_the_compiled_twins_are_right_by_the_complex_step_and_pure():
    posterior, prior, eps, dz, dkl_sampled, dkl = case((2, 4, 3))
    for (forward, backward), upstream in zip(compiled(), (dkl, dkl_sampled), strict=True):
        assert_right_by_the_complex_step(forward, backward, posterior, prior, eps)
        assert_right_by_the_complex_step(forward, backward, posterior[:1], prior[:1], eps[:1, :1])
        arguments = tuple(array.copy() for array in (posterior, prior, eps))
        naive.assert_pure_and_linear(forward, arguments, backward, (dz.copy(), upstream.copy()))
