"""How fast lattices of the Ising model are made at its transition: site visits and independent lattices per second.

    python benchmarks/bench_ising.py [--repeats N] [--markdown]

A site visit is a spin whose four bonds are looked at: with Wolff's algorithm each spin that joins a cluster and is flipped,
with Metropolis's each spin that is tried. Visits of the two are not worth the same, so what counts is the number of lattices
per second that are two autocorrelation times apart, of energy or |magnetization|, whichever is longer.

First verifies that the mean energy of each contender is Kaufman's. Public packages take part where they can be imported:
isingmodel (pip install ising-rs; Rust), peapods (Rust), pyising (C++).
"""

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from common import RESULTS, interleaved, machine, print_machine, save, spread
from matplotlib.figure import Figure

from npvae.core.cores import cores_available
from npvae.data.autocorrelation import autocorrelation_time
from npvae.data.ising_exact import T_CRITICAL, kaufman_energy
from npvae.kernels.ising import count, wolff

SIZE = 40  # where all are compared; Metropolis's autocorrelation time grows as the square of the size
SIZES = (40, 128, 1024)  # of npvae's site visits
SECONDS = 0.3  # of one run


class Npvae:
    """Wolff's algorithm as `npvae.data.ising` runs it, one chain per worker."""

    update, interval, n_measured = "cluster", 1, 20_000

    def __init__(self, size, workers=1):
        self.size, self.pool = size, ThreadPoolExecutor(workers)
        self.chains = [(np.ones(size * size, np.uint8), np.random.SeedSequence(i).generate_state(4).astype(np.int64))
                       for i in range(workers)]  # fmt: skip

    def run(self, n):
        """Do n updates in each chain; returns the site visits of all."""
        p_add, stored = -math.expm1(-2 / T_CRITICAL), np.empty((1, self.size**2), np.uint8)
        return sum(self.pool.map(lambda chain: wolff(chain[0], self.size, p_add, n, stored.copy(), chain[1]), self.chains))

    def spins(self):
        return self.chains[0][0]


class NumpyMetropolis:
    """Metropolis on the two colours of a chessboard in turn, as whole arrays."""

    update, interval, n_measured = "sweep", 100, 2500

    def __init__(self, size):
        self.rng, self.s = np.random.default_rng(0), np.ones((size, size), np.int8)
        self.colours = [np.add.outer(np.arange(size), np.arange(size)) % 2 == colour for colour in (0, 1)]
        self.p = np.exp(-2 * np.arange(-4, 5) / T_CRITICAL).astype(np.float32)  # of s · (sum of the neighbours) from -4 to 4

    def run(self, n):
        s = self.s
        for _ in range(n):
            for colour in self.colours:
                around = np.roll(s, 1, 0) + np.roll(s, -1, 0) + np.roll(s, 1, 1) + np.roll(s, -1, 1)
                flips = colour & (self.rng.random(s.shape, np.float32) < self.p[s * around + 4])
                np.negative(s, out=s, where=flips)
        return n * s.size

    def spins(self):
        return (self.s.ravel() > 0).astype(np.uint8)


class Isingmodel:
    """Wolff's algorithm of the package ising-rs."""

    update, interval, n_measured = "cluster", 1, 20_000

    def __init__(self, size):
        import isingmodel

        self.lattice = isingmodel.Lattice(width=size, height=size, temperature=T_CRITICAL, h_z=0.0)

    def run(self, n):
        for _ in range(n):
            self.lattice.wolff_step()

    def spins(self):
        return (np.array(self.lattice.as_array()) > 0).astype(np.uint8)


class Pyising:
    """Wolff's algorithm of the package pyising, n clusters in one call, which a burn-in of some 80 clusters precedes: so its
    autocorrelation time is not seen from call to call, and is taken to be that of the same algorithm in npvae."""

    update, interval, n_measured, tau_of = "cluster", 1, 1000, "npvae, Wolff, 1 worker"

    def __init__(self, size):
        import pyising

        self.model = pyising.Ising2D(size, 1)
        self.model.initialize_spins()
        self.model.compute_neighbors()

    def run(self, n):
        self.model.do_step_wolff(T_CRITICAL, n, 1)

    def spins(self):
        return (np.array(self.model.get_configuration()) > 0).astype(np.uint8)


class Peapods:
    """Metropolis of the package peapods, n sweeps in one call."""

    update, interval, n_measured, options = "sweep", 100, 2500, {}

    def __init__(self, size):
        from peapods import Ising

        self.model, self.size = Ising((size, size), temperatures=np.array([T_CRITICAL])), size

    def run(self, n):
        with np.errstate(invalid="ignore"):  # of a cumulant that it computes
            self.model.sample(n, warmup_ratio=0, sequential=True, **self.options)
        return n * self.size**2

    def spins(self):
        return (np.ravel(self.model._sim.get_spins()) > 0).astype(np.uint8)


class PeapodsClusters(Peapods):
    """And after each sweep a cluster of Wolff's."""

    interval, n_measured, options = 1, 10_000, {"cluster_update_interval": 1, "cluster_mode": "wolff"}

    def run(self, n):
        super().run(n)  # how many visits the clusters make is not known


def present():
    """name -> contender at SIZE, of those that can be imported."""
    workers = cores_available()
    found = {"npvae, Wolff, 1 worker": Npvae(SIZE), f"npvae, Wolff, {workers} workers": Npvae(SIZE, workers),
             "NumPy, Metropolis": NumpyMetropolis(SIZE)}  # fmt: skip
    for name, peer in {"ising-rs, Wolff": Isingmodel, "pyising, Wolff": Pyising, "peapods, Metropolis": Peapods,
                       "peapods, Metropolis + Wolff": PeapodsClusters}.items():  # fmt: skip
        try:
            found[name] = peer(SIZE)
        except ImportError:
            print(f"{name}: not installed")
    return found


def autocorrelation(name, contender):
    """The larger of the autocorrelation times of energy and |magnetization|, in updates; SystemExit for a wrong energy."""
    contender.run(100 * contender.interval)
    lattices = np.empty((contender.n_measured, SIZE**2), np.uint8)
    for lattice in lattices:
        contender.run(contender.interval)
        lattice[:] = contender.spins()
    n_aligned, n_up = np.empty((2, len(lattices)), np.int64)
    count(lattices, SIZE, n_aligned, n_up)
    energy, taus = 2 - 2 * n_aligned / SIZE**2, [autocorrelation_time(a) for a in (n_aligned, abs(2 * n_up - SIZE**2))]
    error = energy.std() * math.sqrt(2 * max(taus[0], 0.5) / len(energy))
    distance = (energy.mean() - kaufman_energy(T_CRITICAL, SIZE)) / error
    if abs(distance) > 4.9:
        raise SystemExit(f"no times: the energy of {name} is {distance:.1f} standard errors from the exact one")
    return contender.interval * max(taus)


def timed(contender):
    """A function that runs a contender for about SECONDS, and returns seconds per update and site visits per second (None
    where they are not counted)."""
    n = 10
    while True:
        began = time.perf_counter()
        contender.run(n)
        seconds = time.perf_counter() - began
        if seconds > SECONDS / 4:
            break
        n *= 2
    n = math.ceil(n * SECONDS / seconds)

    def run():
        began = time.perf_counter()
        visits = contender.run(n)
        seconds = time.perf_counter() - began
        return seconds / n, visits and visits / seconds

    return run


def compared(repeats):
    """What is measured of each contender, at SIZE: name -> numbers."""
    found = present()
    measured = {name: autocorrelation(name, contender) for name, contender in found.items()}
    taus = {name: measured[getattr(contender, "tau_of", name)] for name, contender in found.items()}
    runs = interleaved({name: timed(contender) for name, contender in found.items()}, repeats)
    results = {}
    for name, contender in found.items():
        chains = len(getattr(contender, "chains", [0]))
        lattices = spread([chains / (2 * taus[name] * seconds) for seconds, _ in runs[name]])
        visits = None if runs[name][0][1] is None else spread([visits for _, visits in runs[name]])
        results[name] = {"update": contender.update, "updates_per_lattice": 2 * taus[name], "lattices_per_second": lattices,
                         "site_visits_per_second": visits}  # fmt: skip
    return results


def visits_by_size(repeats):
    """Site visits per second of npvae: [{size, workers, site_visits_per_second}]."""
    cases = {(size, workers): Npvae(size, workers) for size in SIZES for workers in sorted({1, cores_available()})}
    for (size, _), contender in cases.items():
        contender.run(200 if size < 1000 else 20)  # the first clusters, of an ordered lattice, are larger
    runs = interleaved({case: timed(contender) for case, contender in cases.items()}, repeats)
    return [{"size": size, "workers": workers, "site_visits_per_second": spread([visits for _, visits in values])}
            for (size, workers), values in runs.items()]  # fmt: skip


def markdown(result):
    """The README's tables of a result: all contenders at one size, and npvae at several."""
    lines = [f"| {result['size']} × {result['size']} spins | site visits/s | updates from lattice to lattice | lattices/s |",
             "|---|---:|---:|---:|"]  # fmt: skip
    for name, row in result["contenders"].items():
        visits, lattices = row["site_visits_per_second"], row["lattices_per_second"]["median"]
        cells = ["–" if visits is None else f"{visits['median']:.2g}", f"{row['updates_per_lattice']:.3g} {row['update']}s",
                 f"{lattices:,.0f}" if lattices >= 10 else f"{lattices:.1f}"]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| npvae, size | workers | site visits/s | lowest and highest run |", "|---:|---:|---:|---:|"]
    for row in result["npvae"]:
        visits = row["site_visits_per_second"]
        cells = [row["size"], row["workers"], f"{visits['median']:.2g}", f"{visits['min']:.2g} … {visits['max']:.2g}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def draw(results):
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(results)), layout="constrained")
    axes = figure.subplots()
    names = sorted(results, key=lambda name: results[name]["lattices_per_second"]["median"])
    values = [results[name]["lattices_per_second"]["median"] for name in names]
    colours = ["#228833" if name.startswith("npvae") else "#999999" for name in names]
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, [f" {value:,.0f}" if value >= 10 else f" {value:.1f}" for value in values])
    axes.set(xscale="log", xlim=(min(values) / 3, max(values) * 4), xlabel="independent lattices per second")
    axes.set_title(f"Ising model, {SIZE} × {SIZE} spins at the transition", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="interleaved runs of each contender (default: 5)")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print the saved result as tables")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads((RESULTS / "ising.json").read_text())))
        return
    info = machine()
    for package in ("ising-rs", "pyising", "peapods"):
        try:
            info["versions"][package] = version(package)
        except PackageNotFoundError:
            info["versions"][package] = None
    print_machine(info)
    contenders = compared(args.repeats)
    result = {"machine": info, "size": SIZE, "contenders": contenders, "npvae": visits_by_size(args.repeats)}
    print(markdown(result) + "\n")
    save("ising", result, draw(contenders))


if __name__ == "__main__":
    main()
