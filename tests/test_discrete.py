"""The likelihoods of whole numbers: against exact twins, numerical derivatives, as probabilities; kernels against ops."""

import math
from decimal import Decimal
from fractions import Fraction

import naive
import numpy as np
import pytest
from scipy.stats import betabinom

from npvae import kernels
from npvae.checking import cases
from npvae.gradcheck import check_pair, complex_step_grad
from npvae.ops import discrete

SHAPES = [(1, 1), (1, 7), (5, 3), (1, 5, 3), (3, 4, 7)]  # (B, D) or (S, B, D)
K = 5  # levels of the categorical variables
LOG_PARAMETERS = [-23.0, -12.0, -5.0, -1.0, 0.0, 1.0, 3.0, 6.0, 12.0, 23.0]  # 1e-10 to 1e10
N_LEVELS = np.array([0.0, 1.0, 2.0, 7.0, 8.0, 9.0, 100.0, 254.0, 255.0])

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)
PAIRS = {
    "categorical": (discrete.categorical_nll_forward, discrete.categorical_nll_backward),
    "beta_binomial": (discrete.beta_binomial_nll_forward, discrete.beta_binomial_nll_backward),
}
likelihoods = pytest.mark.parametrize("likelihood", PAIRS)


def case(likelihood, shape, dtype="float64", layout="C"):
    """The decoder's output, the upstream gradient dnll (..., B), and x (B, D) of the output's dtype."""
    rng = np.random.default_rng(1)
    width, top = (K, K - 1) if likelihood == "categorical" else (2, 255)
    output = naive.draw(rng, (*shape[:-1], shape[-1] * width), dtype, layout)
    dnll, x = naive.draw(rng, shape[:-1], dtype, layout), naive.draw(rng, shape[-2:], dtype, layout)
    x[...] = rng.integers(0, top + 1, x.shape)  # in place, which keeps the layout
    x[0, 0] = top
    return output, dnll, x


def every_level(log_alpha, log_beta, n=255):
    """−log p(x) for x = 0, …, n: (parameters, n + 1)."""
    output = np.stack([np.atleast_1d(log_alpha), np.atleast_1d(log_beta)], axis=-1)[:, None].repeat(n + 1, axis=1)
    return discrete.beta_binomial_nll_forward(output, np.arange(n + 1.0)[:, None], n)[0]


def grid():
    """All pairs of LOG_PARAMETERS: log α, log β."""
    return (part.ravel() for part in np.meshgrid(LOG_PARAMETERS, LOG_PARAMETERS))


# ---- against the exact twins ----


@likelihoods
@dtypes
@layouts
@shapes
def test_nll_equals_its_twin(shape, layout, dtype, likelihood):
    output, dnll, x = case(likelihood, shape, dtype, layout)
    forward, backward = PAIRS[likelihood]
    nll, cache = forward(output, x)
    expected = naive.per_sample(getattr(naive, f"{likelihood}_nll_forward"), [output], x)
    naive.assert_close(nll, expected, tolerance=naive.TOLERANCE[dtype if likelihood == "categorical" else "float64"])
    doutput = backward(dnll, cache)
    naive.assert_close(doutput, naive.per_sample(getattr(naive, f"{likelihood}_nll_backward"), [dnll, output], x), dtype)


@pytest.mark.parametrize("level", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("logit", [0.0, 1.0, 40.0, 100.0, -40.0])
def test_categorical_nll_keeps_its_digits(logit, level):
    """Each number to its own relative precision: saturated, and right or wrong about x."""
    logits, x = np.array([[logit, 0.0, -3.0]]), np.array([[level]])
    nll, cache = discrete.categorical_nll_forward(logits, x)
    dlogits = discrete.categorical_nll_backward(np.ones(1), cache)
    np.testing.assert_allclose(nll, naive.categorical_nll_forward(logits.tolist(), x.tolist()), 1e-13)
    np.testing.assert_allclose(dlogits, naive.categorical_nll_backward([1.0], logits.tolist(), x.tolist()), 1e-13)


@pytest.mark.parametrize("log_alpha", LOG_PARAMETERS)
def test_beta_binomial_nll_over_the_whole_range(log_alpha):
    """To 1e-12 max(1, nll), and each gradient to 1e-14 of the larger of the two terms that it is the difference of."""
    for log_beta in LOG_PARAMETERS:
        for x in N_LEVELS:
            output = np.array([[log_alpha, log_beta]])
            nll, cache = discrete.beta_binomial_nll_forward(output, np.array([[x]]))
            exact = -naive.beta_binomial_probability(log_alpha, log_beta, x, 255).ln()
            assert abs(Decimal(nll.item()) - exact) <= Decimal("1e-12") * max(1, exact)
            doutput = discrete.beta_binomial_nll_backward(np.ones(1), cache)[0]
            of_all = naive.sum_of_reciprocals(naive.e_to(log_alpha) + naive.e_to(log_beta), 255)
            for log_a, k, found in [(log_alpha, x, doutput[0]), (log_beta, 255 - x, doutput[1])]:
                a, own = naive.e_to(log_a), naive.sum_of_reciprocals(naive.e_to(log_a), k)
                assert abs(Decimal(found) - a * (of_all - own)) <= Decimal("1e-14") * a * max(of_all, own)


@pytest.mark.parametrize("log_a", LOG_PARAMETERS)
def test_gamma_and_digamma_differences_over_the_whole_range(log_a):
    """In real and in complex arithmetic: log Γ to 1e-12 max(1, log Γ(a + k)/Γ(a)), ψ and the imaginary parts to 1e-12."""
    a, h = math.exp(log_a), 1e-30
    exact_a = Decimal(a)
    for k in N_LEVELS:
        left_out = Decimal(k) * ((exact_a + 8).ln() - 1)
        product, slope = naive.rising(exact_a, k).ln(), naive.sum_of_reciprocals(exact_a, k)
        difference = discrete.digamma_difference(np.array(a), k)
        found = Decimal(discrete.log_rising(np.array(a), k).item()) + left_out
        assert abs(found - product) <= Decimal("1e-12") * max(1, product)
        assert abs(Decimal(difference.item()) - slope) <= Decimal("1e-12") * slope
        complex_a = np.array(complex(a, h * a))
        slope_found = Decimal(discrete.log_rising(complex_a, k).imag.item()) / Decimal(h * a)
        assert abs(slope_found + Decimal(k) / (exact_a + 8) - slope) <= Decimal("1e-12") * slope
        curvature = Decimal(discrete.digamma_difference(complex_a, k).imag.item()) / Decimal(h * a)
        exact_curvature = naive.sum_of_reciprocals(exact_a, k, 2)
        assert abs(curvature + exact_curvature) <= Decimal("1e-12") * exact_curvature


@pytest.mark.parametrize("z", [1, 2, 8, 100])
def test_the_series_have_the_bernoulli_numbers(z):
    """As polynomials, where z is too small for them to converge as well."""
    B = [Fraction(1, 6), Fraction(-1, 30), Fraction(1, 42), Fraction(-1, 30), Fraction(5, 66), Fraction(-691, 2730)]
    log_gamma = sum(b / (2 * m * (2 * m - 1) * Fraction(z) ** (2 * m - 1)) for m, b in enumerate(B, 1))
    digamma = Fraction(1, 2 * z) + sum(b / (2 * m * Fraction(z) ** (2 * m)) for m, b in enumerate(B, 1))
    assert discrete.stirling(np.array(float(z))) == pytest.approx(float(log_gamma), rel=1e-14)
    assert discrete.log_minus_digamma(np.array(float(z))) == pytest.approx(float(digamma), rel=1e-14)


def test_beta_binomial_nll_is_scipys():
    log_alpha, log_beta = (part.ravel() for part in np.meshgrid([-2.0, 0.3, 4.0], [-1.0, 1.7]))
    x = np.arange(256)
    expected = [-betabinom(255, *np.exp(parameters)).logpmf(x) for parameters in zip(log_alpha, log_beta)]
    np.testing.assert_allclose(every_level(log_alpha, log_beta), expected, rtol=1e-11)


def test_beta_binomial_anchors():
    """α = β = 1 is uniform: 8 bits for 256 levels. n = 1 is one coin. Large parameters make the binomial distribution."""
    np.testing.assert_allclose(every_level(0.0, 0.0) / math.log(2), 8, rtol=1e-13)
    np.testing.assert_allclose(np.exp(-every_level(math.log(3), 0.0, n=1)), [[0.25, 0.75]], rtol=1e-14)
    coins = [math.comb(10, k) / 2**10 for k in range(11)]
    np.testing.assert_allclose(np.exp(-every_level(23.0, 23.0, n=10)), [coins], rtol=1e-8)


@dtypes
def test_categorical_nll_sums_in_float64(dtype):
    D = 100_000
    logits, x = np.tile(np.array([0.0, 5.0], dtype), (1, D)), np.ones((1, D), dtype)
    logits[0, 0] = 1e4
    nll, _ = discrete.categorical_nll_forward(logits, x)
    assert nll.dtype == "float64"
    one = discrete.categorical_nll_forward(logits[:, 2:4], x[:, :1])[0].item()
    assert nll.item() == pytest.approx(1e4 - 5 + (D - 1) * one, rel=1e-12)


# ---- each labelled identity against numerical derivatives ----


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_CATEGORICAL_logits_is_the_derivative(shape):
    logits, dnll, x = case("categorical", shape)
    dlogits = discrete.categorical_nll_backward(dnll, discrete.categorical_nll_forward(logits, x)[1])
    naive.assert_is_gradient(dlogits, lambda l: (dnll * discrete.categorical_nll_forward(l, x)[0]).sum(), logits)


def partial_gradient(shape, columns):
    """The gradient of some columns of the beta-binomial's output, its loss as a function of these, and their values."""
    output, dnll, x = case("beta_binomial", shape)
    doutput = discrete.beta_binomial_nll_backward(dnll, discrete.beta_binomial_nll_forward(output, x)[1])

    def loss(part):
        whole = output.astype(part.dtype)
        whole[..., columns] = part
        return (dnll * discrete.beta_binomial_nll_forward(whole, x)[0]).sum()

    return doutput[..., columns], loss, output[..., columns]


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_BETABINOMIAL_logalpha_is_the_derivative(shape):
    naive.assert_is_gradient(*partial_gradient(shape, slice(None, 3)))


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_BETABINOMIAL_logbeta_is_the_derivative(shape):
    naive.assert_is_gradient(*partial_gradient(shape, slice(3, None)))


@dtypes
def test_BETABINOMIAL_clip_is_the_derivative_beyond_on_and_inside_the_bounds(dtype):
    output, x = np.array([[-30, -23, 2, 23, 30, 30, 4, -24]], dtype), np.array([[3, 250, 17, 99]], dtype)
    nll, cache = discrete.beta_binomial_nll_forward(output, x)
    assert nll == discrete.beta_binomial_nll_forward(output.clip(-23, 23), x)[0]
    doutput = discrete.beta_binomial_nll_backward(np.ones(1), cache)
    inside = np.array([[False, True, True, True, False, False, True, False]])
    assert np.array_equal(doutput != 0, inside)
    if dtype == "float64":
        grad = complex_step_grad(lambda o: discrete.beta_binomial_nll_forward(o, x)[0].sum(), output)
        np.testing.assert_allclose(doutput, grad, 1e-12, 1e-12)


CASES = cases.discrete_pairs("", discrete) + cases.discrete_pairs("numba ", kernels)


@pytest.mark.parametrize("pair", CASES, ids=lambda pair: pair.name)
def test_every_case_passes_the_gradient_check(pair):
    check_pair(pair.forward, pair.backward, *pair.args, wrt=pair.wrt, strict=True)


# ---- as probabilities ----


@pytest.mark.parametrize("n", [1, 2, 10, 255])
def test_beta_binomial_probabilities_sum_to_one(n):
    """Over the whole range of the parameters."""
    np.testing.assert_allclose(np.exp(-every_level(*grid(), n)).sum(axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1, 30, 1000])
def test_categorical_probabilities_sum_to_one(scale):
    logits = scale * naive.draw(np.random.default_rng(2), (4, 1, 256)) * np.ones((256, 1))  # (4, 256, 256)
    nll, _ = discrete.categorical_nll_forward(logits, np.arange(256)[:, None])
    np.testing.assert_allclose(np.exp(-nll).sum(axis=-1), 1, rtol=1e-12)
    probabilities = discrete.categorical_probabilities(logits[:, 0], 256)[:, 0]
    np.testing.assert_allclose(probabilities, np.exp(-nll), rtol=1e-11, atol=1e-300)


@dtypes
def test_means_and_variances_are_those_of_the_probabilities(dtype):
    rng, levels = np.random.default_rng(3), np.arange(256)
    output = (2 * naive.draw(rng, 2 * 30)).astype(dtype)
    p = np.exp(-every_level(output[:30], output[30:]))
    mean, variance = discrete.beta_binomial_mean(output), discrete.beta_binomial_variance(output)
    tolerance = {"float64": 1e-12, "float32": 2e-6}[dtype]
    naive.assert_close(mean, p @ levels, dtype, tolerance)
    naive.assert_close(variance, p @ levels**2 - (p @ levels) ** 2, dtype, tolerance)
    logits = naive.draw(rng, (2, 3 * K), dtype)
    p, levels = discrete.categorical_probabilities(logits.astype("float64"), K), np.arange(K)
    naive.assert_close(discrete.categorical_mean(logits, K), p @ levels, dtype)
    naive.assert_close(discrete.categorical_variance(logits, K), p @ levels**2 - (p @ levels) ** 2, dtype)


def test_samples_have_the_probabilities():
    """By the inverse of the distribution function: of a fine grid of uniform numbers each level gets its share."""
    uniform = (np.arange(100_000) + 0.5)[:, None] / 100_000
    output = np.array([0.3, 1.2])
    x = discrete.beta_binomial_sample(np.tile(output, (100_000, 1)), uniform, n=9)
    share = np.bincount(x[:, 0].astype(int), minlength=10) / 100_000
    np.testing.assert_allclose(share, np.exp(-every_level(0.3, 1.2, n=9))[0], atol=1.1e-5)
    assert (np.diff(x[:, 0]) >= 0).all()
    logits = np.log([0.5, 0.1, 0.4])
    x = discrete.categorical_sample(np.tile(logits, (100_000, 1)), uniform)
    np.testing.assert_allclose(np.bincount(x[:, 0].astype(int)) / 100_000, [0.5, 0.1, 0.4], atol=1.1e-5)


def test_moments_of_samples_are_the_mean_and_the_variance():
    """Within four standard errors, seeded."""
    rng, count = np.random.default_rng(4), 20_000
    output = np.array([0.5, -1.0, 3.0, 1.0, 0.5, 2.0])  # D = 3
    x = discrete.beta_binomial_sample(np.tile(output, (count, 1)), rng.random((count, 3)))
    mean, variance = discrete.beta_binomial_mean(output), discrete.beta_binomial_variance(output)
    squares = (x - mean) ** 2
    assert (np.abs(x.mean(axis=0) - mean) < 4 * np.sqrt(variance / count)).all()
    assert (np.abs(squares.mean(axis=0) - variance) < 4 * squares.std(axis=0) / math.sqrt(count)).all()


@dtypes
def test_samples_are_levels_at_both_ends_of_the_noise_and_of_the_parameters(dtype):
    log_alpha, log_beta = grid()
    output = np.concatenate([log_alpha, log_beta]).astype(dtype)
    for noise in (0.0, 0.5, np.nextafter(1, 0)):
        x = discrete.beta_binomial_sample(output, np.full(log_alpha.shape, noise))
        assert x.dtype == dtype
        assert ((x >= 0) & (x <= 255) & (x == np.round(x))).all()
    logits = np.array([0.1, 0.2, 0.3, -50, -50, 50], dtype)
    np.testing.assert_array_equal(discrete.categorical_sample(logits, np.array([np.nextafter(1, 0)] * 2)), [2, 2])
    np.testing.assert_array_equal(discrete.categorical_sample(logits, np.array([0.0, 1e-3])), [0, 2])
    assert discrete.categorical_sample(logits, np.array([0.5, 0.5])).dtype == dtype
    equal = np.zeros(10, dtype)  # ten times 0.1 is less than 1 in floats
    np.testing.assert_array_equal(discrete.categorical_sample(equal, np.array([np.nextafter(1, 0)])), [9])
    np.testing.assert_array_equal(discrete.categorical_sample(np.zeros(4, dtype), np.array([0.5, 0.25])), [1, 0])
    assert discrete.beta_binomial_sample(np.array([23, -23], dtype), np.array([0.5])) == 255
    coins = discrete.beta_binomial_sample(np.zeros(4, dtype), np.array([0.51, 0.49]), n=1)
    np.testing.assert_array_equal(coins, [1, 0])


def test_an_expected_nll_of_samples_is_the_entropy():
    """Sampler and nll belong to one distribution: the mean of −log p over samples against −Σ p log p."""
    rng, count = np.random.default_rng(5), 20_000
    output = np.tile([0.5, 2.0], (count, 1))
    nll, _ = discrete.beta_binomial_nll_forward(output, discrete.beta_binomial_sample(output, rng.random((count, 1))))
    exact = every_level(0.5, 2.0)[0]
    assert abs(nll.mean() - (np.exp(-exact) * exact).sum()) < 4 * nll.std() / math.sqrt(count)


def test_parameters_from_moments():
    rng = np.random.default_rng(6)
    output = 1.5 * naive.draw(rng, 2 * 20)
    mean, variance = discrete.beta_binomial_mean(output), discrete.beta_binomial_variance(output)
    np.testing.assert_allclose(np.concatenate(discrete.beta_binomial_from_moments(mean, variance)), output, atol=1e-9)


def test_parameters_for_levels_that_never_vary():
    """The mean is kept off both ends, and a variance of 0 is taken as 1.01 times the binomial one."""
    output = np.concatenate(discrete.beta_binomial_from_moments(np.array([0, 255, 100]), np.zeros(3)))
    assert np.isfinite(output).all()
    mean = np.array([0.0255, 255 - 0.0255, 100])
    np.testing.assert_allclose(discrete.beta_binomial_mean(output), mean, rtol=1e-10)
    np.testing.assert_allclose(discrete.beta_binomial_variance(output), 1.01 * mean * (1 - mean / 255), rtol=1e-10)


def test_parameters_for_levels_at_both_ends_alone():
    """A larger variance than such levels have is taken as 0.99 of theirs."""
    output = np.array(discrete.beta_binomial_from_moments(100.0, 1e6))
    assert discrete.beta_binomial_mean(output) == pytest.approx(100, rel=1e-12)
    assert discrete.beta_binomial_variance(output) == pytest.approx(0.99 * 100 * 155, rel=1e-12)


def test_the_table_of_binomials_is_made_once_and_read_only():
    table = discrete.log_binomials(5)
    np.testing.assert_allclose(np.exp(table), [1, 5, 10, 10, 5, 1], rtol=1e-15)
    assert discrete.log_binomials(5) is table
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


# ---- the contract of a pair ----


@likelihoods
@pytest.mark.parametrize("shape", [(5, 3), (3, 5, 4)])
def test_nll_is_pure_and_linear(shape, likelihood):
    output, dnll, x = case(likelihood, shape)
    forward, backward = PAIRS[likelihood]
    naive.assert_pure_and_linear(forward, (output, x), backward, (dnll,))


@likelihoods
@dtypes
@pytest.mark.parametrize("dnll_dtype", ["float64", "float32"])
def test_gradients_keep_the_dtype_of_the_output_whatever_the_upstream(dnll_dtype, dtype, likelihood):
    output, dnll, x = case(likelihood, (3, 4), dtype)
    for table in (discrete, kernels):
        forward, backward = (getattr(table, f"{likelihood}_nll_{way}") for way in ("forward", "backward"))
        assert backward(dnll.astype(dnll_dtype), forward(output, x)[1]).dtype == dtype


@likelihoods
@pytest.mark.parametrize("x_dtype", ["uint8", "int64", "float32"])
def test_levels_may_be_integers(x_dtype, likelihood):
    output, dnll, x = case(likelihood, (5, 3))
    for table in (discrete, kernels):
        forward, backward = (getattr(table, f"{likelihood}_nll_{way}") for way in ("forward", "backward"))
        (nll, cache), (expected, expected_cache) = forward(output, x.astype(x_dtype)), forward(output, x)
        np.testing.assert_array_equal(nll, expected)
        np.testing.assert_array_equal(backward(dnll, cache), backward(dnll, expected_cache))


# ---- the compiled twins ----


@likelihoods
@dtypes
def test_kernels_write_nowhere_else_for_levels_outside_of_the_support(dtype, likelihood):
    """What they return for such rows is nonsense; the other rows are right."""
    output, _, x = case(likelihood, (5, 3), dtype)
    expected = getattr(kernels, f"{likelihood}_nll_forward")(output, x)
    x[1], x[2], x[3] = -1e9, 1e9, np.nan
    with np.errstate(invalid="ignore"):  # where the suite runs uncompiled
        nll, grad = getattr(kernels, f"{likelihood}_nll_forward")(output, x)
    np.testing.assert_array_equal(nll[[0, 4]], expected[0][[0, 4]])
    np.testing.assert_array_equal(grad[[0, 4]], expected[1][[0, 4]])


@likelihoods
@dtypes
@layouts
@shapes
def test_kernels_equal_the_ops(shape, layout, dtype, likelihood):
    output, dnll, x = case(likelihood, shape, dtype, layout)
    if likelihood == "beta_binomial":
        output[..., -1] = 25  # beyond the bounds
    forward, backward = PAIRS[likelihood]
    nll, cache = forward(output, x)
    nll_kernel, cache_kernel = getattr(kernels, f"{likelihood}_nll_forward")(output, x)
    np.testing.assert_allclose(nll_kernel, nll, naive.TOLERANCE[dtype], 1e-12 * x.shape[1])
    doutput = getattr(kernels, f"{likelihood}_nll_backward")(dnll, cache_kernel)
    naive.assert_close(doutput, backward(dnll, cache), dtype)


@pytest.mark.parametrize("z", [1.0, 2.0, 8.0, 100.0])
def test_the_parts_of_the_kernel_are_those_of_the_op(z):
    from npvae.kernels import discrete as compiled

    assert compiled._stirling(1 / z, 1 / z**2) == pytest.approx(discrete.stirling(z), rel=1e-14)
    assert compiled._log_minus_digamma(1 / z, 1 / z**2) == pytest.approx(discrete.log_minus_digamma(z), rel=1e-14)
    product, derivative = compiled._product_of_8(z, 1 / (z + 8), 1 / (z + 8) ** 2)
    assert product == pytest.approx(discrete.product_of_8(z) / (z + 8) ** 8, rel=1e-14)
    assert derivative / product == pytest.approx(discrete.reciprocals_of_8(z), rel=1e-14)


def test_the_kernel_over_the_whole_range():
    log_alpha, log_beta = grid()
    output = np.repeat(np.concatenate([log_alpha, log_beta])[None], len(N_LEVELS), axis=0)  # each row one level
    x = np.repeat(N_LEVELS[:, None], len(log_alpha), axis=1)
    for d in range(len(log_alpha)):
        pixel = output[:, [d, d + len(log_alpha)]], x[:, [d]]
        (nll, cache), (nll_kernel, grad) = discrete.beta_binomial_nll_forward(*pixel), kernels.beta_binomial_nll_forward(*pixel)
        np.testing.assert_allclose(nll_kernel, nll, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(grad, discrete.beta_binomial_nll_backward(np.ones(len(x)), cache), rtol=1e-12, atol=1e-12)


def test_the_kernel_of_another_n_and_of_extreme_logits():
    output, _, x = case("beta_binomial", (5, 3))
    x %= 11
    nll, cache = discrete.beta_binomial_nll_forward(output, x, 10)
    nll_kernel, grad = kernels.beta_binomial_nll_forward(output, x, n=10)
    naive.assert_close(nll_kernel, nll)
    naive.assert_close(grad, discrete.beta_binomial_nll_backward(np.ones(5), cache))
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, 0.0, 1e4], [40.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    levels = np.array([[1.0], [1.0], [0.0], [2.0]])
    nll, cache = discrete.categorical_nll_forward(logits, levels)
    nll_kernel, grad = kernels.categorical_nll_forward(logits, levels)
    np.testing.assert_allclose(nll_kernel, nll, 1e-13)
    np.testing.assert_allclose(grad, discrete.categorical_nll_backward(np.ones(4), cache), 1e-13)


@dtypes
def test_the_kernel_clips_beyond_the_bounds_of_both_parameters_and_not_on_them(dtype):
    wide, mild = [-30, -23, 2, 23, 30], [2, 1, 0, -1, -2]
    output, x = np.array([wide + mild, mild + wide], dtype), np.array([[3, 250, 17, 99, 128]] * 2, dtype)
    nll, cache = discrete.beta_binomial_nll_forward(output, x)
    nll_kernel, grad = kernels.beta_binomial_nll_forward(output, x)
    np.testing.assert_allclose(nll_kernel, nll, rtol=1e-12)
    np.testing.assert_allclose(grad, discrete.beta_binomial_nll_backward(np.ones(2), cache), rtol=naive.TOLERANCE[dtype])
    inside, always = [False, True, True, True, False], [True] * 5
    assert (grad != 0).tolist() == [inside + always, always + inside]


@likelihoods
def test_kernels_carry_the_complex_step(likelihood):
    output, _, x = case(likelihood, (2, 4, 3))
    output = output + 1e-20j * output
    (nll, cache), (nll_kernel, grad) = PAIRS[likelihood][0](output, x), getattr(kernels, f"{likelihood}_nll_forward")(output, x)
    np.testing.assert_allclose(nll_kernel.imag, nll.imag, rtol=1e-12)
    naive.assert_close(grad, PAIRS[likelihood][1](np.ones((2, 4)), cache), "complex128", 1e-13)


# ---- against automatic differentiation ----


@pytest.mark.parametrize("ops", [discrete, kernels], ids=["numpy", "numba"])
def test_the_gradients_are_those_of_autograd(ops):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(20)
    x, dnll = rng.integers(0, 256, (4, 3)).astype(float), rng.standard_normal((2, 4))
    output, levels = 2 * rng.standard_normal((2, 4, 6)), torch.tensor(x)

    nll, cache = ops.beta_binomial_nll_forward(output, x)
    o = torch.tensor(output, requires_grad=True)
    alpha, beta = torch.exp(o[..., :3]), torch.exp(o[..., 3:])
    n = torch.tensor(255.0, dtype=torch.float64)

    def log_beta(a, b):
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    log_choose = torch.lgamma(n + 1) - torch.lgamma(levels + 1) - torch.lgamma(n - levels + 1)
    expected = -(log_choose + log_beta(levels + alpha, n - levels + beta) - log_beta(alpha, beta)).sum(-1)
    (torch.tensor(dnll) * expected).sum().backward()
    np.testing.assert_allclose(nll, expected.detach().numpy(), rtol=1e-11)
    naive.assert_close(ops.beta_binomial_nll_backward(dnll, cache), o.grad.numpy(), tolerance=1e-10)

    logits, x = rng.standard_normal((2, 4, 15)), rng.integers(0, 5, (4, 3)).astype(float)
    nll, cache = ops.categorical_nll_forward(logits, x)
    l = torch.tensor(logits, requires_grad=True)
    expected = -torch.distributions.Categorical(logits=l.reshape(2, 4, 3, 5)).log_prob(torch.tensor(x)).sum(-1)
    (torch.tensor(dnll) * expected).sum().backward()
    np.testing.assert_allclose(nll, expected.detach().numpy(), rtol=1e-12)
    naive.assert_close(ops.categorical_nll_backward(dnll, cache), l.grad.numpy(), tolerance=1e-10)
