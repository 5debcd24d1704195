"""The random numbers of a run: everything random is a pure function of the seed and of counters.

The order of rows depends on (seed, epoch), noise and binarisation of a step on (seed, shard, step). What a step draws does not
depend on what was drawn before, so that a run can be continued anywhere.
"""

import numpy as np

# The streams of random numbers that one seed gives.
PERMUTATION, STEP, VALIDATION, FULL_BATCH = range(4)


def generator(seed, stream, *counters):
    """A generator of its own for each set of arguments: a pure function of them."""
    return np.random.default_rng([seed, stream, *counters])


def permutation(rng, n):
    """rng.permutation(n), the same numbers in 4 bytes each where that is possible."""
    order = np.arange(n, dtype=np.uint32 if n < 2**32 else np.int64)
    rng.shuffle(order)
    return order


class Stream:
    """The random numbers of one shard, step by step; `at(step)` is as good as a `generator` of the step, and 10 times as fast.

    One sequence of PCG64DXSM, of period 2^128, in which step t begins at t times a stride of about 2^128 (√5 − 1)/2: wherever
    a run goes on, any two of up to 10^12 steps are more than 10^25 numbers apart (the jumps of NumPy's parallel streams).
    """

    STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835

    def __init__(self, seed, stream, *counters):
        self.bits = np.random.PCG64DXSM([seed, stream, *counters])
        self.beginning = self.bits.state
        self.generator = np.random.Generator(self.bits)

    def at(self, step):
        """The generator, moved to where the numbers of `step` begin."""
        self.bits.state = self.beginning
        self.bits.advance(step * self.STRIDE)
        return self.generator
