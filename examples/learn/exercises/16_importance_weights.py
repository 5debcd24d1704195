"""Exercise 16: the importance-weighted bound, and where a softmax comes from.

Each of the S samples of z for a row has a weight, with log w_s = -nll_s - beta Σ_l kl_sl. Here kl is that of the sample itself,
log q(z_s|x) - log p(z_s) for each latent dimension (lesson 06). For beta = 1 the weight is w_s = p(x, z_s)/q(z_s|x), and
minus the loss is a bound on log p(x) that gets tighter with S (Burda, Grosse & Salakhutdinov 2016):

    loss = -1/B Σ_b log (1/S Σ_s w_sb)

Shapes: nll (S, B); kl (S, B, L); beta one number. So that no exponential overflows, the largest log w of each
row is taken out before and added again after: it drops out of the result, and counts as a constant here.

Read before: lesson 08, examples/learn/08_elbo_and_its_gap.py.

Task: replace each `...` in iwae_backward by one line.

Hints
* log(total / S) = log(total) - log(S).
* total sums over the S samples: its gradient (B,) is copied to all samples, (S, B).
* The exponential is its own slope, and w is in the cache.
* weighted_kl sums over L: a third axis, [..., None], and a copy along it.

When all is right, put dtotal, dw and dlog_w into each other: dlog_w = dbound w/Σ_s w. Each sample gets its share of the
gradient, and the shares are a softmax of log w over the samples.

    python examples/learn/check.py 16

Compare with, after solving: iwae_backward in npvae/ops/bounds.py.
"""

import numpy as np


def iwae_forward(nll, kl, beta):
    weighted_kl = (beta * kl).sum(axis=-1)  # (S, B, L) -> (S, B)
    log_w = -nll - weighted_kl  # (S, B)
    largest = log_w.real.max(axis=0)  # (S, B) -> (B,)
    w = np.exp(log_w - largest)  # (S, B)
    total = w.sum(axis=0)  # (S, B) -> (B,)
    bound = np.log(total / len(w)) + largest  # (B,)
    loss = -bound.mean()  # (B,) -> one number
    return loss, (kl, beta, w, total, bound)


def iwae_backward(dloss, cache):
    kl, beta, w, total, bound = cache
    dbound = ...  # (B,)            loss = -bound.mean()
    dtotal = ...  # (B,)            bound = np.log(total / len(w)) + largest
    dw = ...  # (S, B)              total = w.sum(axis=0)
    dlog_w = ...  # (S, B)          w = np.exp(log_w - largest)
    dnll = ...  # (S, B)            log_w = -nll - weighted_kl
    dweighted_kl = ...  # (S, B)    log_w = -nll - weighted_kl
    dkl = ...  # (S, B, L)          weighted_kl = (beta * kl).sum(axis=-1)
    return dnll, dkl
