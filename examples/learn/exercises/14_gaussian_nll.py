"""Exercise 14: the loss of real numbers, squared error with a unit.

The decoder gives the mean of a Gaussian with a fixed variance σ². The negative log-likelihood of x, summed over the D numbers
of each row, is the squared error in units of 2 σ², and a constant:

    nll = Σ_d (mean - x)²/(2 σ²) + (D/2) log(2 π σ²)

Shapes: mean, x (B, D); variance, that is σ², one number; nll (B,). The data x and the variance need no gradient.

Read before: lesson 11, examples/learn/11_atoms_to_fused.py.

Task: replace each `...` in gaussian_nll_backward by one line.

Hints
* nll sums over axis 1, so that dnll_b is copied to all D entries of row b, as in exercise 12: dsquare has the shape (B, D).
* (u²)' = 2 u.
* When all is right, fuse: dmean = dnll (mean - x)/σ². A small variance makes large gradients.

    python examples/learn/check.py 14

Compare with, after solving: gaussian_nll_backward in npvae/ops/likelihood.py, line (GAUSSIAN-mean).
"""

import numpy as np


def gaussian_nll_forward(mean, x, variance):
    residual = mean - x  # (B, D)
    square = residual * residual  # (B, D)
    constant = 0.5 * x.shape[1] * np.log(2 * np.pi * variance)
    nll = square.sum(axis=1) / (2 * variance) + constant  # (B, D) -> (B,)
    return nll, (x, residual, variance)


def gaussian_nll_backward(dnll, cache):
    x, residual, variance = cache
    dsquare = ...  # (B, D)      nll = square.sum(axis=1) / (2 * variance) + constant
    dresidual = ...  # (B, D)    square = residual * residual
    dmean = ...  # (B, D)        residual = mean - x
    return dmean
