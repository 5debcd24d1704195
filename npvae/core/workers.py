"""Data-parallel work: a batch is cut into one shard of rows per worker, and each shard's gradient is computed by itself.

A gradient is a mean over rows, so the gradients of the shards, weighted by their shares of the rows, add up to that of the
batch: the same seam along which a batch could be split across machines. Workers are threads: BLAS and the
kernels release Python's lock. BLAS itself is held to one thread per worker, because two pools of threads on the same cores
wait for each other. The sum over shards has a fixed order, so results depend on the number of workers (by rounding, and by the
shards' own noise) but never on scheduling.
"""

from itertools import pairwise
from queue import SimpleQueue
from threading import Lock, Thread

from threadpoolctl import ThreadpoolController

from npvae.core.cores import cores_available

WORTHWHILE = 1e7  # multiplications of a worker, below which waking another worker costs more than it saves


class Workers:
    """`n` workers; `with Workers(n) as workers:` holds BLAS to one thread each until the block ends.

    A worker is a thread that waits at a queue of its own: a task costs 60 µs where `concurrent.futures` takes 100, and a step
    has two.
    """

    def __init__(self, n):
        self.n = n

    def __enter__(self):
        self.queues = [SimpleQueue() for _ in range(self.n - 1)]
        one_blas_thread.hold()
        try:
            for queue in self.queues:
                Thread(target=work, args=(queue,), daemon=True).start()
        except BaseException:  # the system gives no more threads
            self.__exit__()
            raise
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


def workers_for(n_multiplications):
    """How many workers a task of so many multiplications is worth: one for small ones, at most the cores."""
    return int(max(1, min(cores_available(), n_multiplications // WORTHWHILE)))
