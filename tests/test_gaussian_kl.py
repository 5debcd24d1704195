"""The divergence of one Gaussian from another: against scalar twins, the formula of the lectures, numerical derivatives and
autograd, and as the mean of a log ratio of densities."""

import math

import naive
import numpy as np
import pytest

from npvae import gradcheck
from npvae.ops import full_posterior, gaussian_kl, latent

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 4), (2, 6)])  # (B, L)


def diagonal_case(shape, dtype="float64", layout="C"):
    """mu_q, logvar_q, mu_p, logvar_p and dkl of `shape`."""
    rng = np.random.default_rng(1)
    return [naive.draw(rng, shape, dtype, layout) for _ in range(5)]


def sampled_case():
    """z (5, 4, 3), logvar_q (4, 3), eps of z's shape, mu_p, logvar_p (4, 3), and dkl of z's shape."""
    rng = np.random.default_rng(2)
    return [naive.draw(rng, shape) for shape in ((5, 4, 3), (4, 3), (5, 4, 3), (4, 3), (4, 3), (5, 4, 3))]


def factors(rng, shape, dtype="float64"):
    """Cholesky factors (B, L, L) for `shape` (B, L)."""
    B, L = shape
    return full_posterior.factor_forward(0.5 * naive.draw(rng, (B, L), dtype), naive.draw(rng, (B, L * (L - 1) // 2), dtype))[0]


def full_case(shape, dtype="float64"):
    """mu_q, factor_q, mu_p, factor_p and dkl."""
    rng = np.random.default_rng(3)
    mu_q, mu_p, dkl = (naive.draw(rng, shape, dtype) for _ in range(3))
    return mu_q, factors(rng, shape, dtype), mu_p, factors(rng, shape, dtype), dkl


def lists(*arrays):
    return [array.tolist() for array in arrays]


def gradient_by(forward, arguments, position, dout):
    """The loss Σ dout out of one argument of a forward, the others fixed."""

    def loss(value):
        out, _ = forward(*arguments[:position], value, *arguments[position + 1 :])
        return (dout * out).sum()

    return loss


# ---- against the scalar twins ----


@dtypes
@layouts
@shapes
def test_pair_kl_equals_its_twin(shape, dtype, layout):
    *arguments, dkl = diagonal_case(shape, dtype, layout)
    kl, cache = gaussian_kl.pair_kl_forward(*arguments)
    naive.assert_close(kl, naive.pair_kl_forward(*lists(*arguments)), dtype)
    expected = naive.pair_kl_backward(*lists(dkl, *arguments))
    for grad, twin in zip(gaussian_kl.pair_kl_backward(dkl, cache), expected, strict=True):
        naive.assert_close(grad, twin, dtype)


@dtypes
@shapes
def test_full_pair_kl_equals_its_twin(shape, dtype):
    *arguments, _ = full_case(shape, dtype)
    kl, _ = gaussian_kl.full_pair_kl_forward(*arguments)
    tolerance = {"float64": 1e-12, "float32": 2e-5}[dtype]  # rounding of the solve, with the condition of F_p
    naive.assert_close(kl, naive.full_pair_kl_forward(*lists(*arguments)), dtype, tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_the_full_pair_kl_add_up_to_the_formula_of_the_lectures(seed):
    rng = np.random.default_rng(seed)
    (mu_q, mu_p), F_q, F_p = rng.standard_normal((2, 1, 4)), factors(rng, (1, 4)), factors(rng, (1, 4))
    (cov_q, cov_p), distance = (F[0] @ F[0].T for F in (F_q, F_p)), (mu_q - mu_p)[0]
    inverse = np.linalg.inv(cov_p)
    log_dets = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
    expected = 0.5 * (np.trace(inverse @ cov_q) + distance @ inverse @ distance - 4 + log_dets)
    assert gaussian_kl.full_pair_kl_forward(mu_q, F_q, mu_p, F_p)[0].sum() == pytest.approx(expected, rel=1e-12)


def test_each_special_case_is_the_simpler_function():
    """p = N(0, I); diagonal factors; one dimension."""
    mu_q, F_q, mu_p, F_p, _ = full_case((4, 3))
    zero, one = np.zeros((4, 3)), np.tile(np.eye(3), (4, 1, 1))
    kl, _ = gaussian_kl.full_pair_kl_forward(mu_q, F_q, zero, one)
    np.testing.assert_array_equal(kl, full_posterior.full_kl_forward(mu_q, F_q)[0])
    logvar_q, logvar_p = (2 * np.log(np.diagonal(F, axis1=1, axis2=2)) for F in (F_q, F_p))
    diagonals = (F * np.eye(3) for F in (F_q, F_p))
    kl, _ = gaussian_kl.full_pair_kl_forward(mu_q, next(diagonals), mu_p, next(diagonals))
    np.testing.assert_allclose(kl, gaussian_kl.pair_kl_forward(mu_q, logvar_q, mu_p, logvar_p)[0], rtol=1e-12)
    kl, _ = gaussian_kl.pair_kl_forward(mu_q, logvar_q, zero, zero)
    np.testing.assert_array_equal(kl, latent.gaussian_kl_forward(mu_q, logvar_q)[0])
    eps = np.random.default_rng(5).standard_normal((6, 4, 3))
    z = mu_q + np.exp(logvar_q / 2) * eps
    kl, _ = gaussian_kl.pair_sampled_kl_forward(z, logvar_q, eps, zero, zero)
    np.testing.assert_allclose(kl, latent.sampled_kl_forward(z, logvar_q, eps)[0], rtol=1e-12, atol=1e-14)


# ---- regimes ----


@pytest.mark.parametrize("difference", [1e-4, -1e-4])
def test_pair_kl_in_float32_does_not_cancel_where_the_variances_are_nearly_equal(difference):
    mu, logvar = np.zeros((1, 1), "float32"), np.full((1, 1), difference, "float32")
    truth = naive.gaussian_kl_forward([[0.0]], lists(logvar)[0])[0][0]
    kl, cache = gaussian_kl.pair_kl_forward(mu, logvar, mu, mu)
    assert kl.dtype == "float32"
    assert kl.item() == pytest.approx(truth, rel=0.01)
    _, dlogvar_q, _, dlogvar_p = gaussian_kl.pair_kl_backward(np.ones_like(mu), cache)
    assert dlogvar_q.item() == pytest.approx(math.expm1(difference) / 2, rel=2e-6)
    assert dlogvar_p.item() == pytest.approx(-math.expm1(difference) / 2, rel=2e-6)


def test_kl_is_zero_where_the_two_are_equal_and_nowhere_else():
    mu, F, _, other, _ = full_case((4, 3))
    assert np.abs(gaussian_kl.full_pair_kl_forward(mu, F, mu, F)[0]).max() < 1e-14
    assert (gaussian_kl.full_pair_kl_forward(mu, F, mu, other)[0].sum(axis=1) > 0.01).all()
    logvar = np.arange(12.0).reshape(4, 3)
    assert not gaussian_kl.pair_kl_forward(mu, logvar, mu, logvar)[0].any()
    assert (gaussian_kl.pair_kl_forward(mu, logvar, mu, logvar + 0.1)[0] > 0).all()


def test_the_divergence_is_that_of_any_affine_map_of_both():
    """z -> z A + c, on both: the same divergence."""
    mu_q, F_q, mu_p, F_p, _ = full_case((1, 3))
    A, c = np.random.default_rng(6).standard_normal((3, 3)), np.array([1.0, -2, 3])
    moved = []
    for mu, F in ((mu_q, F_q), (mu_p, F_p)):
        moved += [mu @ A + c, np.linalg.cholesky(A.T @ F[0] @ F[0].T @ A)[None]]
    before, after = (gaussian_kl.full_pair_kl_forward(*q)[0].sum() for q in ((mu_q, F_q, mu_p, F_p), moved))
    assert after == pytest.approx(before, rel=1e-12)


def test_solve_is_the_solution_and_reads_the_lower_triangle_alone():
    rng = np.random.default_rng(7)
    F, b, dy = factors(rng, (4, 5)), rng.standard_normal((4, 5, 2)), rng.standard_normal((4, 5, 2))
    y, cache = gaussian_kl.solve_forward(F, b)
    np.testing.assert_allclose(F @ y, b, rtol=1e-11, atol=1e-11)
    dF, db = gaussian_kl.solve_backward(dy, cache)
    np.testing.assert_allclose(F.transpose(0, 2, 1) @ db, dy, rtol=1e-11, atol=1e-11)
    other = F.copy()
    other[:, *np.triu_indices(5, 1)] = np.nan
    y_other, cache = gaussian_kl.solve_forward(other, b)
    np.testing.assert_array_equal(y_other, y)
    for ours, theirs in zip(gaussian_kl.solve_backward(dy, cache), (dF, db)):
        np.testing.assert_array_equal(ours, theirs)
    assert not dF[:, *np.triu_indices(5, 1)].any()


def test_no_function_reads_above_the_diagonals():
    mu_q, F_q, mu_p, F_p, dkl = full_case((4, 3))
    kl, cache = gaussian_kl.full_pair_kl_forward(mu_q, F_q, mu_p, F_p)
    grads = gaussian_kl.full_pair_kl_backward(dkl, cache)
    for F in (F_q, F_p):
        F[:, *np.triu_indices(3, 1)] = np.nan
    kl_again, cache = gaussian_kl.full_pair_kl_forward(mu_q, F_q, mu_p, F_p)
    np.testing.assert_array_equal(kl_again, kl)
    for ours, theirs in zip(gaussian_kl.full_pair_kl_backward(dkl, cache), grads):
        np.testing.assert_array_equal(ours, theirs)
    assert not grads[1][:, *np.triu_indices(3, 1)].any()


# ---- each labelled identity against numerical derivatives ----


def pair_gradients_are_right(position):
    *arguments, dkl = diagonal_case((4, 3))
    grad = gaussian_kl.pair_kl_backward(dkl, gaussian_kl.pair_kl_forward(*arguments)[1])[position]
    loss = gradient_by(gaussian_kl.pair_kl_forward, arguments, position, dkl)
    naive.assert_is_gradient(grad, loss, arguments[position])


def test_KL_pair_mu_q_is_the_derivative():
    pair_gradients_are_right(0)


def test_KL_pair_logvar_q_is_the_derivative():
    pair_gradients_are_right(1)


def test_KL_pair_mu_p_is_the_derivative():
    pair_gradients_are_right(2)


def test_KL_pair_logvar_p_is_the_derivative():
    pair_gradients_are_right(3)


def sampled_gradients_are_right(name, position):
    *arguments, dkl = sampled_case()
    cache = gaussian_kl.pair_sampled_kl_forward(*arguments)[1]
    grads = dict(zip(("z", "logvar_q", "mu_p", "logvar_p"), gaussian_kl.pair_sampled_kl_backward(dkl, cache)))
    loss = gradient_by(gaussian_kl.pair_sampled_kl_forward, arguments, position, dkl)
    naive.assert_is_gradient(grads[name], loss, arguments[position])


def test_PAIR_SAMPLED_z_is_the_derivative():
    sampled_gradients_are_right("z", 0)


def test_PAIR_SAMPLED_logvar_q_is_the_derivative():
    sampled_gradients_are_right("logvar_q", 1)


def test_PAIR_SAMPLED_mu_p_is_the_derivative():
    sampled_gradients_are_right("mu_p", 3)


def test_PAIR_SAMPLED_logvar_p_is_the_derivative():
    sampled_gradients_are_right("logvar_p", 4)


def solve_gradients_are_right(position):
    rng = np.random.default_rng(8)
    arguments, dy = [factors(rng, (4, 3)), rng.standard_normal((4, 3, 2))], rng.standard_normal((4, 3, 2))
    grad = gaussian_kl.solve_backward(dy, gaussian_kl.solve_forward(*arguments)[1])[position]
    loss = gradient_by(gaussian_kl.solve_forward, arguments, position, dy)
    naive.assert_is_gradient(grad, loss, arguments[position])


def test_SOLVE_factor_is_the_derivative():
    solve_gradients_are_right(0)


def test_SOLVE_b_is_the_derivative():
    solve_gradients_are_right(1)


def full_pair_gradients_are_right(position):
    *arguments, dkl = full_case((4, 3))
    grad = gaussian_kl.full_pair_kl_backward(dkl, gaussian_kl.full_pair_kl_forward(*arguments)[1])[position]
    loss = gradient_by(gaussian_kl.full_pair_kl_forward, arguments, position, dkl)
    naive.assert_is_gradient(grad, loss, arguments[position])


def test_FULL_PAIR_mu_q_is_the_derivative():
    full_pair_gradients_are_right(0)


def test_FULL_PAIR_factor_q_is_the_derivative():
    full_pair_gradients_are_right(1)


def test_FULL_PAIR_mu_p_is_the_derivative():
    full_pair_gradients_are_right(2)


def test_FULL_PAIR_factor_p_is_the_derivative():
    full_pair_gradients_are_right(3)


def test_check_pair_passes_each_pair_and_finds_a_sign_changed():
    *diagonal, _ = diagonal_case((4, 3))
    gradcheck.check_pair(gaussian_kl.pair_kl_forward, gaussian_kl.pair_kl_backward, *diagonal, strict=True)
    *sampled, _ = sampled_case()
    pair = gaussian_kl.pair_sampled_kl_forward, gaussian_kl.pair_sampled_kl_backward
    gradcheck.check_pair(*pair, *sampled, wrt=("z", "logvar_q", "mu_p", "logvar_p"), strict=True)
    *full, _ = full_case((4, 3))
    gradcheck.check_pair(gaussian_kl.full_pair_kl_forward, gaussian_kl.full_pair_kl_backward, *full, strict=True)

    def sign_changed(dkl, cache):
        dmu_q, dfactor_q, dmu_p, dfactor_p = gaussian_kl.full_pair_kl_backward(dkl, cache)
        return dmu_q, dfactor_q, dmu_p, -dfactor_p

    report = gradcheck.check_pair(gaussian_kl.full_pair_kl_forward, sign_changed, *full, assert_passed=False)
    assert report.verdict == "wrong"


def test_pairs_are_pure_and_linear():
    *diagonal, dkl = diagonal_case((5, 3))
    naive.assert_pure_and_linear(gaussian_kl.pair_kl_forward, diagonal, gaussian_kl.pair_kl_backward, (dkl,))
    *sampled, dkl = sampled_case()
    forward, backward = gaussian_kl.pair_sampled_kl_forward, gaussian_kl.pair_sampled_kl_backward
    naive.assert_pure_and_linear(forward, sampled, backward, (dkl,))
    *full, dkl = full_case((5, 3))
    naive.assert_pure_and_linear(gaussian_kl.full_pair_kl_forward, full, gaussian_kl.full_pair_kl_backward, (dkl,))


def test_the_gradients_are_those_of_autograd():
    torch = pytest.importorskip("torch")
    distributions = torch.distributions
    weight = np.arange(1.0, 5)  # of the divergence of each row
    *arguments, _ = full_case((4, 3))
    kl, cache = gaussian_kl.full_pair_kl_forward(*arguments)
    grads = gaussian_kl.full_pair_kl_backward(np.repeat(weight[:, None], 3, axis=1), cache)
    tensors = [torch.tensor(argument, requires_grad=True) for argument in arguments]
    q, p = (distributions.MultivariateNormal(mu, scale_tril=F) for mu, F in (tensors[:2], tensors[2:]))
    assert_autograd_agrees(torch, distributions.kl_divergence(q, p), weight, tensors, kl.sum(axis=1), grads)

    *arguments, _ = diagonal_case((4, 3))
    kl, cache = gaussian_kl.pair_kl_forward(*arguments)
    grads = gaussian_kl.pair_kl_backward(np.repeat(weight[:, None], 3, axis=1), cache)
    tensors = [torch.tensor(argument, requires_grad=True) for argument in arguments]
    q, p = (distributions.Normal(mu, torch.exp(logvar / 2)) for mu, logvar in (tensors[:2], tensors[2:]))
    assert_autograd_agrees(torch, distributions.kl_divergence(q, p).sum(-1), weight, tensors, kl.sum(axis=1), grads)


def assert_autograd_agrees(torch, divergence, weight, tensors, kl, grads):
    np.testing.assert_allclose(kl, divergence.detach().numpy(), rtol=1e-10)
    (torch.tensor(weight) * divergence).sum().backward()
    for grad, tensor in zip(grads, tensors, strict=True):
        expected = np.tril(tensor.grad.numpy()) if grad.ndim == 3 else tensor.grad.numpy()
        assert np.abs(grad - expected).max() <= 1e-10 * np.abs(expected).max()


# ---- as probabilities ----


def log_normal(z, mu, covariance):
    """log N(z; mu, Σ) of the rows of z, by the inverse and the determinant."""
    residual = z - mu
    distance = np.einsum("ni,ij,nj->n", residual, np.linalg.inv(covariance), residual)
    return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])


@pytest.mark.parametrize("seed", range(3))
def test_the_full_pair_kl_is_the_mean_of_log_q_minus_log_p(seed):
    rng, n = np.random.default_rng(seed), 100_000
    (mu_q, mu_p), F_q, F_p = rng.standard_normal((2, 1, 3)), factors(rng, (1, 3)), factors(rng, (1, 3))
    z = mu_q + rng.standard_normal((n, 3)) @ F_q[0].T
    ratio = log_normal(z, mu_q, F_q[0] @ F_q[0].T) - log_normal(z, mu_p, F_p[0] @ F_p[0].T)
    exact = gaussian_kl.full_pair_kl_forward(mu_q, F_q, mu_p, F_p)[0].sum()
    assert abs(ratio.mean() - exact) < 4 * ratio.std() / math.sqrt(n)


def test_each_part_of_the_full_pair_kl_is_a_mean_divergence_of_conditional_distributions():
    """Part 1 of two dimensions: q(z_1|z_0) and p(z_1|z_0) have the slopes F_10/F_00 and the standard deviations F_11."""
    rng, n = np.random.default_rng(9), 100_000
    (mu_q, mu_p), F_q, F_p = rng.standard_normal((2, 1, 2)), factors(rng, (1, 2)), factors(rng, (1, 2))
    z_0 = mu_q[0, 0] + F_q[0, 0, 0] * rng.standard_normal(n)
    mean_q, mean_p = (mu[0, 1] + F[0, 1, 0] / F[0, 0, 0] * (z_0 - mu[0, 0]) for mu, F in ((mu_q, F_q), (mu_p, F_p)))
    logvar_q, logvar_p = (np.full(n, 2 * np.log(F[0, 1, 1])) for F in (F_q, F_p))
    conditional = gaussian_kl.pair_kl_forward(mean_q, logvar_q, mean_p, logvar_p)[0]
    parts = gaussian_kl.full_pair_kl_forward(mu_q, F_q, mu_p, F_p)[0][0]
    assert abs(conditional.mean() - parts[1]) < 4 * conditional.std() / math.sqrt(n)
    variances = [np.full((1, 1), 2 * np.log(F[0, 0, 0])) for F in (F_q, F_p)]
    marginal = gaussian_kl.pair_kl_forward(mu_q[:, :1], variances[0], mu_p[:, :1], variances[1])[0]
    assert parts[0] == pytest.approx(marginal.item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_sampled_divergence_is_the_log_ratio_of_the_densities_and_its_mean_the_pair_kl(seed):
    rng, n = np.random.default_rng(seed), 100_000
    mu_q, logvar_q, mu_p, logvar_p = rng.standard_normal((4, 1, 1))
    eps = rng.standard_normal((n, 1, 1))
    z = mu_q + np.exp(logvar_q / 2) * eps
    kl, _ = gaussian_kl.pair_sampled_kl_forward(z, logvar_q, eps, mu_p, logvar_p)
    ratio = log_normal(z[:, 0], mu_q, np.exp(logvar_q)) - log_normal(z[:, 0], mu_p, np.exp(logvar_p))
    np.testing.assert_allclose(kl.ravel(), ratio, atol=1e-11)
    exact, _ = gaussian_kl.pair_kl_forward(mu_q, logvar_q, mu_p, logvar_p)
    assert abs(kl.mean() - exact.item()) < 4 * kl.std() / math.sqrt(n)
