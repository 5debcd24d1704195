"""Random numbers that coincide, objects with state, and code in place."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong

# --------------------------------------------------------------------------------- random numbers that coincide


@right
def tanh_of_the_usual_random_numbers():
    """tanh, on the numbers of default_rng(0)."""
    return Pair(lambda x: (np.tanh(x), x), lambda d, x: d * (1 - np.tanh(x) ** 2), (normal(4, 3),))


@wrong
def upstream_never_used():
    """The upstream gradient is ignored; x happens to be what many checkers draw for it."""
    return Pair(lambda x: (np.tanh(x), x), lambda d, x: x * (1 - np.tanh(x) ** 2), (normal(4, 3),))


@wrong
def upstream_taken_for_the_input():
    """dW = doutᵀ dout where xᵀ dout is meant."""

    def backward(dout, cache):
        return dout @ cache[1].T, dout.T @ dout

    return Pair(lambda x, W: (x @ W, (x, W)), backward, (normal(4, 3), normal(3, 3, seed=1)))


@wrong
def error_orthogonal_to_theta():
    """The gradient of Σ cos is off by a vector at right angles to theta."""
    theta = normal(6)
    off = np.array([theta[1], -theta[0], theta[3], -theta[2], theta[5], -theta[4]])
    return Scalar(lambda t: np.cos(t).sum(), theta, -np.sin(theta) + 0.3 * off)


@right
def legacy_seed():
    """Weights of np.random.seed(0) and np.random.randn."""
    state = np.random.RandomState(0)
    return Pair(lambda x, W: (x @ W, (x, W)), lambda d, c: (d @ c[1].T, c[0].T @ d), (state.randn(4, 3), state.randn(3, 2)))


# -------------------------------------------------------------------------------------------- objects with state


class Dense:
    """A layer that remembers its input."""

    def __init__(self, W, b):
        self.W, self.b = W, b
        self.dW, self.db = np.zeros_like(W), np.zeros_like(b)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return dout @ self.W.T


class AccumulatingDense(Dense):
    """A layer that adds to its gradients, as automatic differentiation does."""

    def backward(self, dout):
        self.dW += self.x.T @ dout
        self.db += dout.sum(axis=0)
        return dout @ self.W.T


class Sigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * self.out * (1 - self.out)


class Sequential:
    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


def glue(layer, x, wrong_dW=None):
    """A dense layer as a pair in x, W and b: set the parameters, run, hand out what backward left in the layer."""

    def forward(x, W, b):
        layer.W, layer.b = W, b
        return layer.forward(x), None

    def backward(dout, cache):
        dx = layer.backward(dout)
        return dx, layer.dW if wrong_dW is None else wrong_dW(layer), layer.db

    return Pair(forward, backward, (x, layer.W, layer.b))


@right
def layer_with_its_cache_on_itself():
    """A sigmoid layer object, forward and backward called in order."""
    layer = Sigmoid()
    return Pair(lambda x: (layer.forward(x), None), lambda d, c: layer.backward(d), (normal(5, 3),))


@right
def dense_layer_object():
    """x, W and b of a dense layer object."""
    return glue(Dense(normal(3, 2, seed=1), normal(2, seed=2)), normal(4, 3))


@wrong
def dense_layer_object_without_transpose():
    """dW = dout x in place of xᵀ dout, which runs where batch and widths are equal."""
    return glue(Dense(normal(3, 3, seed=1), normal(3, seed=2)), normal(3, 3), wrong_dW=lambda layer: layer.x @ layer.dW)


@right
def network_of_layer_objects():
    """A Sequential of layers with state, in its input."""
    net = Sequential(Dense(normal(3, 4, seed=1), normal(4, seed=2)), Sigmoid(), Dense(normal(4, 2, seed=3), np.zeros(2)))
    return Pair(lambda x: (net.forward(x), None), lambda d, c: net.backward(d), (normal(5, 3),))


@wrong
def network_with_one_layer_used_twice():
    """One sigmoid object stands in two places: the second forward overwrites what the first one kept."""
    act = Sigmoid()
    net = Sequential(Dense(normal(3, 3, seed=1), normal(3, seed=2)), act, Dense(normal(3, 3, seed=3), np.zeros(3)), act)
    return Pair(lambda x: (net.forward(x), None), lambda d, c: net.backward(d), (normal(5, 3),))


@right
def accumulating_layer_that_is_zeroed():
    """Gradients are added to, and zeroed in each forward."""
    layer = AccumulatingDense(normal(3, 2, seed=1), normal(2, seed=2))
    forward, backward, args, _ = glue(layer, normal(4, 3))

    def zeroed(x, W, b):
        layer.dW, layer.db = np.zeros_like(W), np.zeros_like(b)
        return forward(x, W, b)

    return Pair(zeroed, backward, args)


@wrong(only_pair=True)
def accumulating_layer_never_zeroed():
    """Gradients are added to and nothing ever zeroes them: the second step has the sum of both."""
    return glue(AccumulatingDense(normal(3, 2, seed=1), normal(2, seed=2)), normal(4, 3))


@wrong
def cache_of_the_first_forward_kept():
    """The cache is made in the first forward and never again: right for the first batch alone."""
    kept = {}

    def forward(x):
        kept.setdefault("out", np.tanh(x))
        return np.tanh(x), None

    forward(normal(4, 3, seed=5))
    return Pair(forward, lambda d, c: d * (1 - kept["out"] ** 2), (normal(4, 3),))


@wrong(only_pair=True)
def upstream_masked_in_place():
    """relu's backward writes zeros into the upstream gradient, which the skip connection needs too."""

    def backward(dout, x):
        dout[x <= 0] = 0
        return dout

    return Pair(lambda x: (np.maximum(x, 0), x), backward, (normal(4, 3),))


@wrong
def cache_overwritten_in_place():
    """out *= gain also changes the tanh that backward reads."""

    def forward(x, gain):
        out = np.tanh(x)
        cache = out, gain
        out *= gain
        return out, cache

    def backward(dout, cache):
        h, gain = cache
        return dout * gain * (1 - h**2), (dout * h).sum(axis=0)

    return Pair(forward, backward, (normal(4, 3), normal(3, seed=1)))


class Net:
    """A two-layer network that owns its parameters, gradients and activations."""

    def __init__(self, n_in, n_hidden, n_out):
        self.params = {"W1": normal(n_in, n_hidden), "b1": np.zeros(n_hidden), "W2": normal(n_hidden, n_out, seed=1)}
        self.grads = {name: np.zeros_like(value) for name, value in self.params.items()}

    def loss(self, x, y):
        self.x = x
        self.h = np.tanh(x @ self.params["W1"] + self.params["b1"])
        self.diff = self.h @ self.params["W2"] - y
        return 0.5 * np.sum(self.diff**2)

    def backward(self):
        dpre = self.diff @ self.params["W2"].T * (1 - self.h**2)
        self.grads["W1"][...] = self.x.T @ dpre
        self.grads["b1"][...] = dpre.sum(axis=0)
        self.grads["W2"][...] = self.h.T @ self.diff


def of_net(wrong_bias):
    """The glue: f copies theta into the network's own arrays."""
    net = Net(3, 4, 2)

    def f(theta):
        for name, value in theta.items():
            net.params[name][...] = value
        return net.loss(normal(5, 3, seed=2), normal(5, 2, seed=3))

    theta = {name: value.copy() for name, value in net.params.items()}
    f(theta)
    net.backward()
    if wrong_bias:
        net.grads["b1"] /= 5
    return Scalar(f, theta, net.grads)


@right
def network_that_owns_its_parameters():
    """f copies theta into the parameters of a network object and returns its loss."""
    return of_net(wrong_bias=False)


@wrong
def network_that_owns_its_parameters_with_a_mean():
    """The same, the bias's gradient averaged over the batch."""
    return of_net(wrong_bias=True)
