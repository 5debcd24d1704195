"""Penalties on a loss, strong and weak, and losses at their optima."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong

X = normal(20, 3, seed=11)
SIGNS = np.where(normal(20, seed=12) > 0, 1.0, -1.0)


def logistic(w):
    return np.log1p(np.exp(-SIGNS * (X @ w))).mean()


def logistic_grad(w):
    return -(X.T @ (SIGNS / (1 + np.exp(SIGNS * (X @ w))))) / len(X)


@right
def logistic_regression():
    """The mean of log(1 + exp(−y x·w))."""
    return Scalar(logistic, normal(3), logistic_grad(normal(3)))


@right
def lasso_penalty():
    """Logistic loss + 1e-3 Σ|w|."""
    w = normal(3)
    return Scalar(lambda w: logistic(w) + 1e-3 * np.abs(w).sum(), w, logistic_grad(w) + 1e-3 * np.sign(w))


@wrong(error=5e-3)
def lasso_penalty_forgotten():
    """1e-3 Σ|w| is in the loss only."""
    w = normal(3)
    return Scalar(lambda w: logistic(w) + 1e-3 * np.abs(w).sum(), w, logistic_grad(w))


@wrong(error=5e-5)
def weak_lasso_penalty_forgotten():
    """1e-5 Σ|w| is in the loss only."""
    w = normal(3)
    return Scalar(lambda w: logistic(w) + 1e-5 * np.abs(w).sum(), w, logistic_grad(w))


@right
def weak_ridge_penalty():
    """Logistic loss + 1e-5 norm(w)²."""
    w = normal(3)
    return Scalar(lambda w: logistic(w) + 1e-5 * np.linalg.norm(w) ** 2, w, logistic_grad(w) + 2e-5 * w)


@wrong(error=5e-5)
def weak_ridge_penalty_forgotten():
    """1e-5 norm(w)² is in the loss only."""
    w = normal(3)
    return Scalar(lambda w: logistic(w) + 1e-5 * np.linalg.norm(w) ** 2, w, logistic_grad(w))


def penalised_layer(factor):
    """A linear layer whose output carries 1e-5 norm(W)² as a second part."""

    def forward(x, W):
        return (np.tanh(x @ W), 1e-5 * np.linalg.norm(W) ** 2), (x, W)

    def backward(dout, dpenalty, cache):
        x, W = cache
        dpre = dout * (1 - np.tanh(x @ W) ** 2)
        return dpre @ W.T, x.T @ dpre + factor * 1e-5 * dpenalty * W

    return Pair(forward, backward, (normal(4, 3), normal(3, 2, seed=1)))


@right
def layer_with_a_weak_penalty():
    """Two outputs: activations and a weak penalty by np.linalg.norm."""
    return penalised_layer(2)


@wrong(error=4e-6)
def layer_with_a_weak_penalty_forgotten():
    """The penalty's gradient is left out."""
    return penalised_layer(0)


@wrong(error=2e-6)
def layer_with_a_weak_penalty_halved():
    """½ of the square that the loss does not have."""
    return penalised_layer(1)


@right
def elastic_net():
    """Squares, 0.1 Σ|w| and 0.05 Σ w², at a w with an exact zero, its slope there taken as 0."""
    y, w = normal(20, seed=14), np.array([0.5, 0.0, -1.2])

    def f(w):
        return 0.5 * np.sum((y - X @ w) ** 2) / len(y) + 0.1 * np.sum(np.abs(w)) + 0.05 * np.sum(w * w)

    g = X.T @ (X @ w - y) / len(y) + 0.1 * w
    return Scalar(f, w, g + 0.1 * np.sign(w))


@wrong(error=0.005)
def elastic_net_off_by_a_percent():
    """The same, one entry away from the kink 1 % off: the tie must not hide it."""
    f, w, grad, _ = elastic_net()
    return Scalar(f, w, grad * [1, 1, 1.01])


@right
def ridge_at_its_optimum():
    """The normal equations are solved: what is left of the gradient is rounding."""
    y = normal(20, seed=14)
    w = np.linalg.solve(X.T @ X + 0.1 * np.eye(3), X.T @ y)
    return Scalar(lambda w: ((y - X @ w) ** 2).sum() + 0.1 * (w**2).sum(), w, 2 * X.T @ (X @ w - y) + 0.2 * w)


@wrong
def ridge_at_its_optimum_without_the_penalty():
    """The same point, with the penalty's gradient left out."""
    f, w, grad, _ = ridge_at_its_optimum()
    return Scalar(f, w, grad - 0.2 * w)
