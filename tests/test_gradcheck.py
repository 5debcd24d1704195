"""The gradient checks: right gradients pass, wrong ones fail at the right entry, and unsuitable functions are refused."""

import dataclasses
import inspect
import json
import math
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from npvae.checking import gradcheck
from npvae.checking.gradcheck import (
    ComplexStepError,
    adjoint_test,
    check_pair,
    complex_step_grad,
    directional_check,
    fd_check,
    taylor_test,
)
from npvae.checking.gradcheck.derivatives import derivative
from npvae.ops import latent, layers, likelihood

CHECKS = [directional_check, taylor_test, fd_check]


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(6, 3)


def network(theta):
    """A smooth scalar function of two tensors."""
    h = np.tanh(X @ theta["W"] + theta["b"])
    return (h * h * h).sum() + np.exp(h).sum()


def network_grad(theta):
    h = np.tanh(X @ theta["W"] + theta["b"])
    dpre = (3 * h * h + np.exp(h)) * (1 - h * h)
    return {"W": X.T @ dpre, "b": dpre.sum(axis=0)}


def network_theta(seed=2):
    return {"W": normal(3, 5, seed=seed), "b": normal(5, seed=seed + 1)}


def cubic(x):
    return (x * x * x).sum() / 3


def cubic_grad(x):
    return x * x


# Right gradients


def test_complex_step_gradient_is_exact_to_rounding():
    x = normal(3, 4)
    np.testing.assert_allclose(complex_step_grad(cubic, x), cubic_grad(x), rtol=1e-15, atol=0)
    assert complex_step_grad(lambda x: np.exp(x), np.array(1.0)) == pytest.approx(math.e, rel=1e-15)


def test_complex_step_reaches_its_1e_12_where_finite_differences_do_not():
    def f(x):  # Squire & Trapp's own example, at their point 1.5
        return (np.exp(x) / (np.cos(x) ** 3 + np.sin(x) ** 3)).sum()

    assert complex_step_grad(f, np.array([1.5]))[0] == pytest.approx(3.622033700716, rel=1e-12)


@pytest.mark.parametrize("check", CHECKS)
def test_right_gradients_pass_for_arrays_and_dicts(check):
    theta, x = network_theta(), normal(4, 2)
    for report in (check(network, theta, network_grad(theta)), check(cubic, x, cubic_grad(x))):
        assert report.passed
        assert report.error <= report.threshold
    assert "\n" not in str(report)
    assert "passed" in str(report)


def test_directional_check_reports_each_tensor_and_all_jointly():
    theta = network_theta()
    rows = directional_check(network, theta, network_grad(theta)).rows
    assert [row.name for row in rows] == ["W", "b", "jointly"]
    assert [row.shape for row in rows] == [(3, 5), (5,), (20,)]
    assert [row.index for row in rows] == [None] * 3  # no entry is blamed


def test_a_zero_gradient_is_right_to_the_last_bit():
    zeros = np.zeros(3)
    assert directional_check(lambda x: 0 * x.sum(), zeros, zeros).error == 0
    assert check_pair(lambda x: (0 * x, None), lambda dout, cache: 0 * dout, zeros).error == 0
    assert fd_check(lambda x: 0 * x.sum(), zeros, zeros).error == 0


def test_a_passing_row_is_one_line():
    x = np.array([0.5, 2.0])
    text = str(directional_check(cubic, x, cubic_grad(x)))
    assert text.startswith("directional_check: passed, theta (2,), error ")
    assert text.endswith(" <= 1e-13")
    assert str(taylor_test(cubic, x, cubic_grad(x))).endswith("<= 1e-01, order 2.00, with gradient x 1.01 1.00")


def test_the_complex_step_does_not_move_the_real_part():
    """At the kink of max(x, 0), written with the slope 1 there."""

    def f(x):
        return np.where(x.real >= 0, x, 0).sum()

    assert complex_step_grad(f, np.zeros(3)).tolist() == [1, 1, 1]
    assert directional_check(f, np.zeros(3), np.ones(3)).passed


def test_the_taylor_test_observes_order_2_and_its_control_order_1():
    theta = network_theta()
    row = taylor_test(network, theta, network_grad(theta)).rows[0]
    assert row.shape == (20,)
    details = row.details
    assert details["order"] == pytest.approx(2, abs=0.02)
    assert details["control_order"] == pytest.approx(1, abs=0.02)


def test_the_taylor_test_of_a_quadratic_and_of_a_linear_function():
    x, a = normal(5), normal(5, seed=3)
    assert taylor_test(lambda x: (x * x).sum(), x, 2 * x).rows[0].details["order"] == pytest.approx(2, abs=0.02)
    report = taylor_test(lambda x: (a * x).sum(), x, a)
    assert "f is linear along v" in str(report)
    assert report.rows[0].details["control_order"] == pytest.approx(1, abs=0.02)
    assert not taylor_test(lambda x: (a * x).sum(), x, 1.001 * a, assert_passed=False).passed


def test_the_steps_of_the_taylor_test():
    """Half decades from 1e-2 to 1e-8 and eight tiny ones that show the rounding, in two directions of theta's size."""
    visited = []

    def f(theta):
        visited.append(theta.item() - 3e5)
        return theta.sum() ** 2

    taylor_test(f, np.full(1, 3e5), np.full(1, 6e5))
    sizes = np.unique([abs(step) / 1e-2 for step in visited if abs(step) > 1.4e3])
    assert len(sizes) == 2
    for size in sizes:
        assert 1.5e5 <= size <= 6e5
        assert 1.5e5 <= size <= 6e5
        steps = np.abs(visited) / size
        for step in [*(10 ** (-k / 2) for k in range(4, 17)), *(k * 1e-13 for k in range(8, 0, -1))]:
            assert np.any(np.abs(steps - step) <= 1e-8 * step + 1e-15), step


@pytest.mark.parametrize("power", [2.5, 4])
def test_an_order_above_2_is_no_error(power):
    row = taylor_test(lambda x: (x + np.abs(x) ** power).sum(), np.zeros(1), np.ones(1)).rows[0]
    assert row.details["order"] == pytest.approx(power, abs=0.02)
    assert row.error == 0


def test_the_large_steps_of_the_taylor_test_may_leave_the_domain():
    x = np.full(4, 5e-4)
    assert taylor_test(lambda x: np.log(x).sum(), x, 1 / x).passed


def test_the_taylor_test_leaves_a_stationary_point_to_differences():
    report = taylor_test(lambda x: (x * x).sum(), np.zeros(4), np.zeros(4))
    assert "with gradient x 1.01 2.00; f'(v) = 0" in report.rows[0].note
    with pytest.raises(AssertionError, match=r"f'\(v\) = 0 \+-"):
        taylor_test(lambda x: (x * x).sum(), np.zeros(4), np.full(4, 1e-9))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_adjoint_test_accepts_a_transpose_in_both_precisions(dtype):
    W = normal(7, 4).astype(dtype)
    report = adjoint_test(lambda v: v @ W, lambda w: w @ W.T, (50, 7), dtype)
    assert report.threshold == {np.float64: 1e-14, np.float32: 1e-6}[dtype]


# Pairs of any arity


def sum_and_product_forward(x, y, n, mode, labels):
    assert (n, mode, labels.dtype.kind) == (2, "fast", "i")
    return (x + y, x * y * y, 3), (x, y)


def sum_and_product_backward(dtotal, dproduct, cache):
    x, y = cache
    return dtotal + dproduct * y * y, dtotal + dproduct * 2 * x * y


ARGS = (normal(2, 3), normal(2, 3, seed=4), 2, "fast", np.arange(3))


def test_a_pair_with_tuple_outputs_and_arguments_that_are_passed_through():
    report = check_pair(sum_and_product_forward, sum_and_product_backward, *ARGS)
    assert [row.name for row in report.rows] == ["x", "y"]
    assert report.threshold == 1e-12
    assert len({len(line.split("ok")[0]) for line in str(report).splitlines()[2:]}) == 1  # columns are aligned


def test_wrt_by_name_and_by_position_and_gradients_of_none():
    args = normal(4, 2), normal(4, 2, seed=3), normal(3, 4, 2, seed=4)
    pair = latent.reparameterize_forward, latent.reparameterize_backward
    for wrt in (("mu", "logvar"), (0, 1)):
        assert [row.name for row in check_pair(*pair, *args, wrt=wrt).rows] == ["mu", "logvar"]
    with pytest.raises(ValueError, match=r"2 gradients for mu, logvar, eps: say which by wrt"):
        check_pair(*pair, *args)
    report = check_pair(layers.dense_forward, lambda d, c: layers.dense_backward(d, c, need_dx=False),
                        normal(4, 3), normal(3, 2), normal(2), "tanh")  # fmt: skip
    assert [row.name for row in report.rows] == ["W", "b"]
    nll = likelihood.gaussian_nll_forward, likelihood.gaussian_nll_backward, normal(4, 3), normal(4, 3, seed=2), 0.3
    assert check_pair(*nll, wrt="mean").passed
    with pytest.raises(ValueError, match=r"2 gradients for mu: say which by wrt"):
        check_pair(*pair, *args, wrt="mu")
    with pytest.raises(ValueError, match="no gradient to check"):
        check_pair(layers.relu_forward, lambda dh, cache: None, normal(3))


def test_only_floating_point_outputs_have_an_upstream_gradient():
    report = check_pair(lambda x: ((x * x, x.real > 0, 3), x), lambda dout, x: 2 * dout * x, normal(4))
    assert report.passed


def test_argument_names_of_a_forward_that_takes_any_number():
    report = check_pair(lambda *xs: (sum(xs), len(xs)), lambda d, n: (d,) * n, X, X, X)
    assert [row.name for row in report.rows] == ["xs", "arg1", "arg2"]


# Wrong gradients


def scaled(g):
    return 0.9 * g


def sign_flipped(g):
    return -g


def one_entry_off_by_half(g):
    g = g.copy()
    g[2, 1] *= 1.5
    return g


def off_by_1e_8(g):
    return g * (1 + 1e-8)


def transposed(g):
    return g.T


def zero(g):
    return 0 * g


def nan_entry(g):
    g = g.copy()
    g[2, 1] = np.nan
    return g


def single_precision(g):
    return g.astype(np.float32)


MISTAKES = [scaled, sign_flipped, one_entry_off_by_half, off_by_1e_8, transposed, zero, nan_entry, single_precision]
ONE_ENTRY = (one_entry_off_by_half, nan_entry)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("check", CHECKS)
def test_wrong_gradients_of_a_scalar_function_fail(check, mistake):
    theta = network_theta()
    grad = network_grad(theta)
    grad["W"] = mistake(grad["W"])
    if mistake is off_by_1e_8 and check is not directional_check:
        assert check(network, theta, grad).passed  # below the sight of real differences, as the docstrings say
        return
    if mistake is single_precision:
        assert "compared at its precision" in str(check(network, theta, grad)) or check is taylor_test
        return
    with pytest.raises(AssertionError, match=check.__name__ + ": FAILED"):
        check(network, theta, grad)
    report = check(network, theta, grad, assert_passed=False)
    assert report.verdict == "wrong"
    assert not report.error <= report.threshold
    assert "WRONG" in str(report)
    if check is not taylor_test:
        wrong = [row.name for row in report.rows if not row.passed]
        assert wrong[0] == "W"
        assert "b" not in wrong
        if mistake in ONE_ENTRY:
            assert report.rows[0].index == (2, 1)
            assert "(2, 1)" in str(report)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_gradients_of_a_pair_fail_at_the_right_argument(mistake):
    def backward(dpre, cache):
        dx, dW, db = layers.affine_backward(dpre, cache)
        return dx, mistake(dW), db

    args = normal(4, 3), normal(3, 2, seed=3), normal(2, seed=4)
    strict = mistake is single_precision  # otherwise that is noted, and compared at its precision
    with pytest.raises(AssertionError, match="check_pair affine_forward: FAILED"):
        check_pair(layers.affine_forward, backward, *args, strict=strict)
    report = check_pair(layers.affine_forward, backward, *args, assert_passed=False, strict=strict)
    assert {row.name for row in report.rows if not row.passed} == {"W"}
    report = dataclasses.replace(report, rows=sorted(report.rows, key=lambda row: "xWb".index(row.name)))
    assert [row.passed for row in report.rows] == [True, False, True]
    if mistake in ONE_ENTRY:
        assert report.rows[1].index == (2, 1)
    if mistake is one_entry_off_by_half:
        line = next(line for line in str(report).splitlines() if line.lstrip().startswith("W "))
        assert "(2, 1)" in line
        assert "WRONG" in line
        assert report.rows[1].analytic == pytest.approx(1.5 * report.rows[1].reference, rel=1e-12)


def test_directional_check_finds_a_wrong_entry_of_a_large_tensor():
    x = normal(100, 70)
    grad = cubic_grad(x)
    grad[57, 31] *= 1 + 1e-6
    row = directional_check(cubic, x, grad, assert_passed=False).rows[0]
    assert row.index == (57, 31)
    assert row.reference == pytest.approx(x[57, 31] ** 2, rel=1e-13)


def test_the_worst_of_the_directions_counts():
    x = normal(4)
    errors = [
        directional_check(cubic, x, one_entry_of(x), n_directions=n, seed=3, assert_passed=False).error for n in range(1, 9)
    ]
    assert errors == sorted(errors)
    assert errors[-1] > errors[0]


def one_entry_of(x):
    return cubic_grad(x) * np.array([1, 1, 1.1, 1])


def test_missing_and_surplus_gradients_fail():
    theta = network_theta()
    grad = network_grad(theta)
    with pytest.raises(AssertionError, match=r"c .*WRONG +gradient is float64 \(\), argument is nothing"):
        directional_check(network, theta, {**grad, "c": 1.0})
    with pytest.raises(AssertionError, match=r"b .*WRONG +gradient is nothing, argument is float64 \(5,\)"):
        directional_check(network, theta, {"W": grad["W"]})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "mistake",
    [scaled, sign_flipped, one_entry_off_by_half, zero, nan_entry, lambda g: g[:, :2], lambda g: g.astype(np.float16)],
)
def test_adjoint_test_refuses_what_is_not_the_transpose(mistake, dtype):
    W = normal(3, 4).astype(dtype)
    with pytest.raises(AssertionError, match="adjoint_test: FAILED"):
        adjoint_test(lambda v: v @ W, lambda w: mistake(w @ W.T), (5, 3), dtype)


def test_adjoint_test_refuses_an_affine_map():
    with pytest.raises(AssertionError, match="leave out its bias"):
        adjoint_test(lambda v: 2 * v + 1, lambda w: 2 * w, (3,))


# Thresholds are those stated


@pytest.mark.parametrize(("factor", "passes"), [(0.8, True), (1.25, False)])
def test_thresholds_decide_where_they_say(factor, passes):
    one = np.array([1.0])
    f, right = (lambda x: x.sum()), np.array([1.0])

    def off(threshold):
        return right * (1 + factor * threshold)

    pair = check_pair(lambda x: (x, None), lambda d, c: d * off(1e-12), one, assert_passed=False)
    directional = directional_check(f, one, off(1e-13), assert_passed=False)
    fd = fd_check(f, one, off(2e-6), assert_passed=False)  # the norm-wise error of 1 and 1 + e is e/2
    adjoint = adjoint_test(lambda v: v, lambda w: w * off(1e-14), (1,), assert_passed=False)
    single = adjoint_test(lambda v: v, lambda w: w * off(1e-6).astype(np.float32), (1,), np.float32, assert_passed=False)
    assert [r.threshold for r in (pair, directional, fd, adjoint, single)] == [1e-12, 1e-13, 1e-6, 1e-14, 1e-6]
    assert [r.passed for r in (pair, directional, fd, adjoint, single)] == [passes] * 5


@pytest.mark.parametrize(("power", "order_decides"), [(1.95, True), (1.85, False)])
def test_where_the_taylor_order_is_below_1_9_differences_decide(power, order_decides):
    row = taylor_test(lambda x: (x + np.abs(x) ** power).sum(), np.zeros(1), np.ones(1)).rows[0]
    assert row.details["order"] == pytest.approx(power, abs=0.02)
    assert ("f'(v)" not in row.note) is order_decides
    assert row.error == (pytest.approx(2 - power, abs=0.02) if order_decides else 0)


def test_an_error_at_its_threshold_passes():
    assert gradcheck.Row("x", (), 1e-12, 1e-12).passed
    assert not gradcheck.Row("x", (), np.nextafter(1e-12, 1), 1e-12).passed


def test_steps_and_defaults_are_those_documented():
    assert gradcheck.STEP == 1e-20
    floors = {"threshold": None, "atol": 0.0}
    defaults = {
        check_pair: {"wrt": None, "seed": 0, "strict": False, **floors},
        directional_check: {"grad": None, "n_directions": 5, "seed": 0, **floors},
        taylor_test: {"grad": None, "seed": 0, **floors},
        adjoint_test: {"dtype": np.float64, "seed": 0},
        fd_check: {"grad": None, "kinks": None, **floors},
    }
    for check, expected in defaults.items():
        found = {p.name: p.default for p in inspect.signature(check).parameters.values() if p.default is not p.empty}
        assert found == {**expected, "assert_passed": True}


@pytest.mark.parametrize("record", [gradcheck.Row("x", (), 0.0, 1e-12), gradcheck.Report("check", [])])
def test_a_result_is_immutable(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.passed = True


# Purity


def changes_an_argument(x):
    h = x * x
    x[0] = 7.0
    return h, np.array(x)


def test_a_forward_that_modifies_its_argument_fails():
    x = normal(3)
    before = x.copy()
    with pytest.raises(AssertionError, match="forward modifies x"):
        check_pair(changes_an_argument, lambda dh, x: 2 * dh * x, x)
    np.testing.assert_array_equal(x, before)  # the caller's array is never at risk


def test_a_forward_that_draws_its_own_noise_fails():
    rng = np.random.default_rng(0)

    def dropout_forward(x):
        kept = rng.random(x.shape) > 0.5
        return x * kept, kept

    report = check_pair(dropout_forward, lambda dout, kept: dout * kept, normal(20), assert_passed=False)
    assert report.verdict == "inconclusive"
    assert report.problems[0].startswith("inconclusive: forward gives other values when called again: it draws noise by itself")


def square_forward(x):
    return x * x, {"x": x, "calls": 0}


def writes_into_dout(dh, cache):
    dh *= 2
    return dh * cache["x"]


def writes_into_x(dh, cache):
    grad = 2 * dh * cache["x"]
    cache["x"][0] += 1
    return grad


def counts_its_calls(dh, cache):
    cache["calls"] += 1
    return 2 * dh * cache["x"] * cache["calls"]


@pytest.mark.parametrize(
    ("backward", "text"),
    [
        (writes_into_dout, "backward modifies dout"),
        (writes_into_x, "backward modifies x"),
        (counts_its_calls, "a second backward from the same cache gives other bits"),
    ],
)
def test_an_impure_backward_fails_even_where_its_gradient_is_right(backward, text):
    report = check_pair(square_forward, backward, normal(3), assert_passed=False)
    assert report.rows[0].passed
    assert not report.passed
    assert text in str(report)
    assert text in report.as_dict()["problems"]


@pytest.mark.parametrize("shapes", [[(2, 3), (3, 2)], [(3, 2), (2, 3)]])
def test_a_second_gradient_of_another_shape_fails(shapes):
    def backward(dh, cache):
        cache["calls"] += 1
        return (2 * dh * cache["x"]).reshape(shapes[cache["calls"] - 1])

    report = check_pair(square_forward, backward, normal(*shapes[0]), assert_passed=False)
    assert "a second backward from the same cache gives other bits" in report.problems


# What the complex step cannot judge


def into_a_real_array(x):
    out = np.zeros(x.shape)
    out[...] = x * x
    return out.sum()


TRAPS = {
    "abs": lambda x: np.abs(x).sum(),
    "abs times x": lambda x: (np.abs(x) * x).sum(),
    "abs in one entry": lambda x: cubic(x[1:]) + np.abs(x[0]) * x[0],
    "norm": lambda x: np.linalg.norm(x),
    "conj": lambda x: (x * np.conj(x)).sum(),
    "sign": lambda x: (np.sign(x) * x * x).sum(),
    "sign alone": lambda x: (np.sign(x) + x).sum(),
    "real": lambda x: (x.real * x).sum(),
    "only real": lambda x: (x.real * x.real).sum(),
    "real array": into_a_real_array,
    "math": lambda x: math.exp(x[0]) + x.sum(),
    "ordering by modulus": lambda x: np.where(np.abs(x) > 1, x, np.abs(x)).sum(),
}


@pytest.mark.parametrize("name", TRAPS)
def test_functions_that_lose_the_imaginary_part_are_refused(name):
    with pytest.raises(ComplexStepError, match=r"abs, norm, conj, sign.*branch on x\.real"):
        complex_step_grad(TRAPS[name], normal(4))


@pytest.mark.parametrize("name", TRAPS)
def test_functions_that_lose_the_imaginary_part_are_judged_by_differences(name):
    x, f = normal(4), TRAPS[name]
    right = np.array([derivative(lambda h, k=k: f(x + h * np.eye(4)[k]), 1.0).value for k in range(4)])
    report = directional_check(f, x, right)
    assert report.rows[0].note.startswith("by differences, since ")
    assert report.threshold <= 1e-8
    wrong = right * np.array([1, 1, 1 + 1e-6, 1])
    assert directional_check(f, x, wrong, assert_passed=False).rows[0].index == (2,)
    assert not directional_check(f, x, np.zeros(4), assert_passed=False).passed  # what a lost imaginary part would confirm


def test_a_real_answer_is_refused_by_the_complex_step_alone():
    with pytest.raises(ComplexStepError, match="returns a real number"):
        complex_step_grad(lambda x: 3.0, normal(4))
    assert "f returns a real number" in str(directional_check(lambda x: 3.0, normal(4), np.zeros(4)))
    assert directional_check(lambda x: 3.0, normal(4), np.ones(4), assert_passed=False).verdict == "wrong"


def test_a_complex_warning_is_explained_even_where_the_user_ignores_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ComplexStepError, match="does not run on complex numbers: Casting"):
            complex_step_grad(into_a_real_array, normal(4))


def test_a_function_without_a_complex_version_is_explained():
    with pytest.raises(ComplexStepError, match=r"does not run on complex numbers: .*floor"):
        complex_step_grad(lambda x: (x - np.floor(x)).sum(), normal(4))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize(("lost", "refused"), [(1e-15, False), (1e-10, True), (4e-4, True)])
def test_a_lost_part_is_seen_from_1e_10_of_the_slope_on(lost, refused, scale):
    """Whatever the scale of f."""

    def f(x):
        return scale * (x + lost * x.real).sum()

    x = 1e-3 * normal(4)
    if refused:
        with pytest.raises(ComplexStepError, match="loses imaginary parts"):
            complex_step_grad(f, x)
    else:
        np.testing.assert_allclose(complex_step_grad(f, x), scale, rtol=1e-14)


def test_sound_functions_are_not_refused_for_rounding_or_opposite_kinks():
    def opposite(x):
        r = np.where(x.real > 0, x, 0)
        return r[0] - r[1]

    np.testing.assert_array_equal(complex_step_grad(opposite, np.zeros(2)), 0)
    assert complex_step_grad(lambda x: 1e-6 * x.sum() + 1e6, normal(3)) == pytest.approx([1e-6] * 3, rel=1e-12)


def test_traps_inside_a_pair_are_judged_by_differences():
    pair = (lambda x: (np.abs(x) + 0 * x, np.sign(x))), lambda d, s: d * s
    row = check_pair(*pair, normal(3)).rows[0]
    assert row.threshold == 1e-8
    assert "by differences, since the complex step gives a slope of 0, finite differences give" in row.note
    assert "f loses imaginary parts" in row.note
    assert check_pair(pair[0], lambda d, s: d * s * (1 + 1e-7), normal(3), assert_passed=False).verdict == "wrong"


@pytest.mark.parametrize("f", [lambda x: np.maximum(x, 0).sum(), lambda x: np.where(x.real > 0, x, 0).sum()])
@pytest.mark.parametrize("x", [normal(5), np.zeros(5), np.array([1e-7, -1e-7, 3e-6, 0.0, 1.0])])
def test_kinks_are_not_mistaken_for_lost_imaginary_parts(f, x):
    complex_step_grad(f, x)


# Inputs


@pytest.mark.parametrize("theta", [normal(3).astype(np.float32), normal(3) + 0j, np.zeros((0, 3))])
def test_only_float64_is_accepted(theta):
    for check in CHECKS:
        with pytest.raises(ValueError, match=r"theta must be a float64 array.*astype\(np.float64\)"):
            check(cubic, theta, theta)
    with pytest.raises(ValueError, match="x must be a float64 array"):
        complex_step_grad(cubic, theta)
    with pytest.raises(ValueError, match=r"pre must be a float64|no argument is a float64 array"):
        check_pair(layers.relu_forward, layers.relu_backward, theta)


def test_other_misuse_is_named():
    with pytest.raises(ValueError, match=r"scalar, got an array of shape \(3,\)"):
        complex_step_grad(lambda x: x * x, normal(3))
    with pytest.raises(ValueError, match=r"scalar, got an array of shape \(3,\)"):
        fd_check(lambda x: x * x, normal(3), normal(3))
    with pytest.raises(ValueError, match="float32 or float64, got int64"):
        adjoint_test(lambda v: v, lambda w: w, (3,), np.int64)


@pytest.mark.parametrize("check", CHECKS)
def test_nan_fails_wherever_it_comes_from(check):
    x = normal(3)
    with pytest.raises(AssertionError, match=r"\(1,\) .*nan.*gradient is not finite"):
        check(cubic, x, np.array([1.0, np.nan, 1.0]))
    with pytest.raises(AssertionError, match="not finite"):
        check(cubic, x, np.array([1.0, np.inf, -np.inf]))
    with pytest.raises(AssertionError, match="nan"):
        check(lambda x: cubic(x) + np.nan, x, cubic_grad(x))


def test_a_pair_that_gives_nan_fails():
    with pytest.raises(AssertionError, match="WRONG"):
        check_pair(lambda x: (x * np.nan, None), lambda d, cache: d, normal(3))


def test_reports_are_json_able_also_with_nan():
    theta = network_theta()
    bad = {"W": nan_entry(network_grad(theta)["W"]), "b": network_grad(theta)["b"]}
    for check in CHECKS:
        for grad in (network_grad(theta), bad):
            report = check(network, theta, grad, assert_passed=False)
            plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
            assert plain == report.as_dict()
            assert plain["passed"] is report.passed
            assert len(plain["rows"]) == len(report.rows)
    assert plain["rows"][0]["index"] == [2, 1]
    assert plain["error"] == "nan"


# Kinks


def rectified(x):
    return np.where(x.real > 0, x * x + x, 0).sum()


def rectified_grad(x):
    return np.where(x > 0, 2 * x + 1, 0)


KINKS = pytest.mark.parametrize("kinks", [None, lambda x: x])


@KINKS
@pytest.mark.parametrize("at", [1e-6, -3e-6, 1e-5 / 3, 2.5e-6, -9e-6, 1.1e-5, 1e-9, -1e-9])
def test_steps_get_smaller_until_no_kink_lies_within_them(kinks, at):
    x = np.array([0.7, -0.4, at, 1.2])
    report = fd_check(rectified, x, rectified_grad(x), kinks)
    assert report.rows[0].details["ties"] == 0
    for k in range(4):
        wrong = rectified_grad(x)
        wrong[k] += 0.1
        assert fd_check(rectified, x, wrong, kinks, assert_passed=False).rows[0].index == (k,)


@pytest.mark.parametrize(("kinks", "at"), [(None, 0.0), (lambda x: x, 0.0), (None, 1e-15)])
@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_at_a_tie_any_slope_between_the_two_sides_passes_and_is_counted(kinks, at, slope):
    x = np.array([0.7, -0.4, at, 1.2])
    grad = rectified_grad(x)
    grad[2] = slope
    report = fd_check(rectified, x, grad, kinks)
    assert report.rows[0].details["ties"] == 1
    assert "1 of 4 entries at a tie, slopes " in str(report)
    assert f"gradient {slope:.4g} lies between" in str(report)


@KINKS
@pytest.mark.parametrize("slope", [-0.1, 1.1])
def test_at_a_tie_other_slopes_are_wrong(kinks, slope):
    x = np.array([0.7, -0.4, 0.0, 1.2])
    grad = rectified_grad(x)
    grad[2] = slope
    assert fd_check(rectified, x, grad, kinks, assert_passed=False).rows[0].index == (2,)


def test_ties_that_are_counted_twice_are_wrong():
    """Each of two equal entries gets the whole gradient of their maximum."""
    x = np.array([2.0, 2.0, 1.0])
    assert fd_check(np.max, x, np.array([1.0, 0.0, 0.0])).passed
    assert fd_check(np.max, x, np.array([0.5, 0.5, 0.0])).passed
    with pytest.raises(AssertionError, match=r"ties counted more than once: moved together they give 1, .* add up to 2"):
        fd_check(np.max, x, np.array([1.0, 1.0, 0.0]))


def test_curvature_and_rounding_are_not_mistaken_for_kinks():
    x = normal(8)
    assert fd_check(lambda x: cubic(x) + 1e4, x, cubic_grad(x)).rows[0].details["ties"] == 0
    t = np.array([1.0, 2.0, 3.0, 1e-4])
    assert fd_check(lambda t: np.log(t).sum(), t, 1 / t).rows[0].details["ties"] == 0
    with pytest.raises(AssertionError, match=r"\(3,\) .*WRONG"):
        fd_check(lambda t: np.log(t).sum(), t, np.array([1, 1, 1, 2]) / t)


def test_the_note_of_fd_check():
    x = np.array([0.7, 1e-6, -0.4])
    assert fd_check(rectified, x, rectified_grad(x), lambda x: x).rows[0].note == "nearest kink at 1.0e-06"
    assert fd_check(rectified, x, rectified_grad(x)).rows[0].note == ""
    assert fd_check(cubic, x, cubic_grad(x), lambda x: x - 2).rows[0].note == "nearest kink at 1.3e+00"


def test_kinks_of_a_dict_theta_are_a_function_of_the_dict():
    theta = {"W": normal(3, 2), "b": np.zeros(2)}
    x = np.vstack([X, np.zeros(3)])  # the row of zeros has pre = b = 0, on the kink

    def pre(theta):
        return x @ theta["W"] + theta["b"]

    def f(theta):
        return np.where(pre(theta).real > 0, pre(theta), 0).sum()

    dpre = (pre(theta) > 0).astype(float)
    report = fd_check(f, theta, {"W": x.T @ dpre, "b": dpre.sum(axis=0)}, pre)
    assert [row.details["ties"] for row in report.rows] == [0, 2]
    assert report.rows[0].details["kink_distance"] == 0


# No false alarms


def random_problem(seed):
    """A composition of smooth and kinked functions with scales from 1e-3 to 1e3, and its gradient by hand."""
    rng = np.random.default_rng(seed)
    n_in, n_out, batch = rng.integers(3, 7, 3)
    x, scale = rng.standard_normal((batch, n_in)), 10 ** rng.uniform(-3, 3)
    activation = ["tanh", "relu", "softplus", "silu", "sigmoid", "identity"][seed % 6]
    dh = rng.standard_normal((batch, n_out)) * scale

    def f(theta):
        return (dh * layers.dense_forward(x, theta["W"], theta["b"], activation)[0]).sum() + (theta["W"] * theta["W"]).sum()

    theta = {"W": rng.standard_normal((n_in, n_out)), "b": rng.standard_normal(n_out)}
    _, cache = layers.dense_forward(x, theta["W"], theta["b"], activation)
    _, dW, db = layers.dense_backward(dh, cache)
    return f, theta, {"W": dW + 2 * theta["W"], "b": db}


@pytest.mark.parametrize("check", CHECKS)
def test_no_false_alarm_in_200_random_problems(check):
    for seed in range(200):
        f, theta, grad = random_problem(seed)
        assert check(f, theta, grad, assert_passed=False).passed, seed


# npvae's own pairs


def own_pairs():
    x, W, b, eps = normal(4, 3), normal(3, 5, seed=2), normal(5, seed=3), normal(3, 4, 2, seed=4)
    mu, logvar, bits = normal(4, 2, seed=5), normal(4, 2, seed=6), (normal(4, 3, seed=7) > 0).astype(float)
    raw = np.hstack([mu, logvar])
    raw[0, 2], raw[1, 3] = 20.5, -31.0
    yield layers.affine_forward, layers.affine_backward, (x, W, b), None
    for name, pair in layers.ACTIVATIONS.items():
        yield *pair, (3 * x,), None
        yield layers.dense_forward, layers.dense_backward, (x, W, b, name), None
    yield latent.clip_logvar_forward, latent.clip_logvar_backward, (raw,), None
    yield latent.gaussian_kl_forward, latent.gaussian_kl_backward, (mu, logvar), None
    for noise in (eps, eps[0]):
        yield latent.reparameterize_forward, latent.reparameterize_backward, (mu, logvar, noise), ("mu", "logvar")
        yield latent.latent_forward, latent.latent_backward, (raw, noise), ("posterior",)
    for lead in ((), (2,)):
        logits = 5 * normal(*lead, 4, 3, seed=8)
        yield likelihood.bernoulli_nll_forward, likelihood.bernoulli_nll_backward, (logits, bits), ("logits",)
        yield likelihood.gaussian_nll_forward, likelihood.gaussian_nll_backward, (logits, x, 0.3), ("mean",)


@pytest.mark.parametrize("pair", list(own_pairs()), ids=lambda pair: pair[0].__name__)
def test_npvaes_own_pairs(pair):
    forward, backward, args, wrt = pair
    assert check_pair(forward, backward, *args, wrt=wrt).error < 1e-14


def test_the_example_of_the_module_docstring_runs(capsys):
    lines = gradcheck.__doc__.split("of your own:")[1].split("Every check")[0]
    exec("\n".join(line[4:] for line in lines.splitlines()), {"np": np, "check_pair": check_pair})
    assert "gain      (3,)" in capsys.readouterr().out


# The package


def test_public_names_exist_and_are_documented():
    for name in gradcheck.__all__:
        assert name.isupper() or getattr(gradcheck, name).__doc__, name


def test_a_copy_of_the_folder_works_by_itself(tmp_path):
    """It imports nothing but NumPy and the standard library, and itself by relative names."""
    folder = Path(gradcheck.__file__).parent
    shutil.copytree(folder, tmp_path / "my_checks", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import sys
import numpy as np
import numpy.random  # NumPy loads it when it is first used
before = set(sys.modules)
from my_checks import check_pair
print(check_pair(lambda x: (x * x, x), lambda dout, x: 2 * dout * x, np.array([1.0, 2.0])).passed)
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["True", "['my_checks']"]
