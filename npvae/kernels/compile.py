"""How every kernel is compiled: one flag set, one helper, one cache."""

import contextlib
import gc
import hashlib
from pathlib import Path
from types import FunctionType

import numba
from numba import types
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic, overload

# What a kernel may assume. Not `nnan` or `ninf` (they delete the checks for NaN and infinity): never a bare fastmath=True.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
STRICT = {"fastmath": False, "error_model": "numpy", "no_cfunc_wrapper": True}
# Files of ops that kernels compile from.
FROM_OPS = ("bit_swap", "bits_back", "codes", "diffusion", "latent", "pixel_mixture", "rans", "reproducible")


def jit(function, fastmath=FASTMATH, inline="never"):
    """Compile `function`, cached on disk where its folder or the user's cache is writable, in memory elsewhere.

    error_model="numpy" makes x / 0 an infinity as in NumPy; Python's ZeroDivisionError check would stop vectorisation. nogil
    lets the workers of `npvae.core.workers` run side by side. Nobody calls kernels from C: no wrapper, which takes long.

    A function that a factory makes gets a name for what its free variables hold. Numba names files of the cache after the
    function, and machine code after it and a counter that every process starts anew: by its plain name, what one process has
    compiled for tanh and another for relu could be called the same where a third one loads both.
    """
    if function.__closure__:
        function.__qualname__ = f"{function.__name__}_{digest(identity(function))[:16]}"
    options = {"error_model": "numpy", "fastmath": fastmath, "nogil": True, "no_cfunc_wrapper": True, "inline": inline}
    kernel = numba.njit(function, **options)
    if not numba.config.DISABLE_JIT:
        with contextlib.suppress(RuntimeError):  # "no locator available": there is no place that can be written
            kernel._cache = Cache(function)
    return kernel


def inlined(function):
    """As `jit`, but in kernels that call it (with arguments one by one) `function` becomes a part of them. It is not compiled
    by itself then, which takes as long again for each level of calls."""
    return jit(function, inline="always")


def strict_jit(function):
    """As `jit`, but each operation is done and rounded as the source has it, so that the bits are the same everywhere."""
    return jit(function, fastmath=False)


def stand_in(function, twin=None):
    """Where a kernel names `function`, of `npvae.ops`, let it call `twin`, compiled as by `strict_jit`; None for itself."""
    overload(function, jit_options=STRICT, strict=False)(lambda *arguments: twin or function)


def stand_ins(module, twins):
    """`stand_in` for every function `f` of a file of ops: by the twin `_f` if there is one in `twins`, else for itself."""
    for name, function in vars(module).items():
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            stand_in(function, twins.get(f"_{name}"))


def widest_vectors():
    """In a kernel's first line: its loops use the widest vectors that there are. On Intel's processors with AVX-512 LLVM takes
    half of that by itself, for the sake of the clock."""


@intrinsic
def _widest_vectors(_):
    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite's own add knows fewer names
        return context.get_dummy_value()

    return types.none(), generate


overload(widest_vectors, inline="always")(lambda: lambda: _widest_vectors())


def identity(function):
    """What tells a function from others, the same in every process: its qualified name, and what its free variables hold
    (kernels and functions by their own identity; numbers and strings)."""
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    held = [getattr(value, "py_func", value) for value in held]  # the function that a kernel was compiled from
    contents = ", ".join(identity(value) if isinstance(value, FunctionType) else repr(value) for value in held)
    return f"{function.__module__}.{function.__qualname__}({contents})"


def digest(*parts):
    """A digest of texts or bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()


class Cache(FunctionCache):
    """Numba's cache on disk, but one that is stale when any kernel has changed, and no worse than none when it is damaged.

    (Numba's own looks at the file of the function alone, not at those of what it calls, and fails on a truncated file. Nor does
    it find a function again whose free variables hold a kernel: it goes by their pickle, which is another in each process.)
    """

    def __init__(self, function):
        super().__init__(function)
        stamp = numba.__version__, sources()
        self._cache_file = CacheFiles(self.cache_path, self._impl.filename_base, stamp)

    def _index_key(self, signature, codegen):
        return signature, codegen.magic_tuple(), digest(self._py_func.__code__.co_code, identity(self._py_func))

    def load_overload(self, signature, context):
        """The compiled function, or None: then it is compiled."""
        try:
            return super().load_overload(signature, context)
        except Exception:  # whatever unpickling of a damaged file raises
            return None

    def save_overload(self, signature, compiled):
        """Write the compiled function if that is possible."""
        with contextlib.suppress(OSError):  # a full disk
            super().save_overload(signature, compiled)


class CacheFiles(IndexDataCacheFile):
    """The files of a kernel in the cache, one for each version that was compiled of it, named after its key.

    Numba numbers them, and has the numbers in another file. Two processes that compile at once may take the same number for two
    versions; then who asks for one gets the other.
    """

    def save(self, key, data):
        """Write what was compiled for a key."""
        self._save_data(self._data_name(key), (self._source_stamp, data))

    def load(self, key):
        """What was compiled for a key, by this version of the sources; None if there is nothing."""
        try:
            stamp, data = self._load_data(self._data_name(key))
        except FileNotFoundError:
            return None
        return data if stamp == self._source_stamp else None

    def _data_name(self, key):
        return super()._data_name(int(digest(repr(key))[:16], 16))


def sources():
    """A digest of all files that kernels are made of."""
    here = Path(__file__).parent
    of_ops = [path for path in sorted((here.parent / "ops").glob("*.py")) if path.stem in FROM_OPS]
    return digest(*(path.read_bytes() for path in [*sorted(here.glob("*.py")), *of_ops]))


class NoCollection(event.Listener):
    """No search for garbage while something is compiled: most of what that makes stays, and the search takes a tenth of the
    time. Numba compiles one thing at a time, and in it the kernels that it calls."""

    def __init__(self):
        self.was_on = []  # of each that is being compiled, the outermost first

    def on_start(self, _):
        self.was_on.append(gc.isenabled())
        gc.disable()

    def on_end(self, _):
        if self.was_on.pop():
            gc.enable()


event.register("numba:compile", NoCollection())


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
