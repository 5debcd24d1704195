"""Exercise 18: what is done with a gradient, one step of Adam.

Adam (Kingma & Ba 2015) keeps two running averages: m of the gradient g, and v of its square. At step t = 1, 2, ...

    m ← β1 m + (1 - β1) g             m̂ = m/(1 - β1ᵗ)
    v ← β2 v + (1 - β2) g²            v̂ = v/(1 - β2ᵗ)             θ ← θ - η m̂/(√v̂ + ε)

The averages start at zero, and are too small in the first steps: m̂ and v̂ correct this. In the code η is learning_rate, and ε is
epsilon. theta, grad, m and v are (P,), with P the number of parameters.

Read before: lesson 09, examples/learn/09_optimisers.py.

Task: replace each `...` in adam_step by one line. The last three lines write the results into the arrays that were handed over:
they are given.

Hints
* Everything is entry by entry.
* m_hat and v_hat are made of the new averages, not of the old ones.
* A test for the corrections: at t = 1, from m = v = 0, m_hat is the gradient and v_hat its square, so that each entry of theta
  moves by about the learning rate.

    python examples/learn/check.py 18

Compare with, after solving: adam_step in npvae/ops/updates.py.
"""

import numpy as np


def adam_step(theta, grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    new_m = ...  # (P,)
    new_v = ...  # (P,)
    m_hat = ...  # (P,)
    v_hat = ...  # (P,)
    step = ...  # (P,)    with np.sqrt
    m[:] = new_m
    v[:] = new_v
    theta -= step


if __name__ == "__main__":
    if ... in adam_step.__code__.co_consts:
        raise SystemExit("still open: put code in the place of `...`")
    theta, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    adam_step(theta, np.array([1.0, -20, 300]), m, v, 1, 0.01, 0.9, 0.999, 1e-8)
    print(theta)
