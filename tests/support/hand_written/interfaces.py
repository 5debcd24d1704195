"""How people pass things: dicts, lists and options, losses of odd shapes, and gradients of the wrong form."""

import math

import numpy as np
from scipy import sparse

from hand_written import Pair, Scalar, normal, right, wrong


def two_layers(p, x, y):
    """Mean squared error of a small network, and its gradient, of a dict of parameters."""
    h = np.tanh(x @ p["W1"] + p["b1"])
    diff = h @ p["W2"] + p["b2"] - y
    dout = 2 * diff / len(x)
    dpre = (dout @ p["W2"].T) * (1 - h * h)
    grads = {"W1": x.T @ dpre, "b1": dpre.sum(axis=0), "W2": h.T @ dout, "b2": dout.sum(axis=0)}
    return (diff * diff).sum() / len(x), grads


def parameters():
    return {"W1": normal(3, 4), "b1": normal(4, seed=1), "W2": normal(4, 2, seed=2), "b2": np.zeros(2)}


X, Y = normal(6, 3, seed=7), normal(6, 2, seed=8)


@right
def dict_of_parameters():
    """A two-layer network, theta a dict."""
    return Scalar(lambda p: two_layers(p, X, Y)[0], parameters(), two_layers(parameters(), X, Y)[1])


@wrong
def dict_with_gradients_exchanged():
    """The gradients of b1 are divided by the batch size once more."""
    grads = two_layers(parameters(), X, Y)[1]
    return Scalar(lambda p: two_layers(p, X, Y)[0], parameters(), {**grads, "b1": grads["b1"] / 6})


@right
def function_that_returns_loss_and_gradient():
    """f returns (loss, gradients), as scipy.optimize.minimize(jac=True) wants it."""
    return Scalar(lambda p: two_layers(p, X, Y), parameters(), two_layers(parameters(), X, Y)[1])


@right
def nested_dict():
    """Parameters of two parts, a dict of dicts."""
    p = parameters()
    g = two_layers(p, X, Y)[1]

    def nest(d):
        return {"encoder": {"W": d["W1"], "b": d["b1"]}, "decoder": {"W": d["W2"], "b": d["b2"]}}

    def f(q):
        return two_layers(dict(zip(p, [*q["encoder"].values(), *q["decoder"].values()])), X, Y)[0]

    return Scalar(f, nest(p), nest(g))


@right
def list_of_arrays():
    """Parameters as a list, in the order of the layers."""
    p = parameters()
    return Scalar(lambda q: two_layers(dict(zip(p, q)), X, Y)[0], list(p.values()), list(two_layers(p, X, Y)[1].values()))


@wrong
def list_with_one_wrong_array():
    """W2's gradient lacks the factor 2 of the square."""
    p = parameters()
    g = two_layers(p, X, Y)[1]
    g["W2"] = g["W2"] / 2
    return Scalar(lambda q: two_layers(dict(zip(p, q)), X, Y)[0], list(p.values()), list(g.values()))


def dict_argument(factor):
    def forward(x, params):
        return x @ params["W"] + params["b"], (x, params)

    def backward(dout, cache):
        x, params = cache
        return dout @ params["W"].T, {"W": factor * x.T @ dout, "b": dout.sum(axis=0)}

    return Pair(forward, backward, (normal(4, 3), {"W": normal(3, 2, seed=1), "b": np.zeros(2)}))


@right
def dict_as_one_argument():
    """forward(x, params), params a dict."""
    return dict_argument(1)


@wrong
def dict_as_one_argument_averaged():
    """dW is averaged over the batch, db is summed."""
    return dict_argument(0.25)


@right
def loss_of_shape_1_1():
    """A quadratic form of a column vector, a (1, 1) array."""
    A, x = normal(3, 3, seed=1), normal(3, 1)
    return Scalar(lambda x: x.T @ A @ x, x, (A + A.T) @ x)


@wrong
def quadratic_form_taken_for_symmetric():
    """2 A x, for an A that is not symmetric."""
    A, x = normal(3, 3, seed=1), normal(3, 1)
    return Scalar(lambda x: x.T @ A @ x, x, 2 * A @ x)


@right
def loss_of_shape_1():
    """np.sum(..., keepdims=True): a loss of shape (1,)."""
    x = normal(4)
    return Scalar(lambda x: np.sum(x**3, keepdims=True), x, 3 * x**2)


@right
def integer_input():
    """x typed as integers: np.arange(6).reshape(2, 3)."""
    return Pair(lambda x: (np.sqrt(x + 1), x), lambda d, x: d / (2 * np.sqrt(x + 1)), (np.arange(6).reshape(2, 3),))


@right
def integer_theta():
    """theta typed as integers."""
    return Scalar(lambda t: (t**3).sum() / 10, np.array([1, 2, 3]), np.array([0.3, 1.2, 2.7]))


@right
def function_that_writes_into_theta():
    """f centres its argument in place before it looks at it."""
    theta = normal(5)

    def f(t):
        t -= t.mean()
        return (t**2).sum()

    return Scalar(f, theta, 2 * (theta - theta.mean()))


@right
def theta_as_a_list_of_floats():
    """[0.5, -1.2, 2.0], and a function that uses math."""
    theta = [0.5, -1.2, 2.0]
    return Scalar(lambda t: math.exp(t[0]) * t[1] ** 2 + math.sin(t[2]), theta, grad_of_floats(theta))


def grad_of_floats(t):
    return [math.exp(t[0]) * t[1] ** 2, 2 * math.exp(t[0]) * t[1], math.cos(t[2])]


@wrong
def theta_as_a_list_of_floats_with_a_sign():
    """The derivative of sin as −cos."""
    theta = [0.5, -1.2, 2.0]
    g = grad_of_floats(theta)
    return Scalar(lambda t: math.exp(t[0]) * t[1] ** 2 + math.sin(t[2]), theta, [g[0], g[1], -g[2]])


@right
def theta_without_dimensions():
    """A single number, np.array(0.7)."""
    return Scalar(lambda t: np.tanh(t) ** 3, np.array(0.7), np.array(3 * np.tanh(0.7) ** 2 * (1 - np.tanh(0.7) ** 2)))


@right
def unused_parameter():
    """One entry of the dict does not enter the loss: its gradient is zero."""
    theta = {"w": normal(3), "spare": normal(2, seed=1)}
    return Scalar(lambda t: (t["w"] ** 2).sum(), theta, {"w": 2 * theta["w"], "spare": np.zeros(2)})


@wrong
def unused_parameter_with_decay():
    """Weight decay is added to a parameter that does not enter the loss."""
    theta = {"w": normal(3), "spare": normal(2, seed=1)}
    return Scalar(lambda t: (t["w"] ** 2).sum(), theta, {"w": 2 * theta["w"], "spare": 1e-3 * theta["spare"]})


@wrong
def gradient_with_a_missing_key():
    """The dict of gradients lacks b2."""
    grads = two_layers(parameters(), X, Y)[1]
    del grads["b2"]
    return Scalar(lambda p: two_layers(p, X, Y)[0], parameters(), grads)


@wrong
def gradient_of_shape_n_1():
    """A column for a vector."""
    t = normal(4)
    return Scalar(lambda t: (t**3).sum(), t, (3 * t**2)[:, None])


@wrong
def gradient_with_nan():
    """0/0 in one entry of a relu's gradient, (|x| + x) / 2x at x = 0."""
    x = np.array([1.0, 0.0, -2.0])
    with np.errstate(invalid="ignore"):
        return Scalar(lambda x: (np.maximum(x, 0) ** 2).sum(), x, (np.abs(x) + x) ** 2 / (2 * x))


@right
def options_in_a_dict():
    """A dict of whole numbers as the last argument, no gradient of it."""

    def forward(x, w, conv_param):
        p, s = conv_param["pad"], conv_param["stride"]
        padded = np.pad(x, p)
        n = (len(padded) - len(w)) // s + 1
        out = np.zeros(n)
        for i in range(n):
            out[i] = padded[i * s : i * s + len(w)] @ w
        return out, (padded, w, conv_param)

    def backward(dout, cache):
        padded, w, conv_param = cache
        p, s = conv_param["pad"], conv_param["stride"]
        dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
        for i in range(len(dout)):
            dpadded[i * s : i * s + len(w)] += dout[i] * w
            dw += dout[i] * padded[i * s : i * s + len(w)]
        return dpadded[p:-p], dw

    return Pair(forward, backward, (normal(8), normal(3, seed=1), {"stride": 2, "pad": 1}))


@right
def options_that_forward_updates():
    """A dict with a mode and running means, which forward updates; wrt= names what has a gradient."""

    def forward(x, gamma, bn_param):
        mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + 1e-5)
        bn_param["running_mean"] = 0.9 * bn_param["running_mean"] + 0.1 * mean
        xhat = (x - mean) / std
        return gamma * xhat, (xhat, gamma, std)

    def backward(dout, cache):
        xhat, gamma, std = cache
        d = dout * gamma
        return (d - d.mean(axis=0) - xhat * (d * xhat).mean(axis=0)) / std, (dout * xhat).sum(axis=0)

    args = normal(6, 3), normal(3, seed=1), {"mode": "train", "running_mean": np.zeros(3)}
    return Pair(forward, backward, args, {"wrt": ("x", "gamma")})


@right
def seed_set_inside_forward():
    """np.random.seed inside the forward, as a dropout layer does for its own checks."""

    def forward(x, dropout_param):
        np.random.seed(dropout_param["seed"])  # noqa: NPY002  the global generator is the point
        mask = np.random.rand(*x.shape) < 0.7  # noqa: NPY002
        return x * mask, mask

    return Pair(forward, lambda dout, mask: dout * mask, (normal(5, 4), {"seed": 123}))


@right
def sparse_graph():
    """A quadratic form of a scipy.sparse matrix."""
    L, x = sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(6, 6)).tocsr(), normal(6)
    return Scalar(lambda x: float(0.5 * x @ (L @ x)), x, L @ x)


@right
def second_output_of_integers():
    """Values and the indices of the winners: the second output has no gradient."""

    def forward(x):
        k = x.argmax(axis=1)
        return (x.max(axis=1), k), (x.shape, k)

    def backward(dout, cache):
        shape, k = cache
        dx = np.zeros(shape)
        dx[np.arange(len(k)), k] = dout
        return dx

    return Pair(forward, backward, (normal(4, 3),))


@wrong
def semi_gradient():
    """A squared Bellman error; the next state's value is taken for a constant."""
    features, rewards = normal(6, 3), normal(5, seed=1)

    def error(w):
        v = features @ w
        return rewards + 0.9 * v[1:] - v[:-1]

    w = normal(3, seed=2)
    return Scalar(lambda w: 0.5 * (error(w) ** 2).sum(), w, -(error(w) @ features[:-1]))


@right
def whole_gradient():
    """The same with both terms."""
    features, (f, w, grad, _) = normal(6, 3), semi_gradient()
    error = normal(5, seed=1) + 0.9 * (features @ w)[1:] - (features @ w)[:-1]
    return Scalar(f, w, grad + 0.9 * error @ features[1:])


@right
def views_and_read_only_arrays():
    """A transposed view, and weights that cannot be written to."""
    W = normal(4, 2, seed=1)
    W.setflags(write=False)
    return Pair(lambda x, W: (x @ W, (x, W)), lambda d, c: (d @ c[1].T, c[0].T @ d), (normal(4, 3).T, W))


@right
def numbers_and_names_among_the_arguments():
    """A slope and a mode are handed on as they are."""

    def forward(x, slope, mode):
        return np.where(x > 0, x, slope * x) if mode == "leaky" else x, (x, slope)

    return Pair(forward, lambda d, c: d * np.where(c[0] > 0, 1, c[1]), (normal(4, 3), 0.1, "leaky"))


@right
def gradients_in_a_list():
    """backward returns a list, the first gradient None."""

    def backward(dout, cache):
        return [None, cache[0].T @ dout]

    return Pair(lambda x, W: (x @ W, (x, W)), backward, (normal(4, 3), normal(3, 2, seed=1)))


@right
def loss_memoised_by_its_last_point():
    """An object that computes loss and gradient once for each point."""
    last = {}

    def f(t):
        if "t" not in last or not np.array_equal(last["t"], t):
            last.update(t=t.copy(), loss=np.cos(t).sum(), grad=-np.sin(t))
        return last["loss"]

    theta = normal(4)
    f(theta)
    return Scalar(f, theta, last["grad"])
