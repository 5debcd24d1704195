"""Compiled twins of the pairs in `npvae.bounds`: the loss and what nll and kl receive from it, in one pass."""

import numpy as np

from npvae.kernels.compile import jit


def _elbo_rows(nll, kl, beta, batch_size, dkl):
    """The loss of nll (S, B) and kl (1, B, L); fills dkl. dnll is 1/(B S) for every sample."""
    loss = nll.sum() / (batch_size * len(nll))
    for b in range(kl.shape[1]):
        for l in range(kl.shape[2]):
            loss += beta[l] * kl[0, b, l] / batch_size
            dkl[0, b, l] = beta[l] / batch_size  # (ELBO-kl)
    return loss


def _iwae_rows(nll, kl, beta, batch_size, dnll, dkl):
    """The loss of nll (S, B) and kl (S, B, L); fills dnll (S, B) and dkl."""
    n_samples, n_rows, n_latent = kl.shape
    loss, log_w = 0.0, np.empty(n_samples)
    for b in range(n_rows):
        for s in range(n_samples):
            log_w[s] = -nll[s, b]
            for l in range(n_latent):
                log_w[s] -= beta[l] * kl[s, b, l]
        largest = log_w.max()
        total = largest + np.log(np.exp(log_w - largest).sum())
        loss -= (total - np.log(n_samples)) / batch_size
        for s in range(n_samples):
            dnll[s, b] = np.exp(log_w[s] - total) / batch_size  # (IWAE-nll)
            for l in range(n_latent):
                dkl[s, b, l] = dnll[s, b] * beta[l]  # (IWAE-kl)
    return loss


elbo = jit(_elbo_rows)
iwae = jit(_iwae_rows)
