"""Data-parallel work: a batch is cut into one shard of rows per worker, and each shard's gradient is computed by itself.

A gradient is a mean over rows, so the gradients of the shards, weighted by their shares of the rows, add up to that of the
batch: the same seam along which a batch could be split across machines. Workers are threads: BLAS and the
kernels release Python's lock. BLAS itself is held to one thread per worker, because two pools of threads on the same cores
wait for each other. The sum over shards has a fixed order, so results depend on the number of workers (by rounding, and by the
shards' own noise) but never on scheduling.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from threadpoolctl import threadpool_limits

WORTHWHILE = 1e7  # multiplications per worker and step, below which waking another worker costs more than it saves


class Workers:
    """`n` workers; `with Workers(n) as workers:` holds BLAS to one thread each until the block ends."""

    def __init__(self, n):
        self.n = n

    def __enter__(self):
        self.limits = threadpool_limits(1, user_api="blas")
        self.pool = ThreadPoolExecutor(self.n - 1) if self.n > 1 else None
        return self

    def __exit__(self, *error):
        if self.pool is not None:
            self.pool.shutdown()
        self.limits.restore_original_limits()

    def map(self, function, items):
        """[function(item) for item in items], the first by the calling thread and the others by the pool."""
        first, *others = items
        futures = [self.pool.submit(function, item) for item in others]
        return [function(first), *(future.result() for future in futures)]

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


def workers_for(model, n_rows):
    """How many workers a step on n_rows rows, samples of z counted, is worth: one for small models, at most the cores."""
    return int(max(1, min(cores_available(), model.theta.size * n_rows // WORTHWHILE)))


def cores_available():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
