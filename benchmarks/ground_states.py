"""Ground states of quantum systems by learned drifts, beside exact energies and those of the paper.

    python benchmarks/ground_states.py --only helium [--workers N]      trains and measures one row: its named command
    python benchmarks/ground_states.py --curve                          the hydrogen molecule at every distance of the curve
    python benchmarks/ground_states.py --markdown                       prints the table of what has been measured

A drift is trained with `npvae.fit`, each step a piece of the paths of all walkers, with a rate that falls to 0 along a cosine.
Then fresh walkers, which only move, give its energy: the Rayleigh quotient of their density (`npvae.models.drift_energy`), at
three lengths of a step, and from these the limit of short steps. If it is stopped, the same command goes on at the last saved
epoch. Figures are written to benchmarks/results/ground_states.json after every row, the picture beside it.

The paper is Barr, Gispen & Lamacraft 2020. Errors are one standard error, of independent walkers.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import RESULTS, machine, print_machine
from matplotlib.figure import Figure

import npvae
from npvae.models import Drift, drift_energy
from npvae.models.quantum_systems import HYDROGEN_MOLECULE
from npvae.schedules import Cosine
from npvae.training import checkpoint

FILE, PICTURE = RESULTS / "ground_states.json", RESULTS / "ground_states.png"
STEPS_PER_EPOCH, SECONDS_BETWEEN_SAVES = 10, 60


class Row(NamedTuple):
    """A system, how its drift is trained, and how its energy is measured."""

    title: str
    system: str
    numbers: dict
    epochs: int
    learning_rate: float
    lengths: tuple  # of a step, when the energy is measured
    time: float  # that each walker is measured
    n_walkers: int  # that are measured
    options: dict  # of the model, where they are not the system's


SMOOTH, STEEP, CHARGED = (0.1, 0.05, 0.025), (0.04, 0.02, 0.01), (0.02, 0.01, 0.005)
ROWS = {
    "oscillator": Row("oscillator, d = 3", "oscillator", {"n_dimensions": 3}, 40, 1e-2, SMOOTH, 20, 4000, {}),
    "quartic": Row("x⁴", "quartic", {}, 40, 1e-2, SMOOTH, 20, 4000, {}),
    "double_well": Row("4 (x² − 1)²", "double_well", {}, 60, 1e-2, STEEP, 20, 4000, {}),
    "odd_well": Row("4 (r² − 1)², d = 3", "double_well", {"n_dimensions": 3}, 60, 1e-2, STEEP, 20, 4000, {}),
    "coupled": Row("two coupled oscillators", "coupled", {}, 60, 5e-3, SMOOTH, 20, 4000, {}),
    "hydrogen": Row("hydrogen", "hydrogen", {}, 10, 1e-3, CHARGED, 5, 4000, {}),
    "half_cusp": Row("hydrogen, half of its cusp", "hydrogen", {"cusp": 0.5}, 60, 3e-3, CHARGED, 10, 4000, {}),
    "helium": Row("helium", "helium", {}, 60, 1e-3, CHARGED, 10, 8000, {}),
    "molecule": Row("H₂, R = 1.401", "hydrogen_molecule", {}, 100, 1e-3, CHARGED, 10, 8000, {}),
    "stretched": Row("H₂, R = 2.8", "hydrogen_molecule", {"distance": 2.8}, 150, 1e-3, CHARGED, 20, 8000, {}),
    "bosons2": Row("2 bosons, g = 15", "bosons", {}, 400, 5e-3, STEEP, 20, 8000, {}),
    "bosons3": Row("3 bosons, g = 14", "bosons", {"n_particles": 3, "g": 14.0}, 400, 5e-3, STEEP, 20, 8000, {}),
    "bosons4": Row("4 bosons, g = 16", "bosons", {"n_particles": 4, "g": 16.0}, 400, 5e-3, STEEP, 20, 8000, {}),
}
DRAWN = {"quartic": "#66ccee", "half_cusp": "#aa3377", "helium": "#ee6677", "molecule": "#ccbb44", "bosons2": "#4477aa",
         "bosons3": "#222222"}  # fmt: skip
IN_A_RUN = 5  # measurements during the training, of which the mean is kept
CURVE = (0.8, 1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0)  # bohr, beside the distances of two rows


def train(row, folder, args):
    """Train a row's drift to its end, from the folder's checkpoint if there is one; returns the model, its way there (step,
    energy, variance of the local energy), and the seconds by the clock and of the processor, which other work may share."""
    state, saved, notes, before, way = None, time.perf_counter(), folder / "notes.json", -time.process_time(), []
    if (folder / "checkpoint.npz").exists():
        model, state = checkpoint.load_progress(folder)
        noted = json.loads(notes.read_text())
        way, before = noted["way"], before + noted["processor_seconds"]
    else:
        model = Drift(row.system, row.numbers, seed=args.seed, **row.options)
        model.equilibrate()
    folder.mkdir(parents=True, exist_ok=True)

    def on_epoch(state):
        nonlocal saved
        step = state.history.rows[-1]["step"]
        _, paths = drift_energy.walked(model, model.buffers["walkers"], 1.0, model.dt, np.random.default_rng([args.seed, step]))
        way.append([step, float(paths.rayleigh.mean()), float(paths.local.var())])
        if state.epoch == row.epochs or time.perf_counter() > saved + SECONDS_BETWEEN_SAVES:
            checkpoint.save_progress(folder, model, state)
            notes.write_text(json.dumps({"way": way, "processor_seconds": before + time.process_time()}))
            saved, (_, energy, variance) = time.perf_counter(), way[-1]
            print(f"{row.title}, epoch {state.epoch:4}  {state.seconds:6.0f} s  energy {energy:.5f}  variance {variance:.2e}",
                  flush=True)  # fmt: skip

    if state is None or state.epoch < row.epochs:
        optimizer = npvae.Adam(Cosine(row.learning_rate, row.epochs * STEPS_PER_EPOCH))
        npvae.fit(model, epochs=row.epochs, steps_per_epoch=STEPS_PER_EPOCH, optimizer=optimizer, seed=args.seed,
                  workers=args.workers, max_gradient_norm=1.0, progress=False, on_epoch=on_epoch, resume=state)  # fmt: skip
        model, state = checkpoint.load_progress(folder)
    return model, way, {"seconds": state.seconds, "processor_seconds": json.loads(notes.read_text())["processor_seconds"]}


def measure(model, row, seed):
    """The energies of a trained drift: three estimators at each length of a step, with their errors, and the limit."""
    started, found = time.perf_counter(), {}
    for number, dt in enumerate(row.lengths):
        integrals = drift_energy.energies(model, row.time, dt, row.n_walkers, [seed, number])
        found[dt] = {name: drift_energy.mean_and_error(getattr(integrals, name)) for name in ("bound", "local", "rayleigh")}
    means, errors = zip(*(estimators["rayleigh"] for estimators in found.values()))
    value, error = drift_energy.limit(row.lengths, means, np.maximum(errors, 1e-12))
    return {"energy": value, "error": error, "at": {str(dt): estimators for dt, estimators in found.items()},
            "time": row.time, "walkers": row.n_walkers, "seconds_measuring": time.perf_counter() - started}  # fmt: skip


def figures(row, name, args):
    """Train and measure a row: its line of the results."""
    model, way, seconds = train(row, Path(args.runs) / name, args)
    physics = model.physics
    return {"title": row.title, "system": row.system, "numbers": row.numbers, "config": model.config, "epochs": row.epochs,
            "learning_rate": row.learning_rate, "exact": physics.exact, "source": physics.source, "paper": physics.paper,
            **seconds, **measure(model, row, args.seed), "way": in_runs(way)}  # fmt: skip


def in_runs(way, n=IN_A_RUN):
    """Of rows of numbers the means of n after each other, the last one of those that are left."""
    return [np.mean(way[i : i + n], axis=0).tolist() for i in range(0, len(way), n)]


def cell(value, digits=5):
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def markdown(results):
    """The table of the rows that have been measured, as the README has it."""
    lines = ["| system | exact | paper | npvae | npvae − exact | minutes |", "|---|---:|---:|---:|---:|---:|"]
    for name in ROWS:
        if name in results["rows"]:
            row = results["rows"][name]
            minutes = (row["seconds"] + row["seconds_measuring"]) / 60
            off = cell(row["energy"] - row["exact"])
            cells = cell(row["exact"]), cell(row["paper"], 4), f"{cell(row['energy'])} ± {row['error']:.5f}", off
            lines.append(f"| {row['title']} | {' | '.join(cells)} | {max(minutes, 0.1):.1f} |")
    return "\n".join(lines)


def draw(results):
    """Energy above the exact one and variance against the step of the training, and the curve of the molecule."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    energies, variances, curve = figure.subplots(1, 3)
    for name, color in DRAWN.items():
        if name in results["rows"]:
            row = results["rows"][name]
            step, energy, variance = np.array(row["way"]).T
            energies.loglog(step, np.abs(energy - row["exact"]), color=color, label=row["title"])
            variances.loglog(step, variance, color=color, label=row["title"])
    energies.set(xlabel="step of the training", title="|energy − exact|")
    variances.set(xlabel="step of the training", title="variance of a path's local energy")
    if results["rows"]:
        lines, titles = energies.get_legend_handles_labels()
        figure.legend(lines, titles, loc="outside lower left", ncols=len(DRAWN), frameon=False, fontsize=8)
    R, E = np.array(sorted(HYDROGEN_MOLECULE.items())).T
    curve.plot(R, E, "-", color="#bbbbbb", lw=2, label="exact")
    measured = {name: results["rows"][name] for name in ("molecule", "stretched") if name in results["rows"]}
    points = [(line["config"]["numbers"].get("distance", 1.401), line["energy"], line["error"])
              for line in [*results["curve"].values(), *measured.values()]]  # fmt: skip
    if points:
        R, E, error = np.array(points).T
        curve.errorbar(R, E, error, fmt="o", ms=4, color="#228833", label="npvae")
    curve.axhline(-1, color="#bbbbbb", lw=0.8, ls=":")
    curve.set(xlabel="R / bohr", title="energy of H₂ / hartree")
    curve.legend(frameon=False, fontsize=8)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=f"rows: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--curve", action="store_true", help="instead of the rows: the hydrogen molecule at many distances")
    parser.add_argument("--markdown", action="store_true", help="print the table of the saved results, and do nothing else")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", default="runs/ground_states", help="where checkpoints are kept (default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: npvae's own choice)")
    args = parser.parse_args()
    results = json.loads(FILE.read_text()) if FILE.exists() else {"rows": {}, "curve": {}}
    if args.markdown:
        print(markdown(results))
        return
    print_machine(machine())
    rows = {name: ROWS[name] for name in args.only or ROWS}
    if args.curve:
        molecule = ROWS["molecule"]
        rows = {R: molecule._replace(title=f"H₂, R = {R:g}", numbers={"distance": R}) for R in CURVE}
    for name, row in rows.items():
        line = figures(row, f"R{name}" if args.curve else name, args)
        results["curve" if args.curve else "rows"][str(name)] = line
        results |= {"seed": args.seed, "machine": machine()}
        FILE.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{row.title}: {cell(line['energy'])} ± {line['error']:.5f}, exact {cell(line['exact'])}", flush=True)
    draw(results).savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
