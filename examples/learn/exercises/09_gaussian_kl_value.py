"""Exercise 9: the Gaussian KL, its value.

How far is q = N(mu, σ²) from the prior p = N(0, 1)? The Kullback-Leibler divergence is the mean of log q(z) - log p(z) over z
drawn from q:

    log q(z) = -[(z - mu)²/σ² + log σ² + log 2π]/2          log p(z) = -[z² + log 2π]/2

Read before: lesson 06, examples/learn/06_gaussian_kl.py.

Task: take the mean over q on paper, and write it as code: `variance`, which is σ², and `kl`. Given are mu and logvar = log σ²,
(B, L) each. Asked is the KL of each entry, (B, L), with no sum.

Hints
* The mean of (z - mu)² is σ², by definition. So the mean of the first bracket is 1 + log σ² + log 2π.
* The mean of z² is mu² + σ².
* A test for your result: for mu = 0 and σ = 1 the two densities are the same, and the KL is 0.

    python examples/learn/check.py 9

Compare with, after solving: gaussian_kl_forward in npvae/ops/latent.py.
"""

import numpy as np


def gaussian_kl_forward(mu, logvar):
    variance = ...  # (B, L)    logvar = log(variance)
    kl = ...  # (B, L)
    return kl, (mu, variance)


if __name__ == "__main__":
    if ... in gaussian_kl_forward.__code__.co_consts:
        raise SystemExit("still open: put code in the place of `...`")
    print(gaussian_kl_forward(np.zeros((1, 1)), np.zeros((1, 1)))[0])
