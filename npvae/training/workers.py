"""Data-parallel work: a batch is cut into one shard of rows per worker, and each shard's gradient is computed by itself.

A gradient is a mean over rows, so the gradients of the shards, weighted by their shares of the rows, add up to that of the
batch: the same seam along which a batch could be split across machines. Workers are threads: BLAS and the
kernels release Python's lock. BLAS itself is held to one thread per worker, because two pools of threads on the same cores
wait for each other. The sum over shards has a fixed order, so results depend on the number of workers (by rounding, and by the
shards' own noise) but never on scheduling.
"""

import os
from itertools import pairwise
from queue import SimpleQueue
from threading import Lock, Thread

from threadpoolctl import threadpool_limits

WORTHWHILE = 1e7  # multiplications per worker and step, below which waking another worker costs more than it saves


class Workers:
    """`n` workers; `with Workers(n) as workers:` holds BLAS to one thread each until the block ends.

    A worker is a thread that waits at a queue of its own: a task costs 60 µs where `concurrent.futures` takes 100, and a step
    has two.
    """

    def __init__(self, n):
        self.n = n

    def __enter__(self):
        one_blas_thread.hold()
        self.queues = [SimpleQueue() for _ in range(self.n - 1)]
        for queue in self.queues:
            Thread(target=work, args=(queue,), daemon=True).start()
        return self

    def __exit__(self, *error):
        for queue in self.queues:
            queue.put(None)
        one_blas_thread.release()

    def map(self, function, items):
        """[function(item) for item in items], of which there are at most n: the first by the calling thread, each other by a
        worker. An error is raised when all have ended."""
        first, *others = items
        if not others:
            return [function(first)]
        answers = [SimpleQueue() for _ in others]
        for queue, item, answer in zip(self.queues[: len(others)], others, answers, strict=True):
            queue.put((function, item, answer))
        own = attempt(function, first)
        results, errors = zip(own, *(answer.get() for answer in answers))
        for error in filter(None, errors):
            raise error
        return list(results)

    def deal(self, function, items):
        """[function(item) for item in items] for many items: worker k takes every n-th from k on."""
        results = [None] * len(items)

        def take(k):
            for i in range(k, len(items), self.n):
                results[i] = function(items[i])

        self.map(take, range(self.n))
        return results

    def shards(self, rows):
        """An array cut into one piece per worker (fewer if there are not as many rows), in order."""
        if self.n == 1:
            return [rows]
        return [rows[part] for part in self.parts(len(rows)) if part.start < part.stop]

    def parts(self, size):
        """range(size) as one slice per worker, in order, of lengths that differ by at most one."""
        return [slice(edge, next_edge) for edge, next_edge in pairwise(-(-size * k // self.n) for k in range(self.n + 1))]


def work(queue):
    """The life of a worker: tasks (function, item, queue for the answer), until there is None."""
    while (task := queue.get()) is not None:
        function, item, answer = task
        answer.put(attempt(function, item))
        del task, function, item, answer  # nothing is kept alive while it waits


def attempt(function, item):
    """(function(item), None), or (None, the error)."""
    try:
        return function(item), None
    except BaseException as error:
        return None, error


class OneBlasThread:
    """BLAS at one thread while anybody holds it, in whatever thread: the setting belongs to the whole process, so the first
    who comes sets it and the last who goes undoes it."""

    def __init__(self):
        self.lock, self.holders = Lock(), 0

    def hold(self):
        with self.lock:
            if not self.holders:
                self.limits = threadpool_limits(1, user_api="blas")
            self.holders += 1

    def release(self):
        with self.lock:
            self.holders -= 1
            if not self.holders:
                self.limits.restore_original_limits()


one_blas_thread = OneBlasThread()


def workers_for(model, n_rows):
    """How many workers a step on n_rows rows, samples of z counted, is worth: one for small models, at most the cores."""
    return int(max(1, min(cores_available(), model.theta.size * n_rows // WORTHWHILE)))


def cores_available():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
