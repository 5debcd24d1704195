"""Small models, data and optimisers that the tests of training share."""

from typing import NamedTuple

import naive
import numpy as np

import npvae
from npvae.core.parameters import Parameters, Theta


def lattice_rows(n=200, D=16, seed=0):
    """Rows of zeros and ones with one strong collective variable, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random((n, 1)) < 0.5, 0.9, 0.1)
    return (rng.random((n, D)) < p).astype(np.float32)


def rows_for(model, n, seed=0):
    """Rows (n, D) of float64 of the model's data_kind: zeros and ones, real numbers, or levels/255."""
    rng, shape = np.random.default_rng(seed), (n, model.n_features)
    return {"binary": lambda: (rng.random(shape) < 0.5).astype(float), "real": lambda: rng.standard_normal(shape),
            "levels": lambda: rng.integers(0, 256, shape) / 255}[model.data_kind]()  # fmt: skip


def small_model(**options):
    return npvae.VAE(**{"n_features": 16, "n_latent": 2, "hidden": (8,), "backend": "numpy", **options})


class Recorder(npvae.VAE):
    """A VAE that remembers what it was trained on: x, eps and beta of each forward pass."""

    def forward(self, x, eps, beta=1.0, *args, **options):
        if not hasattr(self, "seen"):
            self.seen = []
        self.seen.append((x.copy(), eps.copy(), beta))
        return super().forward(x, eps, beta, *args, **options)


def recorder(**options):
    return Recorder(**{"n_features": 16, "n_latent": 2, "hidden": (), "backend": "numpy", "likelihood": "gaussian", **options})


# ---- models of somebody else: nothing but the protocol of npvae/models/protocol.py ----


class RegressionTerms(NamedTuple):
    loss: float  # half the mean squared error
    error: float  # mean absolute error


class Regression:
    """Linear regression y = x w + b + noise, by hand: x (B, D) with y (B,)."""

    theta, Terms = Theta(), RegressionTerms

    def __init__(self, n_features):
        self.config, self.buffers = {"n_features": n_features}, {}
        self.parameters = Parameters({"w": (n_features,), "b": (1,)}, "float64")

    def check(self, x, y):
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def draw(self, rng, x, y, jitter=0.0):
        return jitter * rng.standard_normal(len(x))  # (B,)

    def forward(self, x, y, noise, jitter=0.0):
        error = x @ self.parameters["w"] + self.parameters["b"] + noise - y  # (B, D) -> (B,)
        return RegressionTerms(float(np.mean(error**2) / 2), float(np.abs(error).mean())), (x, error)

    def backward(self, cache, dloss=1.0, out=None):
        x, error = cache
        out = np.empty_like(self.theta) if out is None else out
        derror = dloss * error / len(error)  # (B,)
        out[:-1], out[-1] = derror @ x, derror.sum()
        return {"w": out[:-1], "b": out[-1:]}


def regression_rows(n=203, D=4, seed=0):
    """x (n, D) and y (n,) with known w and b, to which a little noise is added."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D))
    return x, x @ np.arange(1.0, D + 1) - 0.5 + 0.01 * rng.standard_normal(n)


class WellTerms(NamedTuple):
    loss: float  # F = energy − entropy, up to a constant
    energy: float


class Well:
    """N(mu, e^2s) in the potential (z − 3)²/2, a model without data: the free energy is least at mu = 3, s = 0."""

    theta, Terms = Theta(), WellTerms

    def __init__(self, start=0.0):
        self.config, self.buffers = {"start": start}, {}
        self.parameters = Parameters({"mu": (1,), "s": (1,)}, "float64")
        self.parameters["mu"] = start

    def check(self):
        return ()

    def draw(self, rng, n_draws=5):
        return rng.standard_normal(n_draws)  # (S,)

    def forward(self, eps, n_draws=5):
        mu, s = self.theta
        z = mu + np.exp(s) * eps  # (S,)
        energy = float(np.mean((z - 3) ** 2) / 2)
        return WellTerms(energy - float(s), energy), (z, eps)

    def backward(self, cache, dloss=1.0, out=None):
        z, eps = cache
        out = np.empty_like(self.theta) if out is None else out
        dz = dloss * (z - 3) / len(z)
        out[0], out[1] = dz.sum(), np.exp(self.theta[1]) * (dz @ eps) - dloss
        return {"mu": out[:1], "s": out[1:]}


# ---- optimisers: a problem for them, and two of somebody else, objects with step(theta, grad, state) ----


def problem(size, dtype="float64", steps=7):
    """theta (P,) and one gradient per step (steps, P), a zero and a tiny one among them."""
    rng = np.random.default_rng(1)
    theta, grads = naive.draw(rng, size, dtype), naive.draw(rng, (steps, size), dtype)
    grads[:, 0] = 0
    grads[:, -1] *= {"float64": 1e-9, "float32": 1e-6}[dtype]  # small beside epsilon, yet its square is a normal number
    return theta, grads


class Averaging:
    """Gradient descent along a running mean of all gradients: an array and a count in the state, neither known beforehand."""

    def step(self, theta, grad, state):
        assert grad.shape == theta.shape
        state["count"] = state.get("count", 0) + 1
        mean = state.get("mean", np.zeros_like(theta))
        state["mean"] = mean + (grad - mean) / theta.dtype.type(state["count"])
        theta -= theta.dtype.type(0.1) * state["mean"]


class Elementwise(Averaging):
    """The same, called on slices of the parameters by several workers; `calls` holds the sizes of the slices."""

    elementwise = True

    def __init__(self):
        self.calls = []

    def step(self, theta, grad, state):
        self.calls.append(theta.size)
        super().step(theta, grad, state)
