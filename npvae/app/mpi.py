"""Processes that a launcher of MPI programs has started together, called ranks: `mpiexec -n 4 npvae train`.

Whether there are others is known from the environment, before mpi4py is imported. Rank 0 prints and writes files, the others
are silent, and an error of one ends all.
"""

import contextlib
import os
import sys
import time
import traceback

from npvae.core.ranks import Ranks

# The rank and the number of ranks, as Open MPI, MPICH and Intel MPI, MVAPICH, and Slurm's srun tell their processes.
VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
SECONDS_OF_RANK_0 = 2  # in which it tells an error that all have, and ends them, before another one tells its own


def told():
    """(rank, number of ranks) as the launcher has told them; (0, 1) where there is none."""
    for names in VARIABLES:
        rank, n = (os.environ.get(name, "") for name in names)
        if rank.isdecimal() and n.isdecimal():
            return int(rank), int(n)
    return 0, 1


def started_together():
    """The Ranks that were started together. ValueError if there are several, and no mpi4py, or one of another MPI."""
    _, n = told()
    if n == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter where there is no library of MPI
        raise ValueError(f"{n} processes were started together, and to train in them needs mpi4py ({error}): "
                         "pip install 'npvae[mpi]'") from None  # fmt: skip
    if MPI.COMM_WORLD.Get_size() != n:
        library = MPI.Get_library_version().partition(",")[0].strip()
        raise ValueError(f"{n} processes were started together, and mpi4py finds {MPI.COMM_WORLD.Get_size()}: it uses "
                         f"{library}, and the mpiexec that started them belongs to another MPI")  # fmt: skip
    return Ranks(MPI.COMM_WORLD)


@contextlib.contextmanager
def one_voice():
    """Within the block a rank other than 0 prints nothing to stdout, and an error that nobody has told ends all ranks."""
    rank, n = told()
    with contextlib.ExitStack() as stack:
        if rank > 0:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        try:
            yield
        except Exception:
            if n == 1:
                raise
            wait_for_rank_0()
            traceback.print_exc()
            end_all(1)
            raise


def wait_for_rank_0():
    """Before a rank tells an error: where all have it rank 0 does that, and this process ends here."""
    if told()[0] > 0:
        time.sleep(SECONDS_OF_RANK_0)


def end_all(status):
    """After an error that was told: where there are other ranks, which may wait for this one, end them all."""
    MPI = sys.modules.get("mpi4py.MPI")
    if told()[1] > 1 and MPI is not None and not MPI.Is_finalized():
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(status)
