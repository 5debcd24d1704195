"""Losses: softmax and cross-entropy, hinge, absolute and Huber errors, a VAE's loss."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


# --------------------------------------------------------------------------------------------------------- losses

LABELS = np.array([0, 2, 1, 2])


def cross_entropy(x, y):
    p = softmax(x)
    return -np.log(p[np.arange(len(y)), y]).mean(), (p, y)


@right
def cross_entropy_of_labels():
    """Softmax and cross-entropy in one, p[arange(N), y] −= 1."""

    def backward(dloss, cache):
        p, y = cache
        dx = p.copy()
        dx[np.arange(len(y)), y] -= 1
        return dloss * dx / len(y)

    return Pair(cross_entropy, backward, (normal(4, 3), LABELS))


@wrong
def cross_entropy_not_divided_by_the_batch():
    """The loss is a mean, the gradient a sum."""

    def backward(dloss, cache):
        p, y = cache
        dx = p.copy()
        dx[np.arange(len(y)), y] -= 1
        return dloss * dx

    return Pair(cross_entropy, backward, (normal(4, 3), LABELS))


@wrong
def cross_entropy_that_subtracts_one_everywhere():
    """dx[:, y] −= 1 indexes columns for all rows."""

    def backward(dloss, cache):
        p, y = cache
        dx = p.copy()
        dx[:, y] -= 1
        return dloss * dx / len(y)

    return Pair(cross_entropy, backward, (normal(4, 3), LABELS))


@right
def softmax_alone():
    """The Jacobian as a product with the upstream."""
    return Pair(lambda x: (softmax(x),) * 2, lambda d, p: p * (d - (d * p).sum(axis=-1, keepdims=True)), (normal(4, 3),))


@wrong
def softmax_with_a_diagonal_jacobian():
    """p (1 − p): only the diagonal of the Jacobian."""
    return Pair(lambda x: (softmax(x),) * 2, lambda d, p: d * p * (1 - p), (normal(4, 3),))


@right
def log_sum_exp():
    """log Σ exp, stabilised by the maximum."""

    def forward(x):
        top = x.max(axis=1)
        return top + np.log(np.exp(x - top[:, None]).sum(axis=1)), x

    return Pair(forward, lambda d, x: d[:, None] * softmax(x), (normal(4, 3),))


@right
def sum_of_a_softmax():
    """Σ softmax = 1, whatever x is: the gradient is zero up to rounding."""
    x = normal(5)
    p = softmax(x)
    return Scalar(lambda x: softmax(x).sum(), x, p * (1 - p.sum()))


@wrong
def sum_of_a_softmax_taken_for_its_derivative():
    """Σ softmax = 1, with a gradient of p (1 − p)."""
    x = normal(5)
    return Scalar(lambda x: softmax(x).sum(), x, softmax(x) * (1 - softmax(x)))


def guarded(factor):
    def forward(p, y):
        return -(y * np.log(p + 1e-8)).sum(), (p, y)

    y = np.eye(3)[[0, 2, 1, 2]]
    return Pair(forward, lambda d, c: (-factor * d * c[1] / c[0], None), (softmax(normal(4, 3)), y), {"threshold": 1e-6})


@right
def cross_entropy_with_a_guard_in_forward_only():
    """log(p + 1e-8) in forward, 1/p in backward, judged with threshold=1e-6."""
    return guarded(1)


@wrong(error=0.25)
def cross_entropy_with_a_guard_and_a_factor():
    """The same, divided by the batch size in backward only, which threshold=1e-6 must not hide."""
    return guarded(0.25)


@right
def hinge_loss_of_many_classes():
    """Loops over rows and classes, dW by whole columns."""
    X, y, W = normal(5, 4, seed=1), np.array([0, 2, 1, 1, 0]), normal(4, 3)

    def loss(W):
        total = 0.0
        for i in range(len(X)):
            scores = X[i].dot(W)
            for j in range(W.shape[1]):
                if j != y[i] and scores[j] - scores[y[i]] + 1 > 0:
                    total += scores[j] - scores[y[i]] + 1
        return total / len(X)

    return Scalar(loss, W, hinge_gradient(W, X, y, count=True))


def hinge_gradient(W, X, y, count):
    dW = np.zeros(W.shape)
    for i in range(len(X)):
        scores = X[i].dot(W)
        for j in range(W.shape[1]):
            if j != y[i] and scores[j] - scores[y[i]] + 1 > 0:
                dW[:, j] += X[i]
                if count:
                    dW[:, y[i]] -= X[i]
    return dW / len(X)


@wrong
def hinge_loss_without_the_true_class():
    """The column of the true class is left out."""
    loss, W, _, _ = hinge_loss_of_many_classes()
    return Scalar(loss, W, hinge_gradient(W, normal(5, 4, seed=1), np.array([0, 2, 1, 1, 0]), count=False))


@right
def mean_absolute_error():
    """np.abs(x − y).mean(), np.sign for its slope."""
    y = normal(4, 3, seed=1)
    return Pair(lambda x: (np.abs(x - y).mean(), x), lambda d, x: d * np.sign(x - y) / x.size, (normal(4, 3),))


@right
def huber_loss():
    """Quadratic inside of 1, linear outside."""
    y = normal(8, seed=1)

    def f(x):
        r = np.abs(x - y)
        return np.where(r < 1, 0.5 * r**2, r - 0.5).sum()

    return Scalar(f, normal(8), np.clip(normal(8) - y, -1, 1))


@wrong
def huber_loss_without_the_sign():
    """Outside of 1 the slope is 1, whatever the sign."""
    f, x, grad, _ = huber_loss()
    return Scalar(f, x, np.where(np.abs(grad) < 1, grad, 1))


# ------------------------------------------------------------------------------------------------- autoencoders


def vae_loss(mu, logvar, eps, x):
    """½ |x − z|² + KL, summed over latents and averaged over rows, with one draw of noise handed in."""
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps
    kl = -0.5 * (1 + logvar - mu**2 - np.exp(logvar))
    return ((0.5 * (z - x) ** 2).sum() + kl.sum()) / len(x), (mu, logvar, sigma, eps, z - x)


def of_vae(kl_half=0.5, sampler_half=0.5):
    def backward(dloss, cache):
        mu, logvar, sigma, eps, dz = cache
        dlogvar = sampler_half * dz * sigma * eps + kl_half * (np.exp(logvar) - 1)
        return dloss * (dz + mu) / len(mu), dloss * dlogvar / len(mu), None, None

    return Pair(vae_loss, backward, (normal(4, 2), normal(4, 2, seed=1), normal(4, 2, seed=2), normal(4, 2, seed=3)))


@right
def variational_loss():
    """A Gaussian VAE's loss in mu and logvar; no gradients of eps and x."""
    return of_vae()


@wrong
def variational_loss_without_half_in_the_sampler():
    """σ eps in place of ½ σ eps."""
    return of_vae(sampler_half=1)


@wrong
def variational_loss_without_half_in_the_divergence():
    """e^logvar − 1 in place of half of it."""
    return of_vae(kl_half=1)
