"""Exercise 5: the sigmoid-weighted linear unit, and the product rule.

    h = pre σ(pre),   σ(u) = 1/(1 + e^-u)          any shape, entry by entry

pre is used twice: as the first factor, and inside of the second one. The product rule of calculus is the same statement as
"gradients of two ways are added".

Read before: lesson 03, examples/learn/03_activations.py.

Task: replace each `...` in silu_backward by one line.

Hints
* h = pre * sigmoid: with respect to sigmoid, the factor that stays is pre.
* dpre has two terms, one for each use of pre.
* σ' = σ (1 - σ), as in exercise 1.

    python examples/learn/check.py 5

Compare with, after solving: silu_backward in npvae/ops/layers.py.
"""

import numpy as np


def silu_forward(pre):
    sigmoid = 1 / (1 + np.exp(-pre))  # (B, H)
    h = pre * sigmoid  # (B, H)
    return h, (pre, sigmoid, h)


def silu_backward(dh, cache):
    pre, sigmoid, h = cache
    dsigmoid = ...  # (B, H)    h = pre * sigmoid
    dpre = ...  # (B, H)        h = pre * sigmoid     and     sigmoid = 1 / (1 + np.exp(-pre))
    return dpre
