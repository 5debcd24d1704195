"""Data-parallel work: a batch is cut into one shard of rows per worker.

A gradient is a mean over rows, so the gradients of the shards, weighted by their shares of the rows, add up to that of the
batch: the same seam along which it is cut for processes (`npvae.core.ranks`). Each worker computes its own
(`npvae.training.step`), or all of them one together (`npvae.training.together`). Workers are threads: BLAS and the kernels
release Python's lock. BLAS itself is held to one thread per worker, because two pools of threads on the same cores wait for
each other. Every sum has a fixed order, so results depend on the number of workers (by rounding, and by the shards' own noise)
but never on scheduling.
"""

from itertools import pairwise
from queue import SimpleQueue
from threading import Lock, Thread

import numpy as np
from threadpoolctl import ThreadpoolController

from npvae.core.cores import cores_available

# Multiplications of a worker, below which handing work to another costs more than it saves; the same of workers who compute one
# gradient together.
WORTHWHILE, TOGETHER = 4e6, 1.5e6
LINE = 16  # int64 between two signals: two cache lines, which are fetched together
ABORTED = 2**62  # a signal of a worker that does not come any more


class Workers:
    """`n` workers; `with Workers(n) as workers:` holds BLAS to one thread each until the block ends.

    A worker is a thread that sleeps at a queue of its own until there is a task. To wake it takes tens of microseconds. With
    `team` (`npvae.kernels.team`; at first None) it first looks for the next task for a while, and so does who waits for an
    answer. But threads hold one lock while they run Python, and who finds it taken falls asleep as well: the best time to come
    is when the caller is in a kernel, which says so by `begin`.
    """

    def __init__(self, n):
        self.n, self.team = n, None
        self.n_maps = 0  # calls of `map` that had tasks for others
        self.signals = np.zeros((2 * n + 2) * LINE, np.int64)  # as in `npvae.kernels.team`

    def __enter__(self):
        self.n_maps, self.signals[:] = 0, 0  # they may have been here before
        self.desks = [Desk(self, k) for k in range(1, self.n)]
        one_blas_thread.hold()
        try:
            for desk in self.desks:
                Thread(target=desk.work, daemon=True).start()
        except BaseException:  # the system gives no more threads
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self.signals[0] = ABORTED  # should one still wait in a kernel
        self.hand_out([()] * len(self.desks))
        self.tell_begin()
        one_blas_thread.release()

    def map(self, function, items, begins=False):
        """[function(item) for item in items], of which there are at most n: the first by the calling thread, each other by a
        worker. An error is raised when all have ended. begins: the function calls `begin` of `npvae.kernels.team`."""
        if not items:
            return []
        first, *others = items
        if not others:
            return [function(first)]
        desks = self.hand_out([(function, item) for item in others])
        if not begins:
            self.tell_begin()
        own = self.attempt(0, function, first)
        self.tell_begin()
        results, errors = zip(own, *(desk.take() for desk in desks))
        if any(errors):
            self.signals[: self.n * LINE] = 0
            raise next(filter(None, errors))
        return list(results)

    def hand_out(self, tasks):
        """Leave a task for each of the first workers; returns their desks."""
        self.n_maps += 1
        desks = self.desks[: len(tasks)]
        for desk, task in zip(desks, tasks, strict=True):
            desk.give((self.n_maps, *task))
        return desks

    def tell_begin(self):
        """What `begin` does in a kernel."""
        self.signals[self.n * LINE] = self.n_maps

    def attempt(self, k, function, item):
        """(function(item), None), or (None, the error); then nobody waits for worker k in a kernel."""
        try:
            return function(item), None
        except BaseException as error:
            self.signals[k * LINE] = ABORTED
            return None, error

    def deal(self, function, items):
        """[function(item) for item in items] for many items: worker k takes every n-th from k on. After an error the others
        stop at their next item."""
        results, errors = [None] * len(items), []

        def take(k):
            for i in range(k, len(items), self.n):
                if errors:
                    return
                try:
                    results[i] = function(items[i])
                except BaseException as error:
                    errors.append(error)
                    raise

        self.map(take, range(self.n))
        return results

    def parts(self, size):
        """range(size) as one slice per worker (fewer if it is not as long), in order, of lengths that differ by at most one."""
        return parts_of(size, self.n, 0, self.n)


class Desk:
    """Where worker k finds its tasks and leaves its answers. Who reads or writes here holds Python's lock."""

    def __init__(self, workers, k):
        self.workers, self.k = workers, k
        self.task = self.answer = None  # (number of the map, function, item), the last without a function; (result, error)
        self.sleeps = self.is_awaited = False  # the worker; who waits for the answer
        self.tasks, self.answers = SimpleQueue(), SimpleQueue()  # what wakes them

    def give(self, task):
        """Leave a task."""
        self.task, self.answer = task, None
        if self.sleeps:
            self.sleeps = False
            self.tasks.put(None)

    def take(self):
        """The answer, when there is one."""
        if self.answer is None and self.workers.team is not None:
            place = (self.workers.n + 1 + self.k) * LINE
            self.workers.team.watch(self.workers.signals, place, self.workers.n_maps, self.workers.team.LOOKS)
        while self.answer is None:
            self.is_awaited = True
            if self.answer is None:  # the worker looks whether it is awaited after it has answered
                self.answers.get()
        return self.answer

    def work(self):
        """The life of the worker."""
        number = 0
        while len(task := self.next_task(number)) > 1:
            number, function, item = task
            self.answer = self.workers.attempt(self.k, function, item)
            del task, function, item  # nothing is kept alive while it waits
            if self.is_awaited:
                self.is_awaited = False
                self.answers.put(None)

    def next_task(self, number):
        """The next task, when there is one, after that of map `number`."""
        if self.workers.team is not None:
            self.workers.team.rest(self.workers.signals, self.k, self.workers.n, number)
        while self.task is None:
            self.sleeps = True
            if self.task is None:  # who gives a task looks whether the worker sleeps after that
                self.tasks.get()
        task, self.task = self.task, None
        return task


class OneBlasThread:
    """BLAS at one thread while anybody holds it, in whatever thread: the setting belongs to the whole process.

    Each who comes sets it, for libraries that were loaded since and for limits that others have set since; the last who goes
    puts back what the first found, but for a library that somebody else has given another number meanwhile. What cannot be
    kept apart: a `threadpool_limits` that another thread enters or leaves while it is held changes the threads of all.
    """

    def __init__(self):
        self.lock, self.holders = Lock(), 0
        self.found = {}  # file of a library -> (the library, its threads before)

    def hold(self):
        with self.lock:
            self.holders += 1
            for library in ThreadpoolController().select(user_api="blas").lib_controllers:
                if library.num_threads != 1:
                    self.found.setdefault(library.filepath, (library, library.num_threads))
                    set_threads(library, 1)

    def release(self):
        with self.lock:
            self.holders -= 1
            if not self.holders:
                for library, threads in self.found.values():
                    if library.num_threads == 1:
                        set_threads(library, threads)
                self.found.clear()


one_blas_thread = OneBlasThread()


def set_threads(library, n):
    """Set the threads of a library, whichever thread asks. Newer threadpoolctl lets only one set those of OpenBLAS, the
    first to do so, and ignores others without a word: a training in another thread could not set them, or not set them back."""
    let_others = getattr(library, "clear_controlling_thread", lambda force: None)
    let_others(force=True)
    library.set_num_threads(n)
    let_others(force=True)


def parts_of(size, n, first, count):
    """range(size) cut into n slices, in order, of lengths that differ by at most one (fewer slices if it is not as long): those
    from the number `first` on, at most `count`."""
    n = max(1, min(n, size))
    edges = (-(-size * k // n) for k in range(first, min(first + count, n) + 1))
    return [slice(edge, next_edge) for edge, next_edge in pairwise(edges) if edge < next_edge]


def workers_for(n_multiplications, together=False):
    """How many workers a task of so many multiplications is worth: one for small ones, at most the cores. together: it is a
    gradient that they compute together (`npvae.training.together`)."""
    return int(max(1, min(cores_available(), n_multiplications // (TOGETHER if together else WORTHWHILE))))
