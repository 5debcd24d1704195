"""Exercise 15: the loss of a VAE, where the batch is averaged.

    loss = 1/(B S) Σ_sb nll_sb + beta Σ_l (1/B Σ_b kl_bl)

nll (S, B): S samples of z for each row. kl (B, L): each latent dimension by itself. beta: one number, the weight of the KL;
with beta = 1 this is minus the ELBO. Sums over dimensions, means over the batch: 1/B enters in the bounds
only, here and in exercise 16.

Read before: lesson 08, examples/learn/08_elbo_and_its_gap.py.

Task: replace each `...` in elbo_backward by one line.

Hints
* A mean over n numbers has the slope 1/n with respect to each of them. nll.mean() is over all S B numbers.
* dname has the shape of name: np.full_like(nll, number) fills an array.
* kl.mean(axis=0) is a mean over the B rows: dmean_kl (L,) is copied to all rows, and divided by B.

    python examples/learn/check.py 15

Compare with, after solving: elbo_backward in npvae/ops/bounds.py, lines (ELBO-nll) and (ELBO-kl).
"""

import numpy as np


def elbo_forward(nll, kl, beta):
    mean_nll = nll.mean()  # (S, B) -> one number
    mean_kl = kl.mean(axis=0)  # (B, L) -> (L,)
    weighted_kl = beta * np.sum(mean_kl)  # (L,) -> one number
    loss = mean_nll + weighted_kl
    return loss, (nll, kl, mean_kl, beta)


def elbo_backward(dloss, cache):
    nll, kl, mean_kl, beta = cache
    dnll = ...  # (S, B)      mean_nll = nll.mean()
    dmean_kl = ...  # (L,)    weighted_kl = beta * np.sum(mean_kl)
    dkl = ...  # (B, L)       mean_kl = kl.mean(axis=0)
    return dnll, dkl
