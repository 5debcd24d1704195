"""The updates of the optimisers: pure functions of arrays that change θ and the optimiser's state in place.

All arrays are (P,), P the number of parameters; the gradient may also come as shares that add up, (shards, P).
`npvae.training.optim` holds the hyperparameters.
"""

import numpy as np


def total(grad):
    """The gradient (P,), summed over its shards if it comes as (shards, P)."""
    return grad.sum(axis=0) if grad.ndim == 2 else grad


def sgd_step(theta, grad, learning_rate):
    """Gradient descent: θ ← θ − η g. Robbins & Monro 1951."""
    theta -= learning_rate * total(grad)


def momentum_step(theta, grad, velocity, learning_rate, momentum):
    """Heavy ball: v ← γ v + η g; θ ← θ − v. Polyak 1964."""
    velocity *= momentum
    velocity += learning_rate * total(grad)
    theta -= velocity


def adagrad_step(theta, grad, sum_of_squares, learning_rate, epsilon):
    """AdaGrad: r ← r + g²; θ ← θ − η g/(√r + ε). Duchi, Hazan & Singer 2011."""
    grad = total(grad)
    sum_of_squares += grad * grad
    theta -= learning_rate * grad / (np.sqrt(sum_of_squares) + epsilon)


def rmsprop_step(theta, grad, mean_square, learning_rate, decay, epsilon):
    """RMSProp: v ← ρ v + (1 − ρ) g²; θ ← θ − η g/(√v + ε). Tieleman & Hinton 2012, lecture 6.5."""
    grad = total(grad)
    mean_square *= decay
    mean_square += (1 - decay) * (grad * grad)
    theta -= learning_rate * grad / (np.sqrt(mean_square) + epsilon)


def adam_step(theta, grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """Adam. Kingma & Ba 2015, Algorithm 1, at step t = 1, 2, ...:

    m ← β1 m + (1 − β1) g
    v ← β2 v + (1 − β2) g²
    θ ← θ − η m̂/(√v̂ + ε)  with  m̂ = m/(1 − β1ᵗ), v̂ = v/(1 − β2ᵗ)
    """
    grad = total(grad)
    m *= beta1
    m += (1 - beta1) * grad
    v *= beta2
    v += (1 - beta2) * (grad * grad)
    step_size = learning_rate / (1 - beta1**t)
    root_correction = (1 - beta2**t) ** 0.5
    theta -= step_size * m / (np.sqrt(v) / root_correction + epsilon)
