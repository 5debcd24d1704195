"""Exercise 10: the Gaussian KL, its gradient.

    kl = (mu² + σ² - 1 - logvar)/2,   σ² = e^logvar          (B, L), entry by entry

(The value is exercise 9. Solve that one first: this file shows its solution.)

Read before: lesson 06, examples/learn/06_gaussian_kl.py.

Task: replace each `...` in gaussian_kl_backward by one line.

Hints
* logvar is used twice: inside of variance, and in the line of kl itself.
* Each of the four terms in the bracket has the slope 1/2, two of them with a minus sign in front.

When all is right, put the lines into each other: dmu = dkl mu and dlogvar = dkl (σ² - 1)/2. The KL pulls mu to 0 and σ to 1.

    python examples/learn/check.py 10

Compare with, after solving: gaussian_kl_backward in npvae/ops/latent.py, lines (KL-mu) and (KL-logvar).
"""

import numpy as np


def gaussian_kl_forward(mu, logvar):
    square = mu * mu  # (B, L)
    variance = np.exp(logvar)  # (B, L)
    kl = 0.5 * (square + variance - 1 - logvar)  # (B, L)
    return kl, (mu, variance)


def gaussian_kl_backward(dkl, cache):
    mu, variance = cache
    dsquare = ...  # (B, L)      kl = 0.5 * (square + variance - 1 - logvar)
    dmu = ...  # (B, L)          square = mu * mu
    dvariance = ...  # (B, L)    kl = 0.5 * (square + variance - 1 - logvar)
    dlogvar = ...  # (B, L)      variance = np.exp(logvar)     and     kl = ...
    return dmu, dlogvar
