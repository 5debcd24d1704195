"""The two back ends: a module is a table of ops."""

from functools import cache

from npvae import ops

BACKENDS = ("numba", "numpy")


@cache
def load_ops(backend):
    """`npvae.ops` for "numpy", `npvae.kernels` for "numba"; Numba is imported only when it is asked for."""
    if backend == "numpy":
        return ops
    from npvae import kernels

    return kernels
