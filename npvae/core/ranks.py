"""Ranks: processes that train one model together, each with its shards of every batch, over MPI.

The seam along which a batch is cut for threads (`npvae.core.workers`) is the one along which it is cut for processes. Each rank
computes the gradient of its own shards, and one sum over all ranks makes of them that of the batch. Between steps every rank
holds the same model and the same state, so what follows from them (to leave out a step, to stop early) is decided alike
everywhere without a message.

An error within `gathered` or `first` is one on all ranks. Any other error of one rank leaves the others waiting for it: who
trains from Python starts with `python -m mpi4py`, which then ends them all, and the command line does the same.

`comm` is a communicator of mpi4py, which is not imported here: without one there is one rank, and nothing to wait for.
"""

import os
import platform
from collections import Counter

import numpy as np

from npvae.core.cores import cores_available
from npvae.core.parameters import zeros
from npvae.core.workers import parts_of


class OtherRankFailedError(RuntimeError):
    """An error of another rank, with its number and what it said."""


class Ranks:
    """All ranks of a communicator, seen from this one: `n`, and the number of this one, `rank`."""

    def __init__(self, comm=None):
        self.comm = comm
        self.rank, self.n = (0, 1) if comm is None else (comm.Get_rank(), comm.Get_size())

    @property
    def is_first(self):
        """Whether this is the rank that writes files and prints."""
        return self.rank == 0

    def gathered(self, compute):
        """The lists that compute() gives on each rank, one after the other. If it fails on one, all of them fail: with its own
        error there, OtherRankFailedError elsewhere."""
        if self.n == 1:
            return compute()
        values, error = attempt(compute)
        answers = self.comm.allgather((values, in_words(error)))
        self.fail_together(error, [told for _, told in answers])
        return [value for values, _ in answers for value in values]

    def first(self, compute):
        """What compute() gives on rank 0, on all ranks; if it fails there, all of them fail."""
        if self.n == 1:
            return compute()
        value, error = attempt(compute) if self.is_first else (None, None)
        answer, told = self.comm.bcast((value, in_words(error)))
        self.fail_together(error, [told])
        return value if self.is_first else answer

    def fail_together(self, error, told):
        """Raise this rank's error if there is one, else what another one has told of its own."""
        if error is not None:
            raise error
        for rank, words in enumerate(told):
            if words is not None:
                raise OtherRankFailedError(f"rank {rank}: {words}")

    def largest(self, number):
        """The largest of the numbers that the ranks give."""
        return number if self.n == 1 else max(self.comm.allgather(number))

    def all(self, condition):
        """Whether a condition holds on every rank."""
        return not self.largest(not condition)

    def begin_alike(self, model):
        """Give every rank the parameters and buffers that `model` has on rank 0: libraries of other machines may have made
        others of the same seed."""
        theta, buffers = self.first(lambda: (model.theta, model.buffers))
        if not self.is_first:
            model.theta = theta
            model.buffers.update(buffers)

    def share_rows(self, array, n_parts):
        """Of an array whose rows are cut into n_parts, as many for each rank, give every rank those that the others have."""
        if self.n > 1:
            n = n_parts // self.n
            rows = [parts_of(len(array), n_parts, k * n, n) for k in range(self.n)]
            width = array.size // len(array)
            counts = [width * sum(part.stop - part.start for part in own) for own in rows]
            places = np.cumsum([0, *counts[:-1]])
            own = slice(places[self.rank], places[self.rank] + counts[self.rank])
            self.comm.Allgatherv(array.reshape(-1)[own].copy(), [array.reshape(-1), (counts, places)])

    def cores(self):
        """The cores that this process may use: its share, where others of the same machine may use the same ones."""
        if self.n == 1:
            return cores_available()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        mine = platform.node(), str(cores)
        return max(1, cores_available() // Counter(self.comm.allgather(mine))[mine])


class SumOfShares:
    """The sum of arrays (P,) over all ranks, `n_own` of each, in the order of ranks and always in that order.

    Rank k gets the k-th block of every share, adds these up, and hands the sum round: as many bytes as the best algorithms
    take whose order is the library's affair (a reduce-scatter, then an all-gather; Thakur, Rabenseifner & Gropp 2005).
    """

    def __init__(self, ranks, n_own, size, dtype):
        self.ranks, self.n_own = ranks, n_own
        blocks = [parts_of(size, ranks.n, k, 1) for k in range(ranks.n)]  # none where there are more ranks than numbers
        self.counts = [sum(block.stop - block.start for block in own) for own in blocks]
        self.places = np.cumsum([0, *self.counts[:-1]])
        self.blocks = np.empty((ranks.n * n_own, self.counts[ranks.rank]), dtype)  # of this rank, from every share
        self.total = zeros((1, size), dtype, place=3)

    def __call__(self, shares, n):
        """shares (n_own, P) of this rank; the sum of the first n of all ranks' shares, (1, P)."""
        blocks, comm = self.blocks, self.ranks.comm
        width = blocks.shape[1]
        for k, share in enumerate(shares):
            places = [(rank * self.n_own + k) * width for rank in range(self.ranks.n)]
            comm.Alltoallv([share, (self.counts, self.places)], [blocks, ([width] * self.ranks.n, places)])
        block = blocks[0]
        for other in blocks[1:n]:
            block += other
        comm.Allgatherv(block, [self.total, (self.counts, self.places)])
        return self.total


def attempt(function):
    """(function(), None), or (an empty list, the error)."""
    try:
        return function(), None
    except Exception as error:
        return [], error


def in_words(error):
    """What an error says, None for none."""
    return None if error is None else str(error) or type(error).__name__
