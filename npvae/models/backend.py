"""The two back ends: a module is a table of ops."""

import contextlib
from functools import cache

from npvae import ops
from npvae.core.progress import tell

BACKENDS = ("numba", "numpy")


@cache
def load_ops(backend):
    """`npvae.ops` for "numpy", `npvae.kernels` for "numba"; Numba is imported only when it is asked for."""
    if backend == "numpy":
        return ops
    from npvae import kernels

    return kernels


def team_of(model):
    """How the workers of a model wait for each other: `npvae.kernels.team`, or None where nothing of it is compiled."""
    if getattr(model, "backend", "numpy") == "numpy":
        return None
    from npvae.kernels import team

    return team


def compilation_announced(model, progress):
    """Within the block, tell who watches why it takes so long before anything happens: a context manager."""
    if not progress or getattr(model, "backend", "numpy") == "numpy":
        return contextlib.nullcontext()
    from npvae.kernels.compile import announced

    return announced(lambda: tell("compiling the kernels, which happens once and takes some 10 seconds"))
