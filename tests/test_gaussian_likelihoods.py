"""Gaussian likelihoods with learned variances: against scalar twins, numerical derivatives and autograd, and as densities."""

import math

import naive
import numpy as np
import pytest

from npvae import gradcheck
from npvae.ops import gaussian_likelihoods as gaussians
from npvae.ops import likelihood

LOW = -4.0  # the floor of the log-variance in most tests, which some of the standard normal outputs times 3 are below
SHAPES = [(1, 1), (1, 7), (5, 3), (1, 5, 3), (3, 4, 7)]  # of the mean: (B, D) or (S, B, D)

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)
several = pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
logvars = pytest.mark.parametrize("logvar", [-2.0, 0.3, 1.5])


def case(shape, dtype="float64", layout="C"):
    """The decoder's output (..., B, 2D), with log-variances beyond both bounds; x (B, D), the upstream gradient (..., B)."""
    rng = np.random.default_rng(1)
    *rest, D = shape
    output, x, dnll = (naive.draw(rng, s, dtype, layout) for s in ((*rest, 2 * D), shape[-2:], rest))
    output[..., D:] *= 3  # in place, which keeps the layout
    output[..., 0, -1] = -5
    output[..., -1, D] = 20.5
    return output, x, dnll


def mild(shape):
    """As `case`, with numbers of one size; no difference step crosses the floor."""
    output, x, dnll = case(shape)
    D = shape[-1]
    output[..., D:] = np.clip(output[..., D:] / 3, -1.5, 1.5)
    output[..., 0, -1] = LOW - 0.5
    return output, x, dnll


# ---- against the scalar twins ----


@dtypes
@layouts
@shapes
def test_learned_nll_equals_its_twin(shape, dtype, layout):
    output, x, dnll = case(shape, dtype, layout)
    nll, cache = gaussians.gaussian_learned_nll_forward(output, x, LOW)
    expected = naive.per_sample(naive.gaussian_learned_nll_forward, [output], x, LOW)
    naive.assert_close(nll, expected, tolerance=naive.TOLERANCE[dtype])
    doutput = gaussians.gaussian_learned_nll_backward(dnll, cache)
    naive.assert_close(doutput, naive.per_sample(naive.gaussian_learned_nll_backward, [dnll, output], x, LOW), dtype)


@dtypes
@layouts
@shapes
@logvars
def test_global_nll_equals_its_twin(logvar, shape, dtype, layout):
    output, x, dnll = case(shape, dtype, layout)
    mean, logvar = output[..., : shape[-1]], np.array([logvar], dtype)
    nll, cache = gaussians.gaussian_global_nll_forward(mean, logvar, x)
    variance = math.exp(logvar[0])
    expected = naive.per_sample(naive.gaussian_nll_forward, [mean], x, variance)
    naive.assert_close(nll, expected, tolerance=naive.TOLERANCE[dtype])
    dmean, dlogvar = gaussians.gaussian_global_nll_backward(dnll, cache)
    naive.assert_close(dmean, naive.per_sample(naive.gaussian_nll_backward, [dnll, mean], x, variance), dtype)
    squares = ((mean.astype(float) - x) ** 2).sum(axis=-1)
    terms = dnll * (x.shape[1] - squares / variance) / 2
    assert dlogvar.dtype == dtype
    assert dlogvar.shape == (1,)
    assert dlogvar.item() == pytest.approx(math.fsum(terms.ravel()), abs=naive.TOLERANCE[dtype] * np.abs(terms).sum())


@several
def test_all_three_gaussian_likelihoods_agree_where_the_variance_is_the_same(shape):
    output, x, dnll = mild(shape)
    D, logvar = shape[-1], 0.7
    output[..., D:] = logvar
    mean = output[..., :D]
    fixed, fixed_cache = likelihood.gaussian_nll_forward(mean, x, math.exp(logvar))
    learned, cache = gaussians.gaussian_learned_nll_forward(output, x)
    shared, shared_cache = gaussians.gaussian_global_nll_forward(mean, np.array([logvar]), x)
    np.testing.assert_allclose(learned, fixed, rtol=1e-14)
    np.testing.assert_allclose(shared, fixed, rtol=1e-14)
    doutput = gaussians.gaussian_learned_nll_backward(dnll, cache)
    dmean, dlogvar = gaussians.gaussian_global_nll_backward(dnll, shared_cache)
    naive.assert_close(doutput[..., :D], likelihood.gaussian_nll_backward(dnll, fixed_cache))
    naive.assert_close(dmean, doutput[..., :D])
    assert dlogvar.item() == pytest.approx(doutput[..., D:].sum(), rel=1e-12)  # one parameter in the place of many


# ---- regimes ----


@dtypes
def test_log_variances_below_at_inside_and_above_their_bounds(dtype):
    just_below = np.nextafter(np.array(LOW, dtype), np.array(-9, dtype))
    raw = np.array([-1e30, just_below, LOW, -1, 20, 20.001, np.nan], dtype)
    logvar, inside = gaussians.bounded_logvar(raw, LOW)
    np.testing.assert_array_equal(logvar, [LOW, LOW, LOW, -1, 20, 20, np.nan])
    assert inside.tolist() == [False, False, True, True, True, False, True]
    assert logvar.dtype == dtype


def test_the_floor_bounds_the_likelihood_of_a_pixel_that_never_varies():
    """σ is one grey level, 1/255, unless said otherwise: −log p is ½ log 2π/255² at the exact mean."""
    output, x = np.array([[0.25, -1e9]]), np.array([[0.25]])
    nll, cache = gaussians.gaussian_learned_nll_forward(output, x)
    assert nll.item() == pytest.approx(0.5 * math.log(2 * math.pi) - math.log(255), rel=1e-14)
    assert gaussians.gaussian_learned_nll_backward(np.ones(1), cache).tolist() == [[0, 0]]
    nll, cache = gaussians.gaussian_global_nll_forward(output[:, :1], np.array([-1e9]), x)
    assert nll.item() == pytest.approx(0.5 * math.log(2 * math.pi) - math.log(255), rel=1e-14)
    assert gaussians.gaussian_global_nll_backward(np.ones(1), cache)[1].tolist() == [0]
    nll, _ = gaussians.gaussian_learned_nll_forward(output, x, -20.0)
    assert nll.item() == pytest.approx(0.5 * math.log(2 * math.pi) - 10, rel=1e-14)


@pytest.mark.parametrize(("logvar", "slope"), [(-4.1, 0), (-4.0, 1), (20.0, 1), (20.5, 0)])
def test_the_slope_of_the_global_log_variance_is_0_beyond_its_bounds(logvar, slope):
    mean, x = np.array([[1.0, 2]]), np.zeros((1, 2))
    _, cache = gaussians.gaussian_global_nll_forward(mean, np.array([logvar]), x, LOW)
    dmean, dlogvar = gaussians.gaussian_global_nll_backward(np.ones(1), cache)
    bounded = min(max(logvar, LOW), 20)
    np.testing.assert_allclose(dmean, [[math.exp(-bounded), 2 * math.exp(-bounded)]], rtol=1e-14)
    assert dlogvar.item() == pytest.approx(slope * (1 - 2.5 * math.exp(-bounded)), rel=1e-13)


@pytest.mark.parametrize("op", ["learned", "global"])
def test_nll_sums_in_float64(op):
    """A float32 running sum over D would lose most of the small terms beside the large one."""
    D = 100_000
    output, x = np.full((1, D), 0.01, "float32"), np.zeros((1, D), "float32")
    output[0, 0] = 3e3

    def nll_of(mean):
        if op == "global":
            return gaussians.gaussian_global_nll_forward(mean, np.zeros(1, "float32"), x[:, : mean.shape[1]])[0]
        both = np.concatenate([mean, 0 * mean], axis=1)
        return gaussians.gaussian_learned_nll_forward(both, x[:, : mean.shape[1]])[0]

    rest = [nll_of(output[:, i : i + 1]).item() for i in (0, 1)]
    nll = nll_of(output)
    assert nll.dtype == "float64"
    assert nll.item() == pytest.approx(rest[0] + (D - 1) * rest[1], rel=1e-12)


def test_nan_goes_through():
    output = np.zeros((3, 4))
    output[0, 0] = output[1, 2] = np.nan
    nll, _ = gaussians.gaussian_learned_nll_forward(output, np.zeros((3, 2)))
    assert np.isnan(nll).tolist() == [True, True, False]
    assert np.isnan(gaussians.gaussian_global_nll_forward(output[:, :2], np.array([np.nan]), np.zeros((3, 2)))[0]).all()


# ---- the optimum of the global variance ----


@several
def test_the_optimal_variance_is_where_the_gradient_vanishes_and_the_loss_is_smallest(shape):
    output, x, _ = mild(shape)
    mean = output[..., : shape[-1]]
    variance = gaussians.optimal_variance(mean, x)
    assert variance == pytest.approx(((mean - x) ** 2).mean(), rel=1e-14)

    def loss(logvar):
        nll, cache = gaussians.gaussian_global_nll_forward(mean, np.array([logvar]), x)
        return nll.mean(), gaussians.gaussian_global_nll_backward(np.full(nll.shape, 1 / nll.size), cache)[1].item()

    best, slope = loss(math.log(variance))
    assert abs(slope) < 1e-14
    assert best == pytest.approx(0.5 * shape[-1] * (math.log(2 * math.pi * variance) + 1), rel=1e-14)
    for step in (-0.01, 0.01):
        value, slope = loss(math.log(variance) + step)
        assert value > best
        assert slope * step > 0


def test_the_slope_of_a_learned_log_variance_is_0_at_the_squared_residual():
    output, x = np.array([[1.5, -0.25, math.log(1.0), math.log(0.25)]]), np.array([[0.5, 0.25]])
    doutput = gaussians.gaussian_learned_nll_backward(np.ones(1), gaussians.gaussian_learned_nll_forward(output, x)[1])
    np.testing.assert_allclose(doutput, [[1, -2, 0, 0]], atol=1e-15)


# ---- each labelled identity against numerical derivatives ----


def learned_gradient_is_right(shape, columns):
    output, x, dnll = mild(shape)
    doutput = gaussians.gaussian_learned_nll_backward(dnll, gaussians.gaussian_learned_nll_forward(output, x, LOW)[1])

    def loss(part):
        whole = output.astype(part.dtype)
        whole[..., columns] = part
        return (dnll * gaussians.gaussian_learned_nll_forward(whole, x, LOW)[0]).sum()

    naive.assert_is_gradient(doutput[..., columns], loss, output[..., columns])


@several
def test_GAUSSIAN_learned_mean_is_the_derivative(shape):
    learned_gradient_is_right(shape, slice(0, 3))


@several
def test_GAUSSIAN_learned_logvar_is_the_derivative(shape):
    learned_gradient_is_right(shape, slice(3, 6))


@several
@logvars
def test_GAUSSIAN_global_mean_is_the_derivative(shape, logvar):
    output, x, dnll = mild(shape)
    mean, logvar = output[..., :3], np.array([logvar])
    dmean, _ = gaussians.gaussian_global_nll_backward(dnll, gaussians.gaussian_global_nll_forward(mean, logvar, x)[1])
    naive.assert_is_gradient(dmean, lambda m: (dnll * gaussians.gaussian_global_nll_forward(m, logvar, x)[0]).sum(), mean)


@several
@logvars
def test_GAUSSIAN_global_logvar_is_the_derivative(shape, logvar):
    output, x, dnll = mild(shape)
    mean, logvar = output[..., :3], np.array([logvar])
    _, dlogvar = gaussians.gaussian_global_nll_backward(dnll, gaussians.gaussian_global_nll_forward(mean, logvar, x)[1])
    naive.assert_is_gradient(dlogvar, lambda v: (dnll * gaussians.gaussian_global_nll_forward(mean, v, x)[0]).sum(), logvar)


@several
def test_check_pair_passes_and_finds_a_floor_that_the_gradient_ignores(shape):
    output, x, _ = mild(shape)
    forward, backward = gaussians.gaussian_learned_nll_forward, gaussians.gaussian_learned_nll_backward
    gradcheck.check_pair(forward, backward, output, x, LOW, wrt=("output",), strict=True)
    pair = gaussians.gaussian_global_nll_forward, gaussians.gaussian_global_nll_backward
    for logvar in (0.3, LOW - 1):
        gradcheck.check_pair(*pair, output[..., :3], np.array([logvar]), x, LOW, wrt=("mean", "logvar"), strict=True)

    def blind(dnll, cache):
        residual, precision, inside = cache
        return backward(dnll, (residual, precision, np.ones_like(inside)))

    report = gradcheck.check_pair(forward, blind, output, x, LOW, wrt=("output",), assert_passed=False)
    assert report.verdict == "wrong"


@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_nlls_are_pure_and_linear(shape):
    output, x, dnll = case(shape)
    forward, backward = gaussians.gaussian_learned_nll_forward, gaussians.gaussian_learned_nll_backward
    naive.assert_pure_and_linear(forward, (output, x, LOW), backward, (dnll,))
    forward, backward = gaussians.gaussian_global_nll_forward, gaussians.gaussian_global_nll_backward
    naive.assert_pure_and_linear(forward, (output[..., : shape[-1]].copy(), np.array([0.3]), x), backward, (dnll,))


@dtypes
@pytest.mark.parametrize("dnll_dtype", ["float64", "float32"])
def test_gradients_keep_the_dtype_of_what_they_belong_to_whatever_the_upstream(dtype, dnll_dtype):
    output, x, dnll = case((4, 3), dtype)
    dnll = dnll.astype(dnll_dtype)
    doutput = gaussians.gaussian_learned_nll_backward(dnll, gaussians.gaussian_learned_nll_forward(output, x)[1])
    _, cache = gaussians.gaussian_global_nll_forward(output[:, :3], np.zeros(1, dtype), x)
    dmean, dlogvar = gaussians.gaussian_global_nll_backward(dnll, cache)
    assert doutput.dtype == dmean.dtype == dlogvar.dtype == dtype


def test_the_gradients_are_those_of_autograd():
    torch = pytest.importorskip("torch")
    output, x, dnll = mild((2, 4, 3))
    nll, cache = gaussians.gaussian_learned_nll_forward(output, x, LOW)
    o = torch.tensor(output, requires_grad=True)
    sigma = torch.exp(o[..., 3:].clamp(LOW, 20) / 2)
    expected = -torch.distributions.Normal(o[..., :3], sigma).log_prob(torch.tensor(x)).sum(-1)
    (torch.tensor(dnll) * expected).sum().backward()
    np.testing.assert_allclose(nll, expected.detach().numpy(), rtol=1e-12)
    naive.assert_close(gaussians.gaussian_learned_nll_backward(dnll, cache), o.grad.numpy(), tolerance=1e-10)

    nll, cache = gaussians.gaussian_global_nll_forward(output[..., :3], np.array([0.3]), x)
    mean, v = torch.tensor(output[..., :3], requires_grad=True), torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    expected = -torch.distributions.Normal(mean, torch.exp(v / 2)).log_prob(torch.tensor(x)).sum(-1)
    (torch.tensor(dnll) * expected).sum().backward()
    np.testing.assert_allclose(nll, expected.detach().numpy(), rtol=1e-12)
    for grad, tensor in zip(gaussians.gaussian_global_nll_backward(dnll, cache), (mean, v)):
        naive.assert_close(grad, tensor.grad.numpy(), tolerance=1e-10)


# ---- as densities ----


@logvars
def test_both_integrate_to_one_over_a_plane(logvar):
    """Two dimensions, of different variances where they are learned: the constant counts D."""
    grid = np.linspace(-20, 20, 401)
    x = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)  # (401², 2)
    output = np.tile([0.7, -1.1, logvar, logvar / 2], (len(x), 1))
    nll, _ = gaussians.gaussian_learned_nll_forward(output, x)
    assert np.exp(-nll).sum() * 0.1**2 == pytest.approx(1, abs=1e-12)
    nll, _ = gaussians.gaussian_global_nll_forward(output[:, :2], np.array([logvar]), x)
    assert np.exp(-nll).sum() * 0.1**2 == pytest.approx(1, abs=1e-12)


def test_samples_have_the_mean_and_the_variances_and_their_mean_nll_is_the_entropy():
    n, rng = 200_000, np.random.default_rng(3)
    output = np.array([[0.5, -2.0, 0.7, -9.0]])
    (mean, logvar), _ = gaussians.gaussian_parameters(output, LOW)
    assert logvar.tolist() == [[0.7, LOW]]
    x = gaussians.gaussian_sample(mean, logvar, rng.standard_normal((n, 2)))
    variances = np.exp(logvar)[0]
    assert (np.abs(x.mean(axis=0) - mean) < 4 * np.sqrt(variances / n)).all()
    assert (np.abs(x.var(axis=0) - variances) < 4 * variances * math.sqrt(2 / n)).all()
    nll, _ = gaussians.gaussian_learned_nll_forward(np.tile(output, (n, 1)), x, LOW)
    entropy = 0.5 * np.log(2 * np.pi * np.e * variances).sum()
    assert abs(nll.mean() - entropy) < 4 * nll.std() / math.sqrt(n)
    x = gaussians.gaussian_sample(mean, np.array([0.7]), rng.standard_normal((n, 2)))
    assert (np.abs(x.var(axis=0) - math.exp(0.7)) < 4 * math.exp(0.7) * math.sqrt(2 / n)).all()


# ---- the compiled twins ----


@dtypes
@shapes
def test_the_compiled_learned_nll_equals_the_op(shape, dtype):
    import npvae.kernels.gaussian_likelihoods as compiled

    output, x, dnll = case(shape, dtype)
    nll, cache = compiled.gaussian_learned_nll_forward(output, x, LOW)
    expected, expected_cache = gaussians.gaussian_learned_nll_forward(output, x, LOW)
    naive.assert_close(nll, expected, tolerance=naive.TOLERANCE[dtype])
    doutput = compiled.gaussian_learned_nll_backward(dnll, cache)
    naive.assert_close(doutput, gaussians.gaussian_learned_nll_backward(dnll, expected_cache), dtype)
    default = gaussians.gaussian_learned_nll_forward(output, x)[0]
    naive.assert_close(compiled.gaussian_learned_nll_forward(output, x)[0], default, tolerance=naive.TOLERANCE[dtype])


@dtypes
def test_the_compiled_log_variances_below_at_inside_and_above_their_bounds(dtype):
    import npvae.kernels.gaussian_likelihoods as compiled

    output, x = np.array([[1, 1, 1, 1, 1, LOW - 1, LOW, 0, 20, 21]], dtype), np.zeros((1, 5), dtype)
    _, cache = compiled.gaussian_learned_nll_forward(output, x, LOW)
    doutput = compiled.gaussian_learned_nll_backward(np.ones(1), cache)
    assert (doutput[:, 5:] != 0).tolist() == [[False, True, False, True, False]]  # at 0 the variance is the squared residual


@dtypes
@shapes
@pytest.mark.parametrize("logvar", [LOW - 1, LOW, 0.3, 20.5])
def test_the_compiled_global_nll_equals_the_op(logvar, shape, dtype):
    import npvae.kernels.gaussian_likelihoods as compiled

    output, x, dnll = case(shape, dtype)
    mean, logvar = output[..., : shape[-1]].copy(), np.array([logvar], dtype)
    nll, cache = compiled.gaussian_global_nll_forward(mean, logvar, x, LOW)
    expected, expected_cache = gaussians.gaussian_global_nll_forward(mean, logvar, x, LOW)
    naive.assert_close(nll, expected, tolerance=naive.TOLERANCE[dtype])
    dmean, dlogvar = compiled.gaussian_global_nll_backward(dnll, cache)
    dmean_op, dlogvar_op = gaussians.gaussian_global_nll_backward(dnll, expected_cache)
    naive.assert_close(dmean, dmean_op, dtype)
    assert (dlogvar.dtype, dlogvar.shape) == (dlogvar_op.dtype, (1,))
    tolerance = naive.TOLERANCE[dtype] * np.abs(dnll * (np.abs(expected) + x.shape[1])).sum()
    assert dlogvar.item() == pytest.approx(dlogvar_op.item(), rel=0, abs=tolerance)


@several
def test_the_compiled_twins_are_right_by_the_complex_step_pure_and_let_nan_through(shape):
    import npvae.kernels.gaussian_likelihoods as compiled

    output, x, dnll = mild(shape)
    mean = output[..., :3].copy()
    learned = compiled.gaussian_learned_nll_forward, compiled.gaussian_learned_nll_backward
    gradcheck.check_pair(*learned, output, x, LOW, wrt=("output",), strict=True)
    shared = compiled.gaussian_global_nll_forward, compiled.gaussian_global_nll_backward
    gradcheck.check_pair(*shared, mean, np.array([0.3]), x, LOW, wrt=("mean", "logvar"), strict=True)
    naive.assert_pure_and_linear(learned[0], (output.copy(), x.copy(), LOW), learned[1], (dnll,))
    naive.assert_pure_and_linear(shared[0], (mean.copy(), np.array([0.3]), x.copy()), shared[1], (dnll,))
    output[..., 1] = np.nan
    assert np.isnan(learned[0](output, x)[0]).all()
    assert np.isnan(shared[0](output[..., :3].copy(), np.array([0.3]), x)[0]).all()
