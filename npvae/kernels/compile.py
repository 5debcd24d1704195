"""How every kernel is compiled: one flag set, one helper, one cache."""

import contextlib
import hashlib
from pathlib import Path

import numba
from numba.core import event
from numba.core.caching import FunctionCache

# What a kernel may assume. Not `nnan` or `ninf` (they delete the checks for NaN and infinity): never a bare fastmath=True.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


def jit(function):
    """Compile `function`, cached on disk where its folder or the user's cache is writable, in memory elsewhere.

    error_model="numpy" makes x / 0 an infinity as in NumPy; Python's ZeroDivisionError check would stop vectorisation. nogil
    lets the workers of `npvae.parallel` run side by side. Nobody calls kernels from C, and a wrapper for that takes long.
    """
    kernel = numba.njit(function, error_model="numpy", fastmath=FASTMATH, nogil=True, no_cfunc_wrapper=True)
    if not numba.config.DISABLE_JIT:
        with contextlib.suppress(RuntimeError):  # "no locator available": there is no place that can be written
            kernel._cache = Cache(function)
    return kernel


class Cache(FunctionCache):
    """Numba's cache on disk, but one that is stale when any kernel has changed, and no worse than none when it is damaged.

    (Numba's own looks at the file of the function alone, not at those of what it calls, and fails on a truncated file.)
    """

    def __init__(self, function):
        super().__init__(function)
        self._cache_file._source_stamp = sources()

    def load_overload(self, signature, context):
        """The compiled function, or None: then it is compiled."""
        try:
            return super().load_overload(signature, context)
        except Exception:  # whatever unpickling of a damaged file raises
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, signature, compiled):
        """Write the compiled function if that is possible."""
        with contextlib.suppress(OSError):  # a full disk
            super().save_overload(signature, compiled)


def sources():
    """A digest of all files that kernels are made of."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(here.glob("*.py")), here.parent / "latent.py"]:  # latent.py: the bounds of logvar
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def announced(say):
    """Within the block, call `say()` when something is compiled for the first time (and not loaded from the cache)."""

    class Announcer(event.Listener):
        def on_start(self, _):
            if self.waiting:
                self.waiting = False
                say()

        def on_end(self, _):
            pass

    announcer = Announcer()
    announcer.waiting = True
    with event.install_listener("numba:compile", announcer):
        yield
