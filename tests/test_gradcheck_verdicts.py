"""The numbers behind the verdicts: estimated errors, scales, kinks, rounding, and code that has no complex version."""

import math

import numpy as np
import pytest

from npvae.checking.gradcheck import assert_gradients, check_pair, complex_step_grad, directional_check, fd_check, taylor_test
from npvae.checking.gradcheck.derivatives import SURE, derivative
from npvae.checking.gradcheck.extrapolation import LIMITS

CHECKS = [directional_check, taylor_test, fd_check]
SCALES = [1e-12, 1e-8, 1e-4, 1.0, 1e6, 1e12]
RNG = np.random.default_rng(11)
X, W, Y = RNG.standard_normal((30, 5)), RNG.standard_normal(5), (RNG.random(30) > 0.5).astype(float)


def agrees(slope, true):
    """Whether an estimate is honest: the truth lies within ten times the estimated error."""
    return abs(slope.value - true) <= SURE * slope.error + 1e-15 * abs(true)


# Derivatives and their errors


@pytest.mark.parametrize("s", SCALES)
@pytest.mark.parametrize(
    ("phi", "true"),
    [
        (lambda u: np.log(1 + u), 1.0),
        (lambda u: (1 + u) ** 3, 3.0),
        (lambda u: math.tanh(0.3 + u), 1 - math.tanh(0.3) ** 2),
        (lambda u: 1e3 + math.exp(u), 1.0),
        (lambda u: 7.0 * u, 7.0),
    ],
)
def test_the_error_is_small_and_honest_at_every_scale(phi, true, s):
    with np.errstate(all="ignore"):
        found = derivative(lambda t: phi(t / s), s)
    assert agrees(found, true / s)
    assert found.error <= 1e-9 * abs(true / s)
    assert not found.tie
    assert not found.supports(true / s * (1 + 1e-6))


@pytest.mark.parametrize("theta", [1e-3, 1e-6, 1e-9])
def test_steps_grow_where_the_scale_of_f_is_not_that_of_theta(theta):
    found = derivative(lambda t: math.cos(theta + t), theta)
    assert agrees(found, -math.sin(theta))
    assert found.error <= 1e-4 * theta


@pytest.mark.parametrize("frequency", [1e3, 1e6])
def test_steps_shrink_where_f_is_narrow(frequency):
    """A bounded function looks flat from far away."""
    found = derivative(lambda t: math.sin(frequency * (1 + t)), 1.0)
    assert agrees(found, frequency * math.cos(frequency))
    assert found.error <= 1e-7 * frequency
    assert not found.supports(0.0)


def test_a_small_narrow_feature_is_seen():
    found = derivative(lambda t: (1 + t) ** 2 + 1e-9 * math.tanh(1e6 * t), 1.0)
    assert agrees(found, 2.001)
    assert not found.supports(2.0)


@pytest.mark.parametrize("distance", [0.1, 1e-3, 1e-6, -1e-6, 1e-9, -1e-9])
def test_a_kink_at_a_distance_is_no_tie(distance):
    found = derivative(lambda t: max(t + distance, 0.0) + 1 + math.sin(t), 1.0)
    assert not found.tie
    assert agrees(found, 2.0 if distance > 0 else 1.0)
    assert not found.supports(1.5)
    assert found.error <= 1e-4


@pytest.mark.parametrize("offset", [0.0, 1.0, -20.0])
def test_a_tie_shows_the_slopes_of_both_sides(offset):
    found = derivative(lambda t: offset + (3 * t if t > 0 else -0.5 * t) + t * t, 1.0)
    assert found.tie
    assert (found.left, found.right) == (pytest.approx(-0.5, abs=1e-9), pytest.approx(3, abs=1e-9))
    assert [found.supports(slope) for slope in (-0.6, -0.5, 1.0, 3.0, 3.1)] == [False, True, True, True, False]
    assert not found.supports(math.nan)


def test_units_that_are_off_have_slope_zero_although_f_stands_still():
    for value in (0.0, 2.0):
        found = derivative(lambda t, value=value: value + max(t - 1e-3, 0.0), 1.0)
        assert (found.value, found.tie) == (0.0, False)
        assert not found.supports(1e-3)


def test_steps_have_slope_zero_and_float32_has_not():
    stairs = derivative(lambda t: np.round(4 * (0.3 + t)) / 4, 0.3)
    assert (stairs.value, stairs.tie) == (0, False)
    assert not stairs.supports(1e-9)
    rounded = derivative(lambda t: float(np.tanh(np.float32(0.7 + t))), 0.7)
    assert agrees(rounded, 1 - math.tanh(0.7) ** 2)
    assert 1e-8 < rounded.noise < 1e-6
    assert 1e-7 < rounded.error < 1e-4


@pytest.mark.parametrize("sigma", [1e-12, 1e-8, 1e-4])
def test_noise_is_measured_and_makes_the_error_larger(sigma):
    rng = np.random.default_rng(5)
    found = derivative(lambda t: math.sin(1 + t) + sigma * rng.standard_normal(), 1.0)
    assert agrees(found, math.cos(1))
    assert sigma / 4 < found.noise < 20 * sigma
    assert found.error > sigma


def test_edges_of_the_domain():
    with np.errstate(all="ignore"):
        one_sided = derivative(lambda t: math.sqrt(t) ** 3 + t, 1.0)  # raises an error for negative t
        assert abs(one_sided.value - 1) <= SURE * one_sided.error
        assert one_sided.error < 1e-3
        nowhere = derivative(lambda t: math.nan, 1.0)
        assert math.isnan(nowhere.value)
        assert nowhere.supports(0.0)  # what is not known refutes nothing
        alone = derivative(lambda t: 1.0 if t == 0 else math.nan, 1.0)
    assert alone.error == math.inf


def test_a_constant_has_slope_zero_to_rounding():
    found = derivative(lambda t: 5.0, 2.0)
    assert found.value == 0
    assert 0 < found.error < 1e-13
    assert found.supports(1e-15)
    assert not found.supports(1e-12)


@pytest.mark.parametrize("power", [1, 2])
def test_weights_extrapolate_series_in_powers_of_the_step(power):
    h = 0.5 ** np.arange(5)
    for degree in range(4):
        slopes = 7 + h ** (power * degree) if degree else np.full(5, 7.0)
        np.testing.assert_allclose(np.array(LIMITS[power, 5]) @ slopes, 7, rtol=1e-12)
    assert not np.allclose(np.array(LIMITS[power, 5]) @ (7 + h ** (power * 4)), 7, rtol=1e-12)


# Scales and conditions


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("s", SCALES)
def test_no_false_verdict_from_1e_minus_12_to_1e12(check, s):
    theta = s * np.array([0.7, -1.3, 2.1, 0.4])
    f, grad = (lambda t: ((t / s) ** 3).sum()), 3 * (theta / s) ** 2 / s
    assert check(f, theta, grad).passed
    assert check(f, theta, grad * np.array([1, 1, 1, 1.001]), assert_passed=False).verdict == "wrong"
    theta = np.abs(theta)
    assert check(lambda t: np.log(t).sum(), theta, 1 / theta).passed
    assert check(lambda t: np.log(t).sum(), theta, 1.01 / theta, assert_passed=False).verdict == "wrong"


@pytest.mark.parametrize("check", CHECKS)
def test_entries_of_all_sizes_in_one_array(check):
    theta = np.array([1e-9, 1e-4, 1.0, 1e5])
    assert check(lambda t: np.log(t).sum(), theta, 1 / theta).passed
    for k in (0, 3):
        wrong = 1 / theta
        wrong[k] *= 2
        seen = k == 0 or check is taylor_test  # 1e-5 is nothing beside 1e9 in the others' norms
        assert (check(lambda t: np.log(t).sum(), theta, wrong, assert_passed=False).verdict == "wrong") is seen or k == 3


def rosenbrock(t):
    return (1 - t[0]) ** 2 + 100 * (t[1] - t[0] ** 2) ** 2


def rosenbrock_grad(t):
    return np.array([-2 * (1 - t[0]) - 400 * t[0] * (t[1] - t[0] ** 2), 200 * (t[1] - t[0] ** 2)])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("t", [np.ones(2), np.ones(2) + 1e-9, np.ones(2) + 1e-5, np.array([-1.2, 1.0])])
def test_at_and_near_an_optimum(check, t):
    assert check(rosenbrock, t, rosenbrock_grad(t)).passed
    wrong = 1e-6 + 1e-3 * rosenbrock_grad(t)
    assert check(rosenbrock, t, rosenbrock_grad(t) + wrong, assert_passed=False).verdict == "wrong"


@pytest.mark.parametrize("check", CHECKS)
def test_gradients_of_zero(check):
    x = X[0]
    softmax = np.exp(x) / np.exp(x).sum()
    grad = softmax - softmax * softmax.sum()  # zero up to rounding
    assert check(lambda x: (np.exp(x) / np.exp(x).sum()).sum(), x, grad).passed
    assert check(lambda x: (np.exp(x) / np.exp(x).sum()).sum(), x, grad + 1e-6, assert_passed=False).verdict == "wrong"
    bias = {"W": W, "b": np.zeros(1)}

    def f(theta):
        h = np.tanh(X) @ theta["W"] + theta["b"]
        return ((h - h.mean()) ** 3).sum()  # does not depend on the bias

    h = np.tanh(X) @ W
    d = 3 * (h - h.mean()) ** 2
    d -= d.mean()
    assert check(f, bias, {"W": np.tanh(X).T @ d, "b": d.sum(keepdims=True)}).passed


def solve_forward(A, b):
    x = np.linalg.solve(A, b)
    return x, (A, x)


def solve_backward(dx, cache):
    A, x = cache
    db = np.linalg.solve(A.T, dx)
    return -np.outer(db, x), db


@pytest.mark.parametrize("condition", [1e2, 1e6])
def test_a_solve_is_judged_at_its_condition(condition):
    Q, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))
    A = Q @ np.diag(np.geomspace(1, 1 / condition, 6)) @ Q.T
    report = check_pair(solve_forward, solve_backward, A, Q[0])
    assert report.threshold < 1e-15 * condition * 1e5


def dA_transposed(dx, cache):
    dA, db = solve_backward(dx, cache)
    return dA.T, db


@pytest.mark.parametrize("condition", [1e2, 1e6])
def test_a_wrong_solve_is_seen_whatever_its_condition(condition):
    Q, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))
    A = Q @ np.diag(np.geomspace(1, 1 / condition, 6)) @ Q.T
    assert check_pair(solve_forward, dA_transposed, A, Q[0], assert_passed=False).verdict == "wrong"


def test_a_gradient_that_rounding_hides_is_inconclusive():
    """sin(1e14 t): the last place of t turns the phase by some radians."""
    t = np.array([0.7, 0.9])
    report = directional_check(lambda t: np.sin(1e14 * t).sum(), t, -1e14 * np.cos(1e14 * t), assert_passed=False)
    assert report.verdict != "passed"
    hidden = fd_check(lambda t: np.float32(np.float16(np.tanh(t)).sum()), t, 1 - np.tanh(t) ** 2, assert_passed=False)
    assert hidden.verdict == "inconclusive"
    with pytest.raises(AssertionError, match="FAILED, inconclusive"):
        fd_check(lambda t: np.float32(np.float16(np.tanh(t)).sum()), t, 1 - np.tanh(t) ** 2)


def test_float32_inside_is_judged_at_what_it_allows():
    theta = W.copy()

    def f(w):
        return float(np.tanh((X @ w).astype(np.float32)).sum(dtype=np.float64))

    grad = X.T @ (1 - np.tanh(X @ theta) ** 2)
    for check in CHECKS:
        assert check(f, theta, grad, assert_passed=False).verdict == "passed"
        assert check(f, theta, 1.01 * grad, assert_passed=False).verdict == "wrong"
    row = fd_check(f, theta, grad).rows[0]
    assert 1e-6 < row.threshold <= 1e-4
    assert row.note.startswith("rounding of f: errors below")


@pytest.mark.parametrize("check", CHECKS)
def test_threshold_and_floor(check):
    """log(x + 1e-8) with 1/x as its gradient, and a distance with 1e-6 beside it: a guard that is there on purpose."""
    x = np.array([0.5, 1.0, 2.0])
    f, grad = (lambda x: np.log(x + 1e-5).sum()), 1 / x
    assert check(f, x, grad, assert_passed=False).verdict == "wrong"
    assert check(f, x, grad, threshold=1e-4).passed
    assert check(f, x, grad, atol=1e-4).passed
    assert check(f, x, grad, atol=1e-7, assert_passed=False).verdict == "wrong"


@pytest.mark.parametrize(("atol", "verdict"), [(1e-4, "passed"), (1e-9, "wrong")])
def test_threshold_and_floor_of_a_pair(atol, verdict):
    pair = (lambda x: (np.log(x + 1e-6), x)), lambda d, x: d / x
    assert check_pair(*pair, np.array([0.5, 1.0, 2.0]), atol=atol, assert_passed=False).verdict == verdict
    assert check_pair(*pair, np.array([0.5, 1.0, 2.0]), threshold=1e-4).passed


# Penalties that the complex step loses


def logistic(w):
    z = X @ w
    return (np.log1p(np.exp(-np.where(z.real > 0, z, -z))) + np.where(z.real > 0, z, 0) - Y * z).sum()


def logistic_grad(w):
    return X.T @ (1 / (1 + np.exp(-X @ w)) - Y)


PENALTIES = {
    "L1": (lambda w: np.abs(w).sum(), np.sign),
    "norm": (lambda w: np.linalg.norm(w) ** 2, lambda w: 2 * w),
}


@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_that_loses_imaginary_parts_is_judged_at_any_strength(name, strength):
    penalty, slope = PENALTIES[name]

    def f(w):
        return logistic(w) + strength * penalty(w)

    assert directional_check(f, W, logistic_grad(W) + strength * slope(W)).passed
    assert directional_check(f, W, logistic_grad(W), assert_passed=False).verdict == "wrong"
    pair = (lambda w: (f(w), w)), lambda d, w: d * (logistic_grad(w) + strength * slope(w))
    assert check_pair(*pair, W).passed
    assert check_pair(pair[0], lambda d, w: d * logistic_grad(w), W, assert_passed=False).verdict == "wrong"


def test_what_the_confirmation_cannot_see_is_stated():
    row = directional_check(logistic, W, logistic_grad(W)).rows[0]
    assert 0 < row.details["confirmed"] < 1e-8
    assert 0 < check_pair(lambda w: (logistic(w), w), lambda d, w: d * logistic_grad(w), W).rows[0].details["confirmed"] < 1e-8


# Where the complex step cannot go


def zeros_buffer(x):
    out = np.zeros(x.shape)
    for i in range(len(x)):
        out[i] = x[i] ** 2
    return out, x


def variance(x):
    return x.var(axis=0), x


def refuses(x):
    if np.iscomplexobj(x):
        raise ValueError("Complex data not supported")
    return x**2, x


class TypingError(Exception):
    """As compiled code raises it."""


def compiled(x):
    if np.iscomplexobj(x):
        raise TypingError("Failed in nopython mode pipeline\nno matching signature")
    return x**2, x


FALLBACKS = {
    "zeros": (zeros_buffer, lambda d, x: 2 * d * x, "Casting complex values to real"),
    "var": (variance, lambda d, x: 2 * d * (x - x.mean(axis=0)) / len(x), "f loses imaginary parts|returns a real number"),
    "refuses": (refuses, lambda d, x: 2 * d * x, "Complex data not supported"),
    "compiled": (compiled, lambda d, x: 2 * d * x, "Failed in nopython mode pipeline$|Failed in nopython mode pipeline;"),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_an_argument_that_the_complex_step_refuses_is_judged_by_differences(name):
    forward, backward, reason = FALLBACKS[name]
    row = check_pair(forward, backward, X).rows[0]
    assert row.threshold == 1e-8
    assert row.note.startswith("by differences, since ")
    assert "\n" not in row.note
    with pytest.raises(AssertionError, match=reason.split("$")[0]):
        check_pair(forward, lambda d, x: (1 + 1e-6) * backward(d, x), X)


def test_one_refused_argument_does_not_discard_the_others():
    def forward(x, gain):
        return np.abs(x) * gain, (x, gain)

    def backward(dout, cache):
        x, gain = cache
        return dout * np.sign(x) * gain, (dout * np.abs(x)).sum(axis=0)

    report = check_pair(forward, backward, X, W)
    assert [row.threshold for row in report.rows] == [1e-8, 1e-12]


def test_gaussian_process_with_cholesky_and_slogdet():
    t = np.linspace(0, 3, 8)
    y = np.sin(t)

    def f(theta):
        K = np.exp(theta[0] - (t[:, None] - t) ** 2 / np.exp(2 * theta[1])) + np.exp(theta[2]) * np.eye(8)
        L = np.linalg.cholesky(K)
        return 0.5 * y @ np.linalg.solve(K, y) + np.log(np.diag(L)).sum()

    theta = np.array([0.1, -0.2, -9.0])
    D = (t[:, None] - t) ** 2
    E = np.exp(theta[0] - D / np.exp(2 * theta[1]))
    K = E + np.exp(theta[2]) * np.eye(8)
    a, inverse = np.linalg.solve(K, y), np.linalg.inv(K)
    dK = [E, E * 2 * D / np.exp(2 * theta[1]), np.exp(theta[2]) * np.eye(8)]
    grad = np.array([0.5 * (np.trace(inverse @ d) - a @ d @ a) for d in dK])
    assert_gradients(f, theta, grad)
    for check in CHECKS:
        assert check(f, theta, grad * np.array([1, 1.001, 1]), assert_passed=False).verdict == "wrong"


# Ties in pairs


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_at_a_tie_a_pair_may_have_any_slope_between_the_sides(slope):
    x = np.array([0.7, 0.0, -0.4, 0.0])
    pair = (lambda x: (np.where(x.real > 0, x, 0), x)), lambda d, x: d * np.where(x == 0, slope, x > 0)
    report = check_pair(*pair, x)
    assert slope == 0 or report.rows[0].details["ties"] == 2
    assert slope == 0 or "2 of 4 entries at a tie" in report.rows[0].note
    assert (check_pair(*pair, x, strict=True, assert_passed=False).verdict == "passed") is (slope == 0)
    worse = check_pair(pair[0], lambda d, x: d * np.where(x == 0, 1.5, x > 0), x, assert_passed=False)
    assert worse.verdict == "wrong"
    assert worse.rows[0].index in [(1,), (3,)]


@pytest.mark.parametrize(("share", "verdict"), [([1, 0], "passed"), ([0.5, 0.5], "passed"), ([1, 1], "wrong")])
def test_the_maximum_of_equal_entries(share, verdict):
    x = np.array([2.0, 2.0, 1.0])
    share = np.array([*share, 0.0])
    assert check_pair(lambda x: (x.max(), None), lambda d, _: d * share, x, assert_passed=False).verdict == verdict
    for check in CHECKS:
        assert check(lambda x: x.max(), x, share, assert_passed=False).verdict == verdict


def test_the_complex_step_of_a_scalar_function_passes_at_a_tie():
    np.testing.assert_array_equal(complex_step_grad(lambda x: np.where(x.real > 0, x, 0).sum(), np.zeros(3)), 0)
    for slope in (0.0, 0.4, 1.0):
        row = directional_check(lambda x: np.where(x.real > 0, x, 0).sum(), np.zeros(3), np.full(3, slope)).rows[0]
        assert slope == 0 or "3 entries at ties" in row.note or "a tie" in row.note
