"""How people hand their code to the checks: objects, accumulated gradients, noise, dicts, lists, numbers of other kinds."""

import numpy as np
import pytest

from npvae.checking.gradcheck import assert_gradients, check_pair, directional_check, fd_check, taylor_test

SCALAR_CHECKS = [directional_check, taylor_test, fd_check]


def users(*shape, seed=0):
    """The numbers that a user's x often is: those of default_rng(0)."""
    return np.random.default_rng(seed).standard_normal(shape)


def verdict(forward, backward, *args, **options):
    return check_pair(forward, backward, *args, assert_passed=False, **options)


# Random streams


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_backward_that_ignores_dout_fails_at_the_numbers_of_default_rng(seed):
    x = users(4, 3, seed=seed)
    report = verdict(lambda x: (np.tanh(x), x), lambda d, x: x * (1 - np.tanh(x) ** 2), x, seed=seed)
    assert report.verdict == "wrong"
    assert any("not linear in dout" in problem for problem in report.problems)


def test_a_backward_that_is_right_for_one_dout_only_fails():
    x = users(3, 3)
    report = verdict(lambda x, W: (x @ W, (x, W)), lambda d, c: (d @ c[1].T, d.T @ d), x, users(3, 3, seed=4))
    assert {row.name: row.verdict for row in report.rows} == {"x": "passed", "W": "wrong"}


@pytest.mark.parametrize("check", SCALAR_CHECKS)
def test_an_error_orthogonal_to_theta_fails(check):
    theta = users(6)
    error = users(6, seed=3)
    error -= theta * (error @ theta) / (theta @ theta)
    assert check(lambda t: (t**3).sum(), theta, 3 * theta**2 + error, assert_passed=False).verdict == "wrong"


def normalise_forward(x):
    centred = x - x.mean(axis=0)
    std = np.sqrt((centred * centred).mean(axis=0) + 1e-5)
    return centred / std, (centred / std, std)


def normalise_backward(dout, cache):
    xhat, std = cache
    return (dout - dout.mean(axis=0) - xhat * (dout * xhat).mean(axis=0)) / std


@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_batch_normalisation_passes_where_x_is_what_dout_could_be(seed):
    assert check_pair(normalise_forward, normalise_backward, users(5, 3, seed=seed), seed=seed).passed


# State


class Layer:
    """A layer that keeps its cache and its gradient on itself."""

    def __init__(self, accumulate=False):
        self.W, self.dW, self.accumulate = users(3, 2, seed=1), np.zeros((3, 2)), accumulate

    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.W)

    def backward(self, dout):
        dpre = dout * (1 - np.tanh(self.x @ self.W) ** 2)
        self.dW = self.x.T @ dpre + (self.dW if self.accumulate else 0)
        return dpre @ self.W.T


def pair_of(layer, zero=False):
    def forward(x, W):
        layer.W = W
        if zero:
            layer.dW = 0
        return layer.forward(x), None

    return forward, lambda dout, cache: (layer.backward(dout), layer.dW.copy())


def test_an_object_that_keeps_its_cache_passes_with_a_note():
    layer = Layer()
    args = users(4, 3), layer.W
    report = check_pair(*pair_of(layer), *args)
    assert "backward reads state that a later forward overwrites" in report.notes[0]
    assert "backward reads state" in str(report)
    assert verdict(*pair_of(layer), *args, strict=True).verdict == "wrong"
    np.testing.assert_array_equal(args[0], users(4, 3))


def test_a_wrong_object_fails():
    layer = Layer()
    forward, backward = pair_of(layer)
    report = verdict(forward, lambda d, c: (backward(d, c)[0], 2 * layer.dW), users(4, 3), layer.W)
    assert [row.verdict for row in report.rows] == ["passed", "wrong"]
    assert "gradient is 2 times the right one" in str(report)


def test_gradients_that_accumulate_are_named():
    layer = Layer(accumulate=True)
    report = verdict(*pair_of(layer), users(4, 3), layer.W)
    assert report.verdict == "wrong"
    assert report.problems[0].startswith("gradients accumulate: each backward adds to what the last one left (+=")


def test_gradients_that_forward_sets_to_zero_pass_with_a_note():
    layer = Layer(accumulate=True)
    report = check_pair(*pair_of(layer, zero=True), users(4, 3), layer.W)
    assert report.notes[0].startswith("a second backward without a forward gives other gradients")


def test_a_backward_that_depends_on_a_counter_is_not_taken_for_accumulation():
    calls = []

    def backward(dout, x):
        calls.append(0)
        return dout * 2 * x * len(calls) ** 2

    report = verdict(lambda x: (x * x, x), backward, users(3))
    assert report.problems[0].startswith("backward gives other gradients when called again: backward reads state")


def test_a_cache_of_the_first_forward_is_seen():
    kept = []

    def forward(x):
        kept.append(x)
        return x * x, None

    report = verdict(forward, lambda dout, cache: 2 * dout * kept[-1], users(3))
    assert report.verdict == "passed"
    assert "a later forward overwrites" in report.notes[0]


@pytest.mark.parametrize("wants", ["sorted", "lower triangular"])
def test_a_forward_may_insist_on_its_kind_of_input(wants):
    def forward(x):
        if np.any(np.diff(x) < 0) if wants == "sorted" else np.any(np.triu(x, 1)):
            raise ValueError(f"x must be {wants}")
        return x**3, x

    x = np.sort(users(5)) if wants == "sorted" else np.tril(users(4, 4) + 3)
    report = check_pair(forward, lambda dout, x: 3 * dout * x**2 * (x != 0), x)
    assert report.notes == []


def test_what_forward_writes_into_an_option_is_noted_and_into_an_argument_fails():
    def forward(x, options):
        options["calls"] = np.array(options["calls"] + 1)
        return x * x, x

    report = check_pair(forward, lambda dout, x: 2 * dout * x, users(3), {"calls": np.array(0)}, wrt="x")
    assert report.notes == ["forward modifies options"]
    assert verdict(forward, lambda dout, x: 2 * dout * x, users(3), {"calls": np.array(0)}, wrt="x", strict=True).problems


def test_a_backward_that_is_not_linear_in_dout_is_named():
    report = verdict(lambda x: (x, None), lambda dout, cache: np.clip(dout, -0.1, 0.1), users(4, 3))
    assert "backward is not linear in dout: backward(2a - 3b) is not 2 backward(a) - 3 backward(b)" in report.problems


def test_a_loss_whose_backward_takes_no_dout_is_explained():
    report = verdict(lambda x: ((x * x).sum(), x), lambda dout, x: 2 * x, users(3))
    assert "dout is not used: the gradient is that for dout = 1" in report.rows[0].note


# Noise


@pytest.mark.parametrize("check", SCALAR_CHECKS)
def test_noise_inside_f_is_named_and_leaves_the_verdict_open(check):
    rng = np.random.default_rng(3)

    def f(theta):
        return (theta * (1 + 0.1 * rng.standard_normal(theta.shape))).sum()

    report = check(f, users(4), np.ones(4), assert_passed=False)
    assert report.verdict == "inconclusive"
    with pytest.raises(AssertionError, match=r"inconclusive: f gives other values .* draws noise by itself.*seed a generator"):
        check(f, users(4), np.ones(4))


@pytest.mark.parametrize(("backwards_draw", "expected"), [(0, "passed"), (1, "wrong")])
def test_two_draws_where_there_should_be_one_show_with_a_generator_seeded_inside(backwards_draw, expected):
    """A frozen constant would make both draws equal, and hide the second."""

    def forward(mu, logvar):
        rng = np.random.default_rng(0)
        draws = rng.standard_normal((2, *mu.shape))
        return mu + np.exp(logvar / 2) * draws[0], (logvar, draws[backwards_draw])

    def backward(dz, cache):
        logvar, eps = cache
        return dz, dz * eps * np.exp(logvar / 2) / 2

    assert verdict(forward, backward, users(3, 2), users(3, 2, seed=1)).verdict == expected


# What is taken as what it plainly means


@pytest.mark.parametrize("check", SCALAR_CHECKS)
def test_structures_of_arrays(check):
    x = users(4, 3)
    nested = {"layers": [{"W": users(3, 2, seed=1), "b": users(2, seed=2)}], "scale": np.array(0.7)}

    def f(theta):
        layer = theta["layers"][0]
        return theta["scale"] * np.tanh(x @ layer["W"] + layer["b"]).sum()

    h = np.tanh(x @ nested["layers"][0]["W"] + nested["layers"][0]["b"])
    d = 0.7 * (1 - h**2)
    grad = {"layers": [{"W": x.T @ d, "b": d.sum(axis=0)}], "scale": h.sum()}
    assert check(f, nested, grad).passed
    grad["layers"][0]["b"] = 1.1 * d.sum(axis=0)
    report = check(f, nested, grad, assert_passed=False)
    assert report.verdict == "wrong"
    if check is not taylor_test:
        assert "layers.0.b" in [row.name for row in report.rows if not row.passed]


@pytest.mark.parametrize("check", SCALAR_CHECKS)
def test_forms_of_theta_of_the_loss_and_of_the_gradient(check):
    x = users(3)
    a, b = users(2, seed=1), users(3, 2, seed=2)
    assert check(lambda t: (t * t).sum(), [0.5, -1.2, 2.0], [1.0, -2.4, 4.0]).passed
    assert check(lambda t: (t[0] ** 2).sum() + (t[1] ** 3).sum(), [a, b], [2 * a, 3 * b**2]).passed
    assert check(lambda t: (t * t).sum(), np.arange(1, 4), 2 * np.arange(1, 4)).passed
    assert check(lambda t: (t * t).sum().reshape(1, 1), x, 2 * x).passed
    assert check(lambda t: ((t * t).sum(), 2 * t), x).passed
    assert check(lambda t: ((t * t).sum(), 2 * t), x, 2 * x).passed
    assert check(lambda t: (t * t).sum(), x, lambda t: 2 * t).passed
    assert check(lambda t: t * t, np.array(0.7), np.array(1.4)).passed
    assert check(lambda t: ((t * t).sum(), 3 * t), x, assert_passed=False).verdict == "wrong"
    with pytest.raises(ValueError, match=r"give grad, or an f that returns \(loss, gradient\)"):
        check(lambda t: (t * t).sum(), x)


@pytest.mark.parametrize("check", SCALAR_CHECKS)
def test_theta_comes_back_unharmed_from_an_f_that_writes_into_it(check):
    def f(theta):
        theta *= theta
        return theta.sum()

    x = users(3)
    report = check(f, x, 2 * x)
    np.testing.assert_array_equal(x, users(3))
    assert report.notes == ["f writes into theta: every call was handed a copy, and yours is as it was"]
    assert "f writes into theta" in str(report)


def test_a_dict_is_an_argument_of_a_pair_and_gradients_may_come_in_one():
    params = {"W": users(3, 2, seed=1), "b": users(2, seed=2), "steps": 3}

    def forward(x, params):
        return x @ params["W"] + params["b"], (x, params)

    def backward(dout, cache):
        x, params = cache
        return dout @ params["W"].T, {"W": x.T @ dout, "b": dout.sum(axis=0)}

    report = check_pair(forward, backward, users(4, 3), params)
    assert [row.name for row in report.rows] == ["x", "params.W", "params.b"]
    both = check_pair(forward, lambda d, c: dict(zip(("x", "params"), backward(d, c))), users(4, 3), params)
    assert [row.name for row in both.rows] == ["x", "params.W", "params.b"]
    only = check_pair(forward, lambda d, c: backward(d, c)[1], users(4, 3), params, wrt="params")
    assert [row.name for row in only.rows] == ["params.W", "params.b"]
    missing = verdict(forward, lambda d, c: (backward(d, c)[0], {"W": c[0].T @ d}), users(4, 3), params)
    assert [row.note for row in missing.rows if not row.passed] == ["gradient is nothing, argument is float64 (2,)"]


def test_lists_of_weights_and_outputs():
    weights = [users(3, 3, seed=1), users(3, 2, seed=2)]

    def forward(weights):
        return [weights[0] @ weights[1], weights[0] * 2], weights

    def backward(dproduct, ddouble, weights):
        return [dproduct @ weights[1].T + 2 * ddouble, weights[0].T @ dproduct]

    assert [row.name for row in check_pair(forward, backward, weights).rows] == ["weights.0", "weights.1"]


def test_whole_numbers_are_taken_as_numbers_where_a_gradient_asks_for_it():
    x, W = np.arange(6).reshape(2, 3), users(3, 2)
    pair = (lambda x, W: (x @ W, (x, W))), (lambda d, c: (d @ c[1].T, c[0].T @ d))
    assert [row.name for row in check_pair(*pair, x, W).rows] == ["x", "W"]
    assert [row.name for row in check_pair(pair[0], lambda d, c: c[0].T @ d, x, W).rows] == ["W"]


def test_gradients_of_other_dtypes_are_compared_at_their_precision():
    x = users(4, 3)
    report = check_pair(lambda x: (x**3, x), lambda d, x: (3 * d * x**2).astype(np.float32), x)
    assert report.rows[0].note == "gradient is float32, the argument float64: compared at its precision"
    assert report.threshold == pytest.approx(9.5e-7, rel=0.01)
    assert verdict(lambda x: (x**3, x), lambda d, x: (3.00001 * d * x**2).astype(np.float32), x).verdict == "wrong"
    whole = np.array([1.0, -2.0, 3.0])
    assert fd_check(lambda t: (t * t).sum(), whole, np.array([2, -4, 6])).passed
    cut = fd_check(lambda t: (t * t).sum(), whole + 0.3, (2 * (whole + 0.3)).astype(int), assert_passed=False)
    assert cut.verdict == "wrong"
    assert "gradient is int64" in cut.rows[0].note


# What is wrong, in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: -g, "gradient has the opposite sign"),
        (lambda g: 2 * g, "gradient is 2 times the right one"),
        (lambda g: g / 3, "gradient is 0.333333 times the right one"),
        (lambda g: g.T, "gradient is the transpose of the right one"),
        (lambda g: 0 * g, "gradient is zero"),
    ],
)
def test_simple_mistakes_are_put_in_words(change, words):
    W = users(3, 3)
    report = verdict(lambda W: (W**3, W), lambda d, W: change(3 * d * W**2), W)
    assert words in str(report)
    assert words in str(fd_check(lambda W: (W**3).sum(), W, change(3 * W**2), assert_passed=False)) or words.endswith("one")


# One line for a test


def test_assert_gradients_takes_pairs_and_scalar_functions():
    x = users(3, 2)
    assert assert_gradients(lambda x: (x**3, x), lambda d, x: 3 * d * x**2, x).check == "check_pair <lambda>"
    assert assert_gradients(lambda x: (x**3).sum(), x, 3 * x**2).check == "assert_gradients"
    assert assert_gradients(lambda x: ((x**3).sum(), 3 * x**2), x).passed
    assert assert_gradients(lambda x: np.abs(x).sum(), x, np.sign(x)).passed
    large = users(60, 50)
    assert assert_gradients(lambda x: (x**3).sum(), large, 3 * large**2).check == "directional_check"
    for wrong in (1e-3, 1e-9):
        with pytest.raises(AssertionError, match="FAILED"):
            assert_gradients(lambda x: (x**3).sum(), x, (3 + wrong) * x**2)
        with pytest.raises(AssertionError, match="FAILED"):
            assert_gradients(lambda x: (x**3, x), lambda d, x, wrong=wrong: (3 + wrong) * d * x**2, x)
    assert assert_gradients(lambda x: (x**3).sum(), x, (3 + 1e-9) * x**2, threshold=1e-6).passed


def test_the_glue_of_the_docstring():
    """An object, a network and a function with noise of its own."""
    layer = Layer()
    forward = lambda x, W: (setattr(layer, "W", W), layer.forward(x))[1:] + (None,)  # noqa: E731, RUF005
    backward = lambda dout, cache: (layer.backward(dout), layer.dW)  # noqa: E731
    assert check_pair(forward, backward, users(4, 3), layer.W).passed
    x, net = users(4, 3), {"W": users(3, 2, seed=1)}

    def loss(theta):
        net.update(theta)
        rng = np.random.default_rng(0)
        return (np.tanh(x @ net["W"]) * rng.standard_normal((4, 2))).sum()

    eps = np.random.default_rng(0).standard_normal((4, 2))
    grad = {"W": x.T @ (eps * (1 - np.tanh(x @ net["W"]) ** 2))}
    assert_gradients(loss, dict(net), grad)
