"""How the workers of one step wait for each other inside of a kernel, where that takes a microsecond.

To wake a sleeping thread costs tens of microseconds, as much as a small product of matrices. So a worker that expects to go on
at once looks again and again at a number in memory that another worker changes, and sleeps only after a while
(`npvae.core.workers`). `signals` are int64, LINE apart, since workers that write to one cache line take it from each other:

    signals[k LINE]         how often worker k has arrived at a meeting; ABORTED where it never will
    signals[n LINE]         how many steps have begun
    signals[(n + 1) LINE]   the last meeting of which somebody said that something was not finite
    signals[(n + 1 + k) LINE]   the last step that worker k > 0 has done

Loads and stores of signals are atomic and ordered: who sees a number sees all that its writer wrote before.
"""

import os
import time
from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from npvae.core.workers import ABORTED, LINE
from npvae.kernels.compile import inlined, jit

# Looks at a signal before a worker sleeps, some 300 µs, and before it lets another thread have its core. Uncompiled: slow ones.
LOOKS, LOOKS_IN_A_ROW = (1, 1) if numba.config.DISABLE_JIT else (500_000, 10_000)


class Team(NamedTuple):
    """The workers that compute one gradient together: each its rows, then its part of every layer's gradient, then the update
    of that part. The same for each but for `k`."""

    k: int  # which of them
    firsts: np.ndarray  # (n + 1,) the first rows of their shards, and B
    x: np.ndarray  # (B, D) the rows of all
    signals: np.ndarray
    update: str  # the optimiser's, one of `npvae.kernels.updates.PARTS`
    slots: tuple  # its two arrays (P,)
    numbers: np.ndarray  # its numbers, learning rate and so on; nothing is updated where the first of them is 0

    @property
    def in_kernel(self):
        """What a kernel is handed of it."""
        return self.k, self.firsts, self.x, self.signals, *self.slots, self.numbers


def alone(theta, x):
    """The Team of one worker that computes all, and no update."""
    return Team(0, np.array([0, len(x)]), x, NO_SIGNALS, "none", (theta, theta), NO_NUMBERS)


def of_worker(workspace, *team):
    """The workspace of a worker, from the fields of its Team."""
    return workspace._replace(team=Team(*team))


NO_SIGNALS, NO_NUMBERS = np.zeros(0, np.int64), np.zeros(1)

if numba.config.DISABLE_JIT:

    def load(signals, place):
        return signals[place]

    def store(signals, place, number):
        signals[place] = number

    def give_way():
        time.sleep(0)

else:
    give_way = types.ExternalFunction("sched_yield" if os.name == "posix" else "SwitchToThread", types.int32())

    @intrinsic
    def load(_, signals, place):
        """signals[place]."""

        def generate(context, builder, signature, arguments):
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            return builder.load_atomic(builder.gep(array.data, [arguments[1]]), "acquire", 8)

        return types.int64(signals, types.int64), generate

    @intrinsic
    def store(_, signals, place, number):
        """signals[place] = number."""

        def generate(context, builder, signature, arguments):
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            builder.store_atomic(arguments[2], builder.gep(array.data, [arguments[1]]), "release", 8)
            return context.get_dummy_value()

        return types.none(signals, types.int64, types.int64), generate


def _watch(signals, place, number, looks):
    """Look at a signal until it is at least `number`, or so often; returns whether it is."""
    n = 0  # without the processor's instruction to pause: a virtual machine may lose its core where that is used
    while n < looks and load(signals, place) < number:
        n += 1
        if n % LOOKS_IN_A_ROW == 0:
            give_way()
    return n < looks


def _rest(signals, k, n, number):
    """Say that worker k has done step `number`, then look for the beginning of the next."""
    store(signals, (n + 1 + k) * LINE, number)
    watch(signals, n * LINE, number + 1, LOOKS)


def _begin(signals, k, n):
    """The first line of a step's kernel: worker 0 tells the others to come."""
    if k == 0 and n > 1:
        store(signals, n * LINE, load(signals, n * LINE) + 1)


def _meet(signals, k, n, is_finite):
    """Wait until all n workers have come here; returns whether all is finite, as each says of its part."""
    if n == 1:
        return is_finite
    number = load(signals, k * LINE) + 1
    if not is_finite:
        store(signals, (n + 1) * LINE, number)
    store(signals, k * LINE, number)
    for other in range(n):
        while not watch(signals, other * LINE, number, LOOKS):
            pass
        if load(signals, other * LINE) >= ABORTED:
            return False
    return load(signals, (n + 1) * LINE) != number


def _leave(signals, k, n):
    """The last line of a step's kernel: worker 0 lets the others end first. They need Python's lock for that, and who comes
    when another has it falls asleep."""
    if k == 0:
        for other in range(1, n):
            watch(signals, (n + 1 + other) * LINE, load(signals, n * LINE), LOOKS)


watch, rest = inlined(_watch), jit(_rest)
begin, meet, leave = inlined(_begin), inlined(_meet), inlined(_leave)
