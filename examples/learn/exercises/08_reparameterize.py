"""Exercise 8: a gradient through a random sample.

The encoder of a VAE says which Gaussian z is drawn from: mean mu and logvar = log σ². The sample is written as a function of
these two and of noise eps ~ N(0, 1) that does not depend on them, so that it has a gradient:

    z = mu + σ eps,   σ = e^(logvar/2)

Shapes: mu, logvar (B, L); eps and z (S, B, L), S samples of each row.

Read before: lesson 07, examples/learn/07_reparameterisation.py.

Task: replace each `...` in reparameterize_backward by one line.

Hints
* mu (B, L) is added to all S samples: NumPy's broadcasting copies it S times. What is used S times collects S gradients. So a
  broadcast in the forward is a sum over the same axis in the backward.
* sigma is used S times as well.
* (e^(u/2))' = e^(u/2)/2.

    python examples/learn/check.py 8

Compare with, after solving: reparameterize_backward in npvae/ops/latent.py.
"""

import numpy as np


def reparameterize_forward(mu, logvar, eps):
    sigma = np.exp(0.5 * logvar)  # (B, L)
    noise = sigma * eps  # (B, L) * (S, B, L) -> (S, B, L)
    z = mu + noise  # (B, L) + (S, B, L) -> (S, B, L)
    return z, (sigma, eps)


def reparameterize_backward(dz, cache):
    sigma, eps = cache
    dmu = ...  # (B, L)          z = mu + noise
    dnoise = ...  # (S, B, L)    z = mu + noise
    dsigma = ...  # (B, L)       noise = sigma * eps
    dlogvar = ...  # (B, L)      sigma = np.exp(0.5 * logvar)
    return dmu, dlogvar
