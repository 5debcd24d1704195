"""Differences in arrays of many entries: groups that move together, and each entry by itself where they speak against it."""

import numpy as np
import pytest

from npvae.checking.gradcheck import check_pair, fd_check
from npvae.checking.gradcheck.entries import GROUP

RNG = np.random.default_rng(12)
SHAPE = (20, 50)
THETA = np.asfortranarray(RNG.standard_normal(SHAPE))
WEIGHTS = RNG.uniform(0.5, 2, SHAPE)


def loss(theta):
    return (WEIGHTS * np.tanh(theta)).sum()


def gradient():
    return WEIGHTS * (1 - np.tanh(THETA) ** 2)


def counted(f):
    """f, and a list with one entry for each call of it."""
    calls = []

    def counting(*args):
        calls.append(1)
        return f(*args)

    return counting, calls


def test_a_right_gradient_of_many_entries_takes_about_one_call_an_entry():
    f, calls = counted(loss)
    row = fd_check(f, THETA, gradient()).rows[0]
    assert len(calls) < 2 * THETA.size  # each by itself takes 6
    assert 0 < row.error < 1e-8
    f, calls = counted(lambda x: np.tanh(x.real.astype(np.float64)))
    row = check_pair(lambda x: (f(x), x), lambda dout, x: dout * (1 - np.tanh(x) ** 2), THETA).rows[0]
    assert "by differences" in row.note
    assert len(calls) < 4 * THETA.size


def test_small_arrays_are_looked_at_entry_by_entry():
    f, calls = counted(lambda theta: (theta**2).sum())
    theta = np.linspace(1, 2, GROUP)
    fd_check(f, theta, 2 * theta)
    few = len(calls)
    assert 6 * GROUP <= few < 6 * GROUP + 10
    theta = np.linspace(1, 2, GROUP + 1)
    fd_check(f, theta, 2 * theta)
    assert len(calls) - few < 40


@pytest.mark.parametrize("k", [(0, 0), (7, 31), (19, 49)])
@pytest.mark.parametrize("factor", [1.001, 0.0, -1.0])
def test_one_wrong_entry_of_many_is_named(k, factor):
    grad = gradient()
    right = grad[k]
    grad[k] *= factor
    report = fd_check(loss, THETA, grad, assert_passed=False)
    assert report.wrong
    row = report.rows[0]
    assert row.index == k
    assert row.analytic == grad[k]
    assert abs(row.reference - right) < 1e-6 * right
    assert row.error == pytest.approx(abs(right - grad[k]) / (2 * np.linalg.norm(gradient())), rel=0.01)


def test_wrong_entries_that_add_up_to_nothing_do_not_hide_each_other():
    grad = gradient()
    grad.flat[100] += 0.01
    grad.flat[101] -= 0.01
    assert fd_check(loss, THETA, grad, assert_passed=False).wrong


def test_a_gradient_that_is_wrong_everywhere_is_explained():
    assert "2 times the right one" in str(fd_check(loss, THETA, 2 * gradient(), assert_passed=False))
    assert "opposite sign" in str(fd_check(loss, THETA, -gradient(), assert_passed=False))


def test_the_error_of_groups_is_that_of_their_entries():
    """Errors of 1e-7 everywhere are below the threshold; the row shows their size all the same."""
    grad = gradient()
    noise = 1e-7 * RNG.standard_normal(SHAPE) * np.linalg.norm(grad) / np.sqrt(grad.size)
    row = fd_check(loss, THETA, grad + noise).rows[0]
    assert row.error == pytest.approx(np.linalg.norm(noise) / (2 * np.linalg.norm(grad)), rel=0.5)


@pytest.mark.parametrize(("slope", "verdict"), [(0.3, "passed"), (1.0, "passed"), (3.0, "wrong")])
def test_a_tie_among_many_entries_is_seen(slope, verdict):
    theta = RNG.uniform(1, 2, 200)
    theta[77] = 0.0
    grad = np.ones(200)
    grad[77] = slope
    report = fd_check(lambda t: np.abs(t).sum(), theta, grad, assert_passed=False)
    assert report.verdict == verdict
    if verdict == "passed":
        assert report.rows[0].details["ties"] == 1
        assert "(77,)" in report.rows[0].note


def test_kinks_at_all_distances_from_the_entries_of_a_group():
    theta = np.geomspace(1e-9, 1, 100) * RNG.choice([-1, 1], 100)
    row = fd_check(lambda t: np.abs(t).sum(), theta, np.sign(theta)).rows[0]
    assert row.details["ties"] == row.details["left_out"] == 0
    assert row.error < 1e-6


def test_steps_that_cross_a_kink_of_the_user_s_own_are_left_out_of_groups_too():
    theta = RNG.uniform(1, 2, 40)
    report = fd_check(lambda t: np.maximum(t - 1, 0).sum(), theta, np.ones(40), kinks=lambda t: t - 1)
    assert report.rows[0].details["kink_distance"] == pytest.approx((theta - 1).min())


def test_nan_among_many_entries_is_no_pass():
    def broken(theta):
        return loss(theta) if theta[3, 3] == THETA[3, 3] else np.nan

    report = fd_check(broken, THETA, gradient(), assert_passed=False)
    assert report.rows[0].details["left_out"] == 1
    assert "1 of 1000 entries left out" in report.rows[0].note
