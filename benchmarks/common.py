"""What every benchmark shares: the machine it ran on, interleaved timing, results as JSON."""

import json
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import threadpoolctl
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from npvae.core.cores import cores_available

RESULTS = Path(__file__).parent / "results"


def machine():
    """CPU, BLAS with its architecture, threads and versions: what a figure means nothing without."""
    versions = {"python": platform.python_version()}
    for package in ("npvae", "numpy", "scipy", "numba", "torch", "jax"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    blas = [f"{pool['internal_api']} {pool['version']} {pool.get('architecture')}, {pool['num_threads']} threads"
            for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]  # fmt: skip
    return {"cpu": cpu_name(), "cores": cores_available(), "blas": blas, "versions": versions}


def cpu_name():
    """The processor's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def print_machine(info):
    print(f"{info['cpu']}, {info['cores']} cores; BLAS: {'; '.join(info['blas'])}")
    print("; ".join(f"{name} {number or 'not installed'}" for name, number in info["versions"].items()) + "\n")


def interleaved(contenders, repeats):
    """Run the contenders by turns, A B C A B C ..., `repeats` times; each is a function that returns its seconds.

    Returns name -> list of seconds. What disturbs the machine for a while disturbs all of them alike.
    """
    seconds = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            seconds[name].append(run())
    return seconds


def settled(run, n):
    """Seconds of n steps by run(n), after a pause for other threads to fall asleep and a few steps that fill the caches."""
    time.sleep(0.3)
    run(10)
    return run(n)


def seconds_per_call(call, seconds=0.05):
    """Median seconds of a call, over as many calls as fit into `seconds` after the first three."""
    for _ in range(3):
        call()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)


def spread(values):
    """Median and range."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def plain_log(axis):
    """A logarithmic axis with ticks at 1, 2, 5, 10, ..., written as such."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def save(name, result, figure):
    """Write benchmarks/results/<name>.json and .png, and say so."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    figure.savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")
    print(f"written: {path} and {path.with_suffix('.png').name}")
