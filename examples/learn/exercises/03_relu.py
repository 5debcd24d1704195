"""Exercise 3: the rectifier, an activation with a kink.

    h = pre where pre > 0, else 0          any shape, entry by entry

Read before: lesson 03, examples/learn/03_activations.py.

Task: write the one line of relu_backward.

Hints
* Where pre > 0 the output is pre itself: what is the slope there? And where the output is 0, whatever pre is?
* At pre = 0 there is no slope. The forward line counts 0 as "off", and the backward line has to agree with it.
* np.where(condition, a, b) chooses entry by entry.
* Do not write into dh: others read it too. Make a new array.

(`.real` is there so that the judge can put complex numbers in; your line works with and without it.)

    python examples/learn/check.py 3

Compare with, after solving: relu_backward in npvae/ops/layers.py.
"""

import numpy as np


def relu_forward(pre):
    h = np.where(pre.real <= 0, 0, pre)  # (B, H)
    return h, pre


def relu_backward(dh, cache):
    pre = cache
    dpre = ...  # (B, H)    h = np.where(pre.real <= 0, 0, pre)
    return dpre
