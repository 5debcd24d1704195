"""How every kernel is compiled: one flag set, one helper."""

import numba

# What a kernel may assume. Not `nnan` or `ninf` (they delete the checks for NaN and infinity): never a bare fastmath=True.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


def jit(function, **options):
    """Compile `function`, cached on disk where its folder or the user's cache is writable, in memory elsewhere.

    error_model="numpy" makes x / 0 an infinity as in NumPy; Python's ZeroDivisionError check would stop vectorisation. nogil
    lets the workers of `npvae.parallel` run side by side.
    """
    options = {"error_model": "numpy", "fastmath": FASTMATH, "nogil": True, **options}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # "no locator available": neither place can be written
        return numba.njit(function, **options)
