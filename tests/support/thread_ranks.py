"""Ranks that are threads of one process, with as much of mpi4py's communicator as npvae uses: many trainings in little time."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

SECONDS = 60  # that one waits for the others


class Communicator:
    """That of rank `rank`; `desks` and `barrier` are those of all."""

    def __init__(self, rank, desks, barrier):
        self.rank, self.desks, self.barrier = rank, desks, barrier

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return len(self.desks)

    def exchange(self, mine, read):
        """Lay something down for all, and what read(what the others have laid down) gives."""
        self.desks[self.rank] = mine
        self.barrier.wait(SECONDS)
        answer = read(list(self.desks))
        self.barrier.wait(SECONDS)
        return answer

    def allgather(self, value):
        return self.exchange(pickle.dumps(value), lambda all_: [pickle.loads(each) for each in all_])

    def bcast(self, value):
        return self.exchange(pickle.dumps(value), lambda all_: pickle.loads(all_[0]))

    def Alltoallv(self, sent, received):
        array, (counts, places) = received

        def read(everything):
            for (others, (n, starts)), count, place in zip(everything, counts, places, strict=True):
                assert count == n[self.rank]
                array.reshape(-1)[place : place + count] = others.reshape(-1)[starts[self.rank] :][:count]

        self.exchange(sent, read)

    def Allgatherv(self, sent, received):
        array, (counts, places) = received

        def read(everything):
            for others, count, place in zip(everything, counts, places, strict=True):
                assert others.size == count
                array.reshape(-1)[place : place + count] = others.reshape(-1)

        self.exchange(sent, read)


def on_ranks(n, function):
    """[function(communicator)] of n ranks. The first error of one is raised, and ends those who wait for it."""
    desks, barrier = [None] * n, Barrier(n)

    def rank(k):
        try:
            return function(Communicator(k, desks, barrier)), None
        except BaseException as error:
            barrier.abort()
            return None, error

    with ThreadPoolExecutor(n) as pool:
        results, errors = zip(*pool.map(rank, range(n)))
    errors = sorted(filter(None, errors), key=lambda error: isinstance(error, BrokenBarrierError))
    if errors:
        raise errors[0]
    return list(results)
