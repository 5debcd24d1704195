"""How fast a drift is trained: a step of helium, two bosons and an oscillator, by the readable passes and by the kernel.

    python benchmarks/bench_drift.py [--repeats N] [--markdown]

A step moves all walkers along a path, goes back through it and updates the parameters with Adam. Contenders: NumPy's ops, the
compiled layers beneath the readable passes, and the kernel that takes a block of walkers through all steps, with one worker and
with one per core. First verifies that all have the same gradient. Milliseconds are medians of the repeats, taken in turns.
"""

import argparse
import json
import time

import numpy as np
from common import RESULTS, interleaved, machine, print_machine, spread

import npvae
from npvae.core.cores import cores_available
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.models import Drift
from npvae.training.step import Step

FILE = RESULTS / "drift.json"
SYSTEMS = {"helium": (0.02, 50, 512), "bosons": (0.04, 25, 512), "oscillator": (0.05, 64, 512)}  # dt, steps, walkers
HIDDEN = (32, 32)


class Readable(Drift):
    """A drift without the kernel: its draws and its gradient are the readable passes, over the back end's layers."""

    def workspace(self, *_, **__):
        return None


def contenders(system):
    """name -> (model, workers); all have the same parameters, which are not those of a new model."""
    dt, n_steps, n_walkers = SYSTEMS[system]
    made = {}
    for name, kind, backend, n_workers in [
        ("NumPy", Readable, "numpy", 1), ("compiled layers", Readable, "numba", 1), ("kernel", Drift, "numba", 1),
        (f"kernel, {cores_available()} workers", Drift, "numba", cores_available()),
    ]:  # fmt: skip
        model = kind(system, {}, dt, n_steps, n_walkers, HIDDEN, backend=backend)
        model.theta += 0.05 * np.random.default_rng(1).standard_normal(model.theta.size).astype("f4")
        made[name] = model, n_workers
    return made


def gradient(model):
    """The gradient of one step from where the walkers are; none of them moves."""
    model.buffers["held"][:] = model.theta
    noise, out = model.draw(np.random.default_rng(0)), np.empty_like(model.theta)
    model.gradient(noise, out=out)
    return out


def milliseconds(model, n_workers, n_steps=3):
    """Of one step of training, the mean of some."""
    with Workers(n_workers) as workers:
        step = Step(model, Rows.of(model, (), "none"), 1, npvae.Adam(1e-4), workers)
        step(np.arange(1), 0)
        started = time.perf_counter()
        for number in range(1, n_steps + 1):
            step(np.arange(1), number)
        return 1000 * (time.perf_counter() - started) / n_steps


def measured(repeats):
    """system -> contender -> milliseconds (median, lowest, highest)."""
    found = {}
    for system in SYSTEMS:
        made = contenders(system)
        first, *others = (gradient(model) for model, _ in made.values())
        for other in others:
            assert np.abs(other - first).max() < 1e-3 * np.abs(first).max(), system
        runs = {name: (lambda pair=pair: milliseconds(*pair)) for name, pair in made.items()}
        found[system] = {name: spread(values) for name, values in interleaved(runs, repeats).items()}
    return found


def markdown(result):
    """The table of the saved figures."""
    names = list(next(iter(result["milliseconds"].values())))
    lines = ["| milliseconds of a step | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for system, row in result["milliseconds"].items():
        lines.append(f"| {system} | " + " | ".join(f"{row[name]['median']:.0f}" for name in names) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print the table of the saved figures, measure nothing")
    args = parser.parse_args()
    if not args.markdown:
        info = machine()
        print_machine(info)
        FILE.write_text(json.dumps({"machine": info, "milliseconds": measured(args.repeats)}, indent=2) + "\n")
    print(markdown(json.loads(FILE.read_text())))


if __name__ == "__main__":
    main()
