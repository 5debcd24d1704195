"""Exercise 12: the loss of black and white pixels, in atoms.

The decoder gives a logit for each pixel, and the pixel is 1 with the probability p = σ(logit). The negative log-likelihood of
the pixels x (zeros and ones) is summed over the D pixels of each row:

    p = σ(logits),  q = 1 - p,  nll = -Σ_d [x log p + (1 - x) log q]

Shapes: logits, x (B, D); nll (B,).

Read before: lesson 11, examples/learn/11_atoms_to_fused.py.

Task: replace each `...` in bernoulli_nll_backward by one line.

Hints
* A sum over an axis in the forward is a copy along that axis in the backward: each pixel of row b gets dnll_b. Give dper_pixel
  the full shape (B, D): `dnll[:, None]` is (B, 1), and times np.ones_like(x) it is filled up.
* (log u)' = 1/u.
* p is used twice: in log_p, and in q.
* σ' = σ (1 - σ), which is p q.

    python examples/learn/check.py 12

Compare with, after solving: exercise 13, where all these lines become one.
"""

import numpy as np


def bernoulli_nll_forward(logits, x):
    p = 1 / (1 + np.exp(-logits))  # (B, D)
    q = 1 - p  # (B, D)
    log_p = np.log(p)  # (B, D)
    log_q = np.log(q)  # (B, D)
    per_pixel = -(x * log_p + (1 - x) * log_q)  # (B, D)
    nll = per_pixel.sum(axis=1)  # (B, D) -> (B,)
    return nll, (logits, x, p, q)


def bernoulli_nll_backward(dnll, cache):
    logits, x, p, q = cache
    dper_pixel = ...  # (B, D)    nll = per_pixel.sum(axis=1)
    dlog_p = ...  # (B, D)        per_pixel = -(x * log_p + (1 - x) * log_q)
    dlog_q = ...  # (B, D)        per_pixel = -(x * log_p + (1 - x) * log_q)
    dq = ...  # (B, D)            log_q = np.log(q)
    dp = ...  # (B, D)            log_p = np.log(p)     and     q = 1 - p
    dlogits = ...  # (B, D)       p = 1 / (1 + np.exp(-logits))
    return dlogits
