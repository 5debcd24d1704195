"""Scales, precisions, kinks and ties: what is hard about the numbers."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong


@right
def log_near_zero():
    """Σ log t with one entry of 1e-4."""
    t = np.array([1.0, 2.0, 3.0, 1e-4])
    return Scalar(lambda t: np.log(t).sum(), t, 1 / t)


@wrong
def log_near_zero_doubled():
    """The entry near the singular point is doubled."""
    t = np.array([1.0, 2.0, 3.0, 1e-4])
    return Scalar(lambda t: np.log(t).sum(), t, np.array([1, 1, 1, 2]) / t)


def cubes(s, factor=1.0):
    """Σ (θ/s)³ at θ = s·(1, −2, 0.5); factor multiplies the second entry of the gradient."""
    t = s * np.array([1.0, -2.0, 0.5])
    return Scalar(lambda t: ((t / s) ** 3).sum(), t, 3 * (t / s) ** 2 / s * np.array([1, factor, 1]))


@right
def cubes_at_1e_minus_12():
    """Σ (θ/s)³, s = 1e-12."""
    return cubes(1e-12)


@right
def cubes_at_1e_minus_8():
    """Σ (θ/s)³, s = 1e-8."""
    return cubes(1e-8)


@right
def cubes_at_1e_minus_4():
    """Σ (θ/s)³, s = 1e-4."""
    return cubes(1e-4)


@right
def cubes_at_1e6():
    """Σ (θ/s)³, s = 1e6."""
    return cubes(1e6)


@right
def cubes_at_1e12():
    """Σ (θ/s)³, s = 1e12."""
    return cubes(1e12)


@wrong(error=0.01)
def cubes_at_1e_minus_8_off_by_a_percent():
    """One entry is 1 % off, at a scale of 1e-8."""
    return cubes(1e-8, 1.01)


@wrong
def cubes_at_1e12_with_a_sign():
    """One entry has the wrong sign, at a scale of 1e12."""
    return cubes(1e12, -1)


@right
def log_of_large_numbers():
    """Σ log t from 1e5 to 1e9."""
    t = np.array([1e5, 3e6, 1e9])
    return Scalar(lambda t: np.log(t).sum(), t, 1 / t)


@right
def scales_mixed_in_one_array():
    """Σ (θ_i/s_i)² with s from 1e-8 to 1e8."""
    s = np.array([1e-8, 1.0, 1e8])
    t = s * np.array([1.0, -2.0, 0.7])
    return Scalar(lambda t: ((t / s) ** 2).sum(), t, 2 * t / s**2)


# --------------------------------------------------------------------------------------------- single precision


@right
def float32_inside():
    """A network layer computed in float32."""
    W = normal(3, 2, seed=1).astype(np.float32)
    t = normal(3)

    def f(t):
        return float(np.tanh(t.astype(np.float32) @ W).sum())

    return Scalar(f, t, W.astype(np.float64) @ (1 - np.tanh(t @ W) ** 2))


@wrong(error=0.1)
def float32_inside_and_a_factor():
    """Computed in float32, and 10 % off."""
    f, t, grad, _ = float32_inside()
    return Scalar(f, t, 1.1 * grad)


@right
def gradient_in_float32():
    """The gradient is a float32 array, theta is float64."""
    t = normal(5)
    return Scalar(lambda t: np.sin(t).sum(), t, np.cos(t).astype(np.float32))


@wrong(error=0.01)
def gradient_in_float32_and_off():
    """A float32 gradient with one entry 1 % off."""
    t = normal(5)
    return Scalar(lambda t: np.sin(t).sum(), t, (np.cos(t) * [1, 1, 1.01, 1, 1]).astype(np.float32))


@right
def gradient_in_int64():
    """Counts as a gradient: an int64 array."""
    X = np.array([[1, 2, 0], [0, 1, 3]])
    return Scalar(lambda t: (X @ t).sum(), normal(3), X.sum(axis=0))


@wrong
def gradient_cut_to_integers():
    """A buffer of np.zeros(3, dtype=int) cuts the gradient to whole numbers."""
    t = np.array([1.3, -2.4, 0.8])
    return Scalar(lambda t: (t**2).sum(), t, (2 * t).astype(int))


# ------------------------------------------------------------------------------------------------- kinks and ties


@right
def relu_at_zero():
    """relu on an input that holds exact zeros."""
    x = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -0.5]])
    return Pair(lambda x: (np.maximum(0, x), x), lambda d, x: d * (x > 0), (x,))


@wrong
def relu_at_zero_with_slope_two():
    """(x > 0) + 2 (x == 0): no slope between the two sides."""
    x = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -0.5]])
    return Pair(lambda x: (np.maximum(0, x), x), lambda d, x: d * ((x > 0) + 2.0 * (x == 0)), (x,))


@wrong(error=0.005)
def relu_at_zero_off_by_a_percent():
    """(x > 0) times 1.01: the entries at zero are a tie, the others are wrong."""
    x = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, -0.5]])
    return Pair(lambda x: (np.maximum(0, x), x), lambda d, x: 1.01 * d * (x > 0), (x,))


@right
def maximum_of_equal_entries():
    """The gradient of a maximum goes to the first of two equal entries."""

    def backward(dout, x):
        dx = np.zeros_like(x)
        dx[np.arange(len(x)), x.argmax(axis=1)] = dout
        return dx

    return Pair(lambda x: (x.max(axis=1), x), backward, (np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]),))


@right
def maximum_of_equal_entries_shared():
    """The gradient of a maximum is shared by two equal entries."""

    def backward(dout, x):
        hit = x == x.max(axis=1, keepdims=True)
        return dout[:, None] * hit / hit.sum(axis=1, keepdims=True)

    return Pair(lambda x: (x.max(axis=1), x), backward, (np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]),))


@wrong
def maximum_of_equal_entries_counted_twice():
    """Each of two equal entries gets the whole gradient."""

    def backward(dout, x):
        return dout[:, None] * (x == x.max(axis=1, keepdims=True))

    return Pair(lambda x: (x.max(axis=1), x), backward, (np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]),))


@wrong(error=0.005)
def maximum_of_equal_entries_shared_badly():
    """Each of two equal entries gets 51 % of the gradient."""

    def backward(dout, x):
        return 0.51 * dout[:, None] * (x == x.max(axis=1, keepdims=True))

    return Pair(lambda x: (x.max(axis=1), x), backward, (np.array([[1.0, 3.0, 3.0], [2.0, 1.0, 2.0]]),))


@right
def kink_close_by():
    """Σ|t| with an entry of 1e-7: a finite step crosses the kink."""
    t = np.array([0.5, -1e-7, 2.0])
    return Scalar(lambda t: np.abs(t).sum(), t, np.sign(t))


@wrong
def kink_close_by_with_a_sign():
    """The same with the sign of the small entry wrong."""
    t = np.array([0.5, -1e-7, 2.0])
    return Scalar(lambda t: np.abs(t).sum(), t, np.array([1.0, 1.0, 1.0]))


# ---------------------------------------------------------------------------------- optima, conditions, constants


def rosenbrock(t):
    return (100 * (t[1:] - t[:-1] ** 2) ** 2 + (1 - t[:-1]) ** 2).sum()


def rosenbrock_grad(t):
    g = np.zeros_like(t)
    g[1:] += 200 * (t[1:] - t[:-1] ** 2)
    g[:-1] += -400 * t[:-1] * (t[1:] - t[:-1] ** 2) - 2 * (1 - t[:-1])
    return g


@right
def rosenbrock_at_its_minimum():
    """The gradient is exactly zero."""
    return Scalar(rosenbrock, np.ones(4), rosenbrock_grad(np.ones(4)))


@right
def rosenbrock_elsewhere():
    """At the classical starting point."""
    t = np.array([-1.2, 1.0, -0.5, 0.8])
    return Scalar(rosenbrock, t, rosenbrock_grad(t))


@wrong
def rosenbrock_without_the_inner_derivative():
    """−2 t of the inner square is forgotten."""
    t = np.array([-1.2, 1.0, -0.5, 0.8])
    g = np.zeros_like(t)
    g[1:] += 200 * (t[1:] - t[:-1] ** 2)
    g[:-1] += -200 * (t[1:] - t[:-1] ** 2) - 2 * (1 - t[:-1])
    return Scalar(rosenbrock, t, g)


@wrong
def not_zero_at_the_minimum():
    """At the minimum of Rosenbrock's function, with 1 − t taken for 1 + t."""
    return Scalar(rosenbrock, np.ones(4), rosenbrock_grad(np.ones(4)) - np.array([4.0, 4.0, 4.0, 0.0]))


@right
def norm_at_zero():
    """np.linalg.norm at the origin, its slope there taken as 0."""
    return Scalar(lambda t: np.linalg.norm(t - 1) + (t**3).sum(), np.ones(3), 3 * np.ones(3))


@right
def power_of_a_distance_at_zero():
    """|t|^1.5 at 0: one derivative, no second one."""
    t = np.array([0.0, 1.0, -2.0])
    return Scalar(lambda t: (np.abs(t) ** 1.5).sum(), t, 1.5 * np.sqrt(np.abs(t)) * np.sign(t))


def two_scales(factor):
    """A large tensor and a small one in one loss."""
    theta = {"W": normal(3), "b": normal(2, seed=1)}

    def f(theta):
        return 1e6 * (theta["W"] ** 2).sum() + 1e-3 * np.sin(theta["b"]).sum()

    return Scalar(f, theta, {"W": 2e6 * theta["W"], "b": factor * 1e-3 * np.cos(theta["b"])})


@right
def small_gradient_beside_a_large_one():
    """Gradients of 1e6 and 1e-3 in one dict."""
    return two_scales(1)


@wrong(error=5e-10)
def small_gradient_beside_a_large_one_doubled():
    """The small one is doubled."""
    return two_scales(2)


def float32_layer(factor):
    def forward(x, W):
        x32, W32 = x.astype(np.float32), W.astype(np.float32)
        out = np.tanh(x32 @ W32)
        return out, (x32, W32, out)

    def backward(dout, cache):
        x32, W32, out = cache
        dpre = (dout * (1 - out**2)).astype(np.float32)
        return dpre @ W32.T, factor * (x32.T @ dpre)

    return Pair(forward, backward, (normal(4, 3), normal(3, 2, seed=1)))


@right
def layer_that_converts_to_float32():
    """Everything inside is float32, the gradients too."""
    return float32_layer(np.float32(1))


@wrong(error=0.1)
def layer_that_converts_to_float32_and_a_factor():
    """The same, 20 % off."""
    return float32_layer(np.float32(1.2))


@right
def number_of_errors():
    """A count: its slope is zero."""
    X, y = normal(9, 3, seed=2), normal(9, seed=3) > 0
    return Scalar(lambda w: int(np.sum((X @ w > 0) != y)), normal(3), np.zeros(3))


@wrong
def number_of_errors_with_the_slope_of_a_hinge():
    """A count in the loss, the perceptron's step as its gradient."""
    X, y = normal(9, 3, seed=2), normal(9, seed=3) > 0
    w = normal(3)
    return Scalar(lambda w: int(np.sum((X @ w > 0) != y)), w, X.T @ ((X @ w > 0) * 1.0 - y))
