"""The likelihoods: against scalar twins, numerical derivatives, published anchors, and as probabilities."""

import itertools
import math

import naive
import numpy as np
import pytest

from npvae.gradcheck import complex_step_grad
from npvae.ops import likelihood

SHAPES = [(1, 1), (1, 7), (5, 3), (1, 5, 3), (3, 4, 7)]  # (B, D) or (S, B, D)
LOGITS = [0.0, 1.0, -1.0, 20.0, -20.0, 40.0, -40.0, 100.0, -100.0, 1e4, -1e4]
VARIANCES = [0.3, 1.0, 2.5]

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)
variances = pytest.mark.parametrize("variance", VARIANCES)


def case(shape, dtype="float64", layout="C"):
    """The decoder's output (..., B, D), the upstream gradient dnll (..., B), and a Gaussian and a [0, 1] x (B, D)."""
    rng = np.random.default_rng(1)
    output, dnll, x, unit_x = (naive.draw(rng, s, dtype, layout) for s in (shape, shape[:-1], shape[-2:], shape[-2:]))
    unit_x -= unit_x.min()  # in place, which keeps the layout
    unit_x /= unit_x.max() + 1
    return output, dnll, x, unit_x


# ---- against the scalar twins ----


@dtypes
@layouts
@shapes
def test_bernoulli_nll_equals_its_twin(shape, dtype, layout):
    logits, dnll, _, x = case(shape, dtype, layout)
    nll, cache = likelihood.bernoulli_nll_forward(logits, x)
    naive.assert_close(nll, naive.per_sample(naive.bernoulli_nll_forward, [logits], x), tolerance=naive.TOLERANCE[dtype])
    dlogits = likelihood.bernoulli_nll_backward(dnll, cache)
    naive.assert_close(dlogits, naive.per_sample(naive.bernoulli_nll_backward, [dnll, logits], x), dtype)


@variances
@dtypes
@layouts
@shapes
def test_gaussian_nll_equals_its_twin(shape, dtype, layout, variance):
    mean, dnll, x, _ = case(shape, dtype, layout)
    nll, cache = likelihood.gaussian_nll_forward(mean, x, variance)
    expected = naive.per_sample(naive.gaussian_nll_forward, [mean], x, variance)
    naive.assert_close(nll, expected, tolerance=naive.TOLERANCE[dtype])
    dmean = likelihood.gaussian_nll_backward(dnll, cache)
    naive.assert_close(dmean, naive.per_sample(naive.gaussian_nll_backward, [dnll, mean], x, variance), dtype)


@dtypes
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", LOGITS)
def test_bernoulli_nll_keeps_its_digits(logit, target, dtype):
    """Each number to its own relative precision: saturated, and right or wrong about x."""
    logits, x = np.array([[logit]], dtype), np.array([[target]], dtype)
    nll, cache = likelihood.bernoulli_nll_forward(logits, x)
    dlogits = likelihood.bernoulli_nll_backward(np.ones(1), cache)
    rtol, smallest = naive.TOLERANCE[dtype], np.finfo(dtype).tiny
    np.testing.assert_allclose(nll, naive.bernoulli_nll_forward(logits.tolist(), x.tolist()), rtol, smallest)
    np.testing.assert_allclose(dlogits, naive.bernoulli_nll_backward([1.0], logits.tolist(), x.tolist()), rtol, smallest)


@pytest.mark.parametrize(
    ("logit", "target", "nll"),
    [(0, 0, math.log(2)), (40, 1, 4.248354255291589e-18), (-40, 0, 4.248354255291589e-18), (1e4, 0.3, 7000)],
)
def test_bernoulli_nll_anchors(logit, target, nll):
    result, _ = likelihood.bernoulli_nll_forward(np.array([[float(logit)]]), np.array([[float(target)]]))
    assert result.item() == pytest.approx(nll, rel=1e-15, abs=0)


def test_bernoulli_gradient_anchor():
    """σ(l) − x is 0 here, the truth is not."""
    _, cache = likelihood.bernoulli_nll_forward(np.array([[40.0]]), np.array([[1.0]]))
    dlogits = likelihood.bernoulli_nll_backward(np.ones(1), cache)
    assert dlogits.item() == pytest.approx(-4.248354255291589e-18, rel=1e-15, abs=0)


@pytest.mark.parametrize("op", ["bernoulli", "gaussian"])
def test_nll_sums_in_float64(op):
    """A float32 running sum over D would lose most of the small terms beside the large one."""
    D = 100_000
    output, x = np.full((1, D), 0.01, "float32"), np.zeros((1, D), "float32")
    output[0, 0] = 3e3
    forward = {"bernoulli": likelihood.bernoulli_nll_forward, "gaussian": lambda m, x: likelihood.gaussian_nll_forward(m, x, 1)}
    rest = [float(forward[op](output[:, i : i + 1], x[:, i : i + 1])[0].item()) for i in (0, 1)]
    nll, _ = forward[op](output, x)
    assert nll.dtype == "float64"
    assert nll.item() == pytest.approx(rest[0] + (D - 1) * rest[1], rel=1e-12)


def test_bernoulli_mean_is_the_success_probability():
    logits = np.array([LOGITS])
    expected = naive.activation_forward("sigmoid", logits.tolist())
    np.testing.assert_allclose(likelihood.bernoulli_mean(logits), expected, 1e-13, np.finfo(float).tiny)
    assert likelihood.bernoulli_mean(logits.astype("float32")).dtype == "float32"


# ---- each labelled identity against numerical derivatives ----


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_BERNOULLI_logits_is_the_derivative(shape):
    logits, dnll, _, x = case(shape)
    dlogits = likelihood.bernoulli_nll_backward(dnll, likelihood.bernoulli_nll_forward(logits, x)[1])
    naive.assert_is_gradient(dlogits, lambda l: (dnll * likelihood.bernoulli_nll_forward(l, x)[0]).sum(), logits)


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", LOGITS)
def test_BERNOULLI_logits_by_the_complex_step_when_saturated(logit, target):
    """Differences of nll are all rounding here; the complex step is not."""
    logits, x = np.array([[logit]]), np.array([[target]])
    dlogits = likelihood.bernoulli_nll_backward(np.ones(1), likelihood.bernoulli_nll_forward(logits, x)[1])
    grad = complex_step_grad(lambda l: likelihood.bernoulli_nll_forward(l, x)[0].sum(), logits)
    np.testing.assert_allclose(dlogits, grad, 1e-12, np.finfo(float).tiny)


@variances
@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_GAUSSIAN_mean_is_the_derivative(shape, variance):
    mean, dnll, x, _ = case(shape)
    dmean = likelihood.gaussian_nll_backward(dnll, likelihood.gaussian_nll_forward(mean, x, variance)[1])
    naive.assert_is_gradient(dmean, lambda m: (dnll * likelihood.gaussian_nll_forward(m, x, variance)[0]).sum(), mean)


# ---- as probabilities ----


@dtypes
def test_bernoulli_likelihood_sums_to_one(dtype):
    D = 8
    every_x = np.array(list(itertools.product([0, 1], repeat=D)), dtype)  # (2^D, D)
    logits = (3 * naive.draw(np.random.default_rng(2), (3, 1, D), dtype)) * np.ones_like(every_x)  # (3, 2^D, D)
    nll, _ = likelihood.bernoulli_nll_forward(logits, every_x)
    np.testing.assert_allclose(np.exp(-nll).sum(axis=-1), 1, rtol=naive.TOLERANCE[dtype])


@variances
def test_gaussian_likelihood_integrates_to_one_over_a_line(variance):
    x = np.linspace(-20, 20, 2001)[:, None]
    nll, _ = likelihood.gaussian_nll_forward(np.full_like(x, 0.7), x, variance)
    assert np.trapezoid(np.exp(-nll), x[:, 0]) == pytest.approx(1, abs=1e-12)


@variances
def test_gaussian_likelihood_integrates_to_one_over_a_plane(variance):
    """Two dimensions, to see that the constant counts D."""
    grid = np.linspace(-15, 15, 301)
    x = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)  # (301², 2)
    nll, _ = likelihood.gaussian_nll_forward(np.array([[0.7, -1.1]]), x, variance)
    assert np.exp(-nll).sum() * 0.1**2 == pytest.approx(1, abs=1e-12)


def test_bernoulli_mean_is_the_mean_of_the_likelihood():
    D = 5
    every_x = np.array(list(itertools.product([0.0, 1.0], repeat=D)))  # (2^D, D)
    logits = naive.draw(np.random.default_rng(3), (1, D))
    nll, _ = likelihood.bernoulli_nll_forward(logits * np.ones_like(every_x), every_x)
    np.testing.assert_allclose(likelihood.bernoulli_mean(logits)[0], np.exp(-nll) @ every_x, rtol=1e-13)


# ---- the contract of a pair ----


@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_bernoulli_nll_is_pure_and_linear(shape):
    logits, dnll, _, x = case(shape)
    forward, backward = likelihood.bernoulli_nll_forward, likelihood.bernoulli_nll_backward
    naive.assert_pure_and_linear(forward, (logits, x), backward, (dnll,))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_gaussian_nll_is_pure_and_linear(shape):
    mean, dnll, x, _ = case(shape)
    forward, backward = likelihood.gaussian_nll_forward, likelihood.gaussian_nll_backward
    naive.assert_pure_and_linear(forward, (mean, x, 0.7), backward, (dnll,))


@dtypes
@pytest.mark.parametrize("dnll_dtype", ["float64", "float32"])
def test_gradients_keep_the_dtype_of_the_output_whatever_the_upstream(dtype, dnll_dtype):
    output, dnll, gaussian_x, x = case((3, 4), dtype)
    dnll = dnll.astype(dnll_dtype)
    dlogits = likelihood.bernoulli_nll_backward(dnll, likelihood.bernoulli_nll_forward(output, x)[1])
    dmean = likelihood.gaussian_nll_backward(dnll, likelihood.gaussian_nll_forward(output, gaussian_x, 0.5)[1])
    assert dlogits.dtype == dmean.dtype == dtype
