"""How backward is used: the comparisons of one call with another, each by itself."""

from types import SimpleNamespace

import numpy as np
import pytest

from npvae.checking.gradcheck import check_pair
from npvae.checking.gradcheck.usage import Calls, alike, difference, linear

X, Y = np.array([1.0, -2.0, 3.0]), np.array([[0.5, 1.0]])


def test_differences_are_taken_array_by_array():
    found = difference({"x": X, "y": Y}, {"x": X + 1, "y": 2 * Y})
    np.testing.assert_array_equal(found["grad.x"], [-1, -1, -1])
    np.testing.assert_array_equal(found["grad.y"], -Y)


@pytest.mark.parametrize(("one", "other"), [
    ((X, Y), (X,)), ((X,), (X, Y)), ((X,), (X[:2],)), ((X[:2],), (X,)), ((X,), (X[:, None],)), ((X[:, None],), (X,)),
])  # fmt: skip
def test_there_is_none_of_arrays_that_do_not_match(one, other):
    assert difference(one, other) is None
    assert not alike(one, other)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e3])
@pytest.mark.parametrize(("off", "same"), [(0.0, True), (0.9e-9, True), (1.1e-9, False), (1.0, False)])
def test_gradients_are_alike_to_a_billionth_of_the_largest(size, off, same):
    grads = np.array([size, 0.1 * size])
    assert alike(grads + np.array([0, off * size]), grads) == same
    assert alike((X, grads + np.array([0, off * size])), (X, grads)) == same


def test_nothing_is_like_nothing():
    assert alike(None, None)
    assert not alike(None, X)
    assert not alike(X, None)
    assert not alike(None, ())
    assert alike(np.zeros(0), np.zeros(0))


def linear_when(second, whole, first=None):
    """`linear` where backward gives first, then second for the other dout, and whole for the mixed one."""
    answers = iter([second, whole])
    calls = SimpleNamespace(fresh=lambda douts: next(answers))
    return linear(calls, {"x": X} if first is None else first, [X], [X])


def test_a_backward_is_linear_if_the_mixed_dout_gives_the_mixed_gradients():
    other = np.array([0.5, 0.25, -1.0])
    assert linear_when({"x": other}, {"x": 2 * X - 3 * other})
    assert not linear_when({"x": other}, {"x": 2 * X + 3 * other})
    assert linear_when({"x": other}, {"x": 2 * X - 3 * other + 1e-6})
    assert not linear_when({"x": other}, {"x": 2 * X - 3 * other + 1e-5})
    assert not linear_when({"x": 1e-9 * other}, {"x": 1e-9 * (2 * X - 3 * other + 1e-4)}, {"x": 1e-9 * X})
    assert linear_when({"x": np.zeros(0)}, {"x": np.zeros(0)}, {"x": np.zeros(0)})
    assert linear_when({"x": other}, {"x": np.full(3, np.inf)})  # for the comparison of values to find


@pytest.mark.parametrize("more", [{"x": X, "y": Y}, {"x": np.ones(4)}, {"x": np.ones(2)}, {"x": np.ones((3, 1))}, {"a": X}])
def test_it_gives_the_same_gradients_of_the_same_shapes_for_each_dout(more):
    plain = {"x": np.zeros(3)}
    assert linear_when(plain, plain, plain)
    for answers in ((more, plain, plain), (plain, more, plain), (plain, plain, more)):
        assert not linear_when(*answers)


def seen_forwards(rejects, backward=lambda dout, cache: dout):
    """The inputs that forward was given by `last_after_another_forward`, and what that returned; rejects(x) raises."""
    seen = []

    def forward(x):
        seen.append(x.copy())
        if len(seen) > 1 and rejects(x):
            raise ValueError("not sorted")
        return x, None

    calls = Calls(forward, backward, (X,), ["x"], [])
    calls.fresh([X])
    grads = calls.last_after_another_forward([X])
    return seen[1:], grads


def test_another_forward_is_given_flipped_arrays_or_scaled_ones_where_it_rejects_these():
    seen, grads = seen_forwards(lambda x: False)
    np.testing.assert_array_equal(seen, [X[::-1]])
    np.testing.assert_array_equal(grads, X)
    seen, grads = seen_forwards(lambda x: x[0] == X[-1])
    np.testing.assert_array_equal(seen, [X[::-1], 1.5 * X])
    np.testing.assert_array_equal(grads, X)
    seen, grads = seen_forwards(lambda x: True)
    assert len(seen) == 2
    np.testing.assert_array_equal(grads, X)


def test_a_backward_that_fails_after_another_forward_has_no_gradients():
    calls = []

    def backward(dout, cache):
        calls.append(dout)
        if len(calls) > 1:
            raise RuntimeError("the cache is gone")
        return dout

    assert seen_forwards(lambda x: False, backward)[1] is None


def test_gradients_of_other_shapes_in_each_call_do_not_count_as_adding_up():
    sizes = iter([1, 2, 3, 4, 5, 6, 7, 8])
    report = check_pair(lambda x: (x, x), lambda dout, x: np.ones(next(sizes)), X, assert_passed=False)
    assert "backward gives other gradients when called again" in report.problems[0]


def test_douts_are_named_by_their_number_where_there_are_several():
    def one(dout, x):
        dout *= 2
        return dout

    def two(first, second, x):
        second *= 2
        return first + second

    assert check_pair(lambda x: (x, x), one, X, assert_passed=False).problems[0] == "backward modifies dout"
    assert check_pair(lambda x: ((x, x), x), two, X, assert_passed=False).problems[0] == "backward modifies dout1"
