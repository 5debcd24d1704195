"""`npvae sweep`: one training for each combination of settings and seeds, several at a time, and a table of what they reached.

Each leaves an ordinary run folder, which `npvae train --resume` begins or continues: a sweep that was stopped goes on with the
same command line. The processes are this machine's, or those that mpiexec has started (mpi4py.futures).
"""

import contextlib
import io
import itertools
import json
import math
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.app import arguments as told
from npvae.app import commands, mpi
from npvae.app.parser import argument_type
from npvae.core import files, options
from npvae.core.checks import NpvaeWarning
from npvae.core.cores import cores_available
from npvae.core.ranks import OtherRankFailedError, Ranks
from npvae.training import checkpoint

TABLE = "table.md"
OWN = ("out", "seed", "resume")  # options of npvae train that the sweep gives itself


class Run(NamedTuple):
    """One training of a sweep."""

    values: tuple  # of the options that vary, as they were typed
    folder: Path
    argv: list  # of npvae train


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "sweep",
        help="train with several seeds and settings, and compare",
        description="Train with each seed and each combination of settings, several trainings at a time, and write a table of "
        "means and standard errors over the seeds. SWEEP gets an ordinary run folder for each. The same command line goes on "
        "with a sweep that was stopped. Under mpiexec -n N one process deals out the work to N − 1 others.",
        usage="%(prog)s --out SWEEP [--seeds S ...] [--vary OPTION VALUE ...] [--processes N] -- OPTIONS",
    )
    parser.add_argument("--out", metavar="SWEEP", type=options.path, required=True, help="folder of the run folders")
    parser.add_argument("--seeds", metavar="S", type=argument_type(options.integer(0)), nargs="+", default=[0, 1, 2],
                        help="each combination is trained with each of these (default: 0 1 2)")  # fmt: skip
    parser.add_argument("--vary", metavar=("OPTION", "VALUE"), nargs="+", action="append", default=[], help="an option of "
                        "npvae train without its dashes, and the values that it is to have, each one word (of several, as in "
                        "'400 200', in quotes); with several --vary: all combinations")  # fmt: skip
    parser.add_argument("--processes", metavar="N", type=argument_type(options.integer(1)), help="trainings at a time, with "
                        "--workers 1 unless OPTIONS say otherwise (default: the cores available)")  # fmt: skip
    parser.add_argument("options", metavar="OPTIONS", nargs="*", help="after --: options of npvae train that all runs have")
    parser.set_defaults(run=sweep)


def sweep(args):
    """`npvae sweep`."""
    names, runs = planned(args)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    n_failed = 0
    with executor(args.processes) as pool:
        if pool is None:  # of a process that has trained for the first one
            return 0
        print(f"{len(runs)} runs in {args.out}")
        for run, error in zip(runs, pool.map(train, [run.argv for run in runs])):
            print(f"{run.folder.name}: {error or ending(run.folder)}", flush=True)
            n_failed += error is not None
    lines = table(names, runs)
    path = Path(args.out) / TABLE
    files.replace_file(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))
    print("\n" + "\n".join(lines) + f"\n\n{path}: means over the seeds ± standard error, of the validation rows")
    return 1 if n_failed else 0


def planned(args):
    """Names of the options that vary, and the Runs of all combinations; ValueError for what npvae train would not take."""
    vary = {name.strip("-").replace("_", "-"): values for name, *values in args.vary}
    given = {word.partition("=")[0].removeprefix("--") for word in args.options} | set(vary)
    own = [name for name in OWN if name in given]
    if own or not all(vary.values()):
        raise ValueError(f"--{own[0]} is for the sweep to say" if own else "--vary takes an option and its values")
    workers = [] if "workers" in given else ["--workers", "1"]
    runs = []
    for values in itertools.product(*vary.values()):
        varied = [word for name, value in zip(vary, values) for word in (f"--{name}", *value.split())]
        for seed in args.seeds:
            parts = [*(f"{name}={value}" for name, value in zip(vary, values)), f"seed={seed}"]
            folder = Path(args.out) / ",".join(parts).replace("/", "-").replace(" ", "-")
            argv = ["train", *args.options, *varied, *workers, "--seed", str(seed), "--resume", "--out", str(folder)]
            parsed(argv)
            runs.append(Run(values, folder, argv))
    return list(vary), runs


def parsed(argv):
    """The options of npvae train as its parser gives them."""
    from npvae.app import cli  # which knows of this command

    return cli.build_parser(argv).parse_args(argv)


@contextlib.contextmanager
def executor(n):
    """What trainings are handed to: n processes of this machine, or those that were started together, all of which get here; in
    them it comes as None when there is no more to do."""
    ranks = mpi.started_together()
    if ranks.n > 1:
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(ranks.comm, root=0) as pool:
            yield pool
        return
    with ProcessPoolExecutor(n or cores_available(), get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:  # Ctrl-C, which the trainings under way get as well: they save, and no other begins
            pool.shutdown(cancel_futures=True)
            raise


def train(argv):
    """`npvae train` in silence, unless it was done before; returns None, or what went wrong in one line."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", NpvaeWarning)
        try:
            args = parsed(argv)
            status = 0 if is_done(args) else commands.train(args, Ranks())
        except (ValueError, OSError, FloatingPointError, MemoryError, OtherRankFailedError) as error:
            return " ".join(str(error).split()) or type(error).__name__
    return f"stopped (status {status}); the same command line goes on with it" if status else None


def is_done(args):
    """Whether a run has its epochs and pictures; ValueError if it was begun with other options."""
    if not commands.has_begun(args):
        return False
    _, arguments, _ = told.of_resumed_run(args)
    rows = history_of(args.out)
    return bool(rows) and rows[-1]["epoch"] >= arguments["epochs"] and (Path(args.out) / "loss.png").exists()


def history_of(folder):
    """The rows of a run's metrics, none where it has none."""
    path = Path(folder) / checkpoint.METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def reached(folder):
    """The last row of a run's metrics, or that of the epoch that early stopping came back to."""
    rows, config = history_of(folder), Path(folder) / "config.json"
    if rows and json.loads(config.read_text())["arguments"]["early_stopping"] is not None:
        return min(rows, key=lambda row: math.inf if row["val_loss"] is None else row["val_loss"])
    return rows[-1] if rows else None


def ending(folder):
    """How a run has ended, in words."""
    row = reached(folder)
    loss = math.nan if row["val_loss"] is None else row["val_loss"]
    return f"validation loss {loss:.3f} after epoch {row['epoch']}, {row['seconds']:.0f} s"


def table(names, runs):
    """The lines of a Markdown table: a row for each combination of values, with mean and standard error over its seeds."""
    rows = {}
    for run in runs:
        rows.setdefault(run.values, []).append(reached(run.folder))
    terms = next((list(row) for found in rows.values() for row in found if row), [])
    terms = [name for name in terms if name.startswith("val_")]
    lines = ["| " + " | ".join([*names, "seeds", *(name.removeprefix("val_") for name in terms)]) + " |",
             "|" + "---|" * len(names) + "---:|" * (1 + len(terms))]  # fmt: skip
    for values, found in rows.items():
        found = [row for row in found if row]
        cells = [mean_and_error([math.nan if row[name] is None else row[name] for row in found]) for name in terms]
        lines.append("| " + " | ".join([*values, str(len(found)), *cells]) + " |")
    return lines


def mean_and_error(values):
    """Values in words: "12.340 ± 0.050", or the only one."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "–"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"
