"""Exercise 11: the latent variable, where a VAE is not a chain.

The encoder's output holds mu in its first half and logvar = log σ² in the second. Both are used twice: z goes on to the
decoder, and kl goes into the loss.

    posterior (B, 2L)  ->  mu, logvar  ->  z = mu + σ eps                        (B, L)
                                       ->  kl = (mu² + σ² - 1 - logvar)/2        (B, L)

Two gradients come back, dz and dkl, and both reach mu and both reach logvar. (eps has one sample for each row here: no sum.)

Read before: lesson 10, examples/learn/10_the_whole_vae.py.

Task: replace each `...` in latent_backward by one line. dmu and dlogvar are sums of two terms each.

Hints
* The terms are known from exercises 8 (through z) and 10 (through the KL), fused into one line each.
* σ² is sigma**2.
* Two halves were cut out of posterior, so that dposterior is put together of two halves: np.concatenate, along axis 1.

    python examples/learn/check.py 11

Compare with, after solving: latent_backward in npvae/ops/latent.py.
"""

import numpy as np


def latent_forward(posterior, eps):
    L = posterior.shape[1] // 2
    mu = posterior[:, :L]  # (B, 2L) -> (B, L)
    logvar = posterior[:, L:]  # (B, 2L) -> (B, L)
    sigma = np.exp(0.5 * logvar)  # (B, L)
    z = mu + sigma * eps  # (B, L)
    kl = 0.5 * (mu**2 + sigma**2 - 1 - logvar)  # (B, L)
    return (z, kl), (mu, sigma, eps)


def latent_backward(dz, dkl, cache):
    mu, sigma, eps = cache
    dmu = ...  # (B, L)            z = mu + sigma * eps     and     kl = 0.5 * (mu**2 + ...)
    dlogvar = ...  # (B, L)        through sigma into z, through sigma**2 into kl, and -logvar in kl
    dposterior = ...  # (B, 2L)    mu = posterior[:, :L]    and     logvar = posterior[:, L:]
    return dposterior
