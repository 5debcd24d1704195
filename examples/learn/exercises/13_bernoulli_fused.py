"""Exercise 13: the loss of black and white pixels, fused into one line.

The same loss as in exercise 12. With p = σ(l), log p = -log(1 + e^-l) and log(1 - p) = -log(1 + e^l) give

    -[x log p + (1 - x) log(1 - p)] = log(1 + e^l) - x l,

which is softplus(l) - x l, written here as in exercise 6 so that it never overflows.

Read before: lesson 11, examples/learn/11_atoms_to_fused.py.

Task: write dlogits in one line. p = σ(logits) is in the cache. Put the six lines of exercise 12 into each other until the
fractions cancel, or differentiate softplus(l) - x l directly.

Hints
* The slope of softplus is the sigmoid.
* Each row has its own upstream gradient dnll_b: give dnll a second axis, so that (B, 1) meets (B, D).
* What is left says something: for a pixel that is 1 the gradient is p - 1, for one that is 0 it is p.

    python examples/learn/check.py 13

Compare with, after solving: bernoulli_nll_backward in npvae/ops/likelihood.py, line (BERNOULLI-logits).
"""

import numpy as np


def bernoulli_nll_forward(logits, x):
    positive = logits.real > 0  # (B, D)
    softplus = np.where(positive, logits, 0) + np.log1p(np.exp(np.where(positive, -logits, logits)))  # (B, D)
    nll = (softplus - x * logits).sum(axis=1)  # (B, D) -> (B,)
    p = 1 / (1 + np.exp(-logits))  # (B, D)    for the backward pass
    return nll, (logits, x, p)


def bernoulli_nll_backward(dnll, cache):
    logits, x, p = cache
    dlogits = ...  # (B, D)    nll = (softplus - x * logits).sum(axis=1)
    return dlogits
