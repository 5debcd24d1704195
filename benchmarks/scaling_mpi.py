"""Training in several processes: what it costs, how far it scales, what batch it needs, and how much memory.

    python benchmarks/scaling_mpi.py [weak] [model] [memory] [batches] [--data-dir DIR] [--repeats N]

weak      the time of a step of 784-400-20 with b rows for each of one process, two threads, two processes (of mpiexec)
model     a cost model of the step, fitted to what `weak` measured, stated for up to 1000 machines
memory    the peak memory of training on 10^5, 10^6 and 10^7 binary rows of 784, which are made in a temporary folder
batches   −ELBO on MNIST after equal epochs with batches of 128 ... 8192, by three rules for the learning rate
Without a word: all of them. Each saves what it found in results/scaling_mpi.json, and the figure is of all that is there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from bench_scaling import grey_images
from common import RESULTS, machine, print_machine, save, spread
from matplotlib.figure import Figure

import npvae
from npvae.core.ranks import Ranks, SumOfShares
from npvae.core.workers import Workers
from npvae.data import mnist
from npvae.data.rows import Rows
from npvae.training.step import Step

PARTS = ("weak", "model", "memory", "batches")
WIDTHS = {"n_features": 784, "n_latent": 20, "hidden": (400,)}
ROWS_EACH = (128, 256, 512, 1024, 2048)  # b, of each process or thread
SIZES = (10**3, 10**4, 10**5, 10**6, 4 * 10**6)  # of what is added up, float32
KINDS = {"one process": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}  # -> ranks, workers of each
MACHINES = (1, 2, 4, 10, 30, 100, 300, 1000)
NETWORK = {"latency": 2e-6, "bytes_per_second": 1e10}  # of a cluster as they are built today: 2 µs, 100 Gbit/s
BATCHES = (128, 256, 512, 1024, 2048, 4096, 8192)
RULES = {"constant": 0.0, "square root": 0.5, "linear": 1.0}  # learning rate 1e-3 · (batch/128)^p
EPOCHS = 10


# ------------------------------------------------------------------------------------------------------ weak scaling


def seconds_per_step(n_rows, workers, comm=None, n_steps=60):
    """Median seconds of a step with n_rows rows for each worker of each rank; on rank 0."""
    ranks, model, images = Ranks(comm), npvae.VAE(**WIDTHS), grey_images(5000)
    batch_size = n_rows * workers * ranks.n
    with Workers(workers) as pool:
        step = Step(model, Rows.of(model, images, "images"), batch_size, npvae.Adam(), pool, ranks=ranks)
        rng, times = np.random.default_rng(0), []
        for number in range(10 + n_steps):
            index = rng.integers(0, len(images), batch_size)
            started = time.perf_counter()
            step(index, number)
            times.append(time.perf_counter() - started)
    return float(np.median(times[10:]))


def seconds_of_sums(comm):
    """Size -> median seconds of a sum over ranks, and of the gathering of a few numbers."""
    ranks, seconds = Ranks(comm), {}
    for size in SIZES:
        add, share, times = SumOfShares(ranks, 1, size, np.float32), np.ones((1, size), np.float32), []
        for _ in range(60):
            started = time.perf_counter()
            add(share, ranks.n)
            times.append(time.perf_counter() - started)
        seconds[size] = float(np.median(times[10:]))
    times = []
    for _ in range(300):
        started = time.perf_counter()
        ranks.gathered(lambda: [([1.0, 2.0, 3.0, 4.0], 5.0)])
        times.append(time.perf_counter() - started)
    return {"sums": seconds, "numbers": float(np.median(times[10:]))}


def as_rank(task):
    """What a process of mpiexec does for this script: the answer is printed by rank 0."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    answer = seconds_of_sums(comm) if task == "sums" else {b: seconds_per_step(b, 1, comm) for b in ROWS_EACH}
    if comm.Get_rank() == 0:
        print(json.dumps(answer))


def on_ranks(n, task):
    """The answer of `as_rank` in n processes."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(mpiexec) if mpiexec.exists() else "mpiexec"
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # fmt: skip
    command = [mpiexec, "-n", str(n), sys.executable, __file__, "--as-rank", task]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return {int(name) if name.isdecimal() else name: value for name, value in json.loads(out.splitlines()[-1]).items()}


def weak(args):
    runs = {kind: [] for kind in KINDS}
    for _ in range(args.repeats):
        for kind, (n, workers) in KINDS.items():
            runs[kind].append(on_ranks(n, "steps") if n > 1 else {b: seconds_per_step(b, workers) for b in ROWS_EACH})
    times = {kind: {b: spread([1e3 * run[b] for run in values]) for b in ROWS_EACH} for kind, values in runs.items()}
    print(f"{'rows each':>10}" + "".join(f"{kind:>16}" for kind in KINDS) + "   efficiency: threads, processes, their ratio")
    for b in ROWS_EACH:
        one, threads, processes = (times[kind][b]["median"] for kind in KINDS)
        print(f"{b:10}" + "".join(f"{value:13.3f} ms" for value in (one, threads, processes))
              + f"   {one / threads:.0%}, {one / processes:.0%}, {threads / processes:.0%}")  # fmt: skip
    sums = {n: on_ranks(n, "sums") for n in (2, 4)}
    print("sums over ranks, ms: " + "; ".join(f"{n} ranks " + ", ".join(
        f"{size:.0e} {1e3 * value:.3f}" for size, value in answer["sums"].items()) for n, answer in sums.items()))  # fmt: skip
    return {"milliseconds": times, "sums": sums}


# -------------------------------------------------------------------------------------------------------- cost model


def model(args, found):
    """step(N, b) = c0 + c1 b + numbers(N) + sum(N), with sum(N) = 2 (N − 1) (latency + 4 P / (N bandwidth)) of P parameters."""
    one = {int(b): 1e-3 * point["median"] for b, point in found["weak"]["milliseconds"]["one process"].items()}
    c1, c0 = np.polyfit(list(one), list(one.values()), 1)
    two = {int(size): value for size, value in found["weak"]["sums"]["2"]["sums"].items()}
    per_byte, start = np.polyfit([4 * size for size in two], list(two.values()), 1)
    here = {"latency": max(start, min(two.values())) / 2, "bytes_per_second": 1 / per_byte}
    P = npvae.VAE(**WIDTHS).theta.size
    numbers = found["weak"]["sums"]["2"]["numbers"]

    def step(N, b, network):
        exchange = 2 * (N - 1) * (network["latency"] + 4 * P / (N * network["bytes_per_second"]))
        return c0 + c1 * b + (exchange + 2 * network["latency"] * np.log2(N) if N > 1 else 0)

    result = {"seconds": {"c0": c0, "c1": c1, "numbers": numbers}, "here": here, "network": NETWORK, "P": P, "efficiency": {},
              "batch_for_90_percent": {}}  # fmt: skip
    for N in MACHINES:
        result["efficiency"][N] = {b: step(1, b, NETWORK) / step(N, b, NETWORK) for b in (*ROWS_EACH, 8192)}
        lost = step(N, 0, NETWORK) - step(1, 0, NETWORK)
        result["batch_for_90_percent"][N] = max(1, int(np.ceil((9 * lost - c0) / c1)))
    predicted = {b: step(2, b, here) for b in ROWS_EACH}
    result["predicted_two_processes_ms"] = {b: 1e3 * value for b, value in predicted.items()}
    print(f"c0 {1e3 * c0:.3f} ms, c1 {1e6 * c1:.2f} µs a row, here {1e6 * here['latency']:.0f} µs and "
          f"{here['bytes_per_second'] / 1e9:.2f} GB/s, numbers {1e6 * numbers:.0f} µs")  # fmt: skip
    for N in MACHINES:
        print(f"{N:5} machines: " + ", ".join(f"b {b}: {value:.0%}" for b, value in result["efficiency"][N].items())
              + f"; 90 % from b = {result['batch_for_90_percent'][N]}")  # fmt: skip
    return result


# ------------------------------------------------------------------------------------------------------------ memory


def anonymous_mb():
    """Memory of this process that is no file's, in MB: what cannot be dropped and read again (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def memory_of(n, folder):
    """Of training on n rows: peak and start of the memory, and seconds; printed."""
    path = Path(folder) / "rows.npy"
    x = np.lib.format.open_memmap(path, "w+", bool, (n, 784))
    rng = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        x[start : start + 10_000] = rng.random((min(10_000, n - start), 784), np.float32) < 0.13
    del x
    model = npvae.VAE(**WIDTHS)
    npvae.fit(model, np.zeros((10_000, 784), bool), epochs=1, progress=False)  # compiles, makes buffers
    samples, ended = [anonymous_mb()], threading.Event()

    def watch():
        while not ended.wait(0.005):
            samples.append(anonymous_mb())

    threading.Thread(target=watch).start()
    started, x = time.perf_counter(), np.load(path, mmap_mode="r")
    npvae.fit(model, x, x[:1000], epochs=1, progress=False, on_step=lambda state: state.step == 300)
    ended.set()
    print(json.dumps({"rows": n, "start_mb": samples[0], "peak_mb": max(samples), "seconds": time.perf_counter() - started}))


def memory(args):
    points = []
    for n in (10**5, 10**6, 10**7):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            command = [sys.executable, __file__, "--memory-of", str(n), folder]
            points.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        more = points[-1]["peak_mb"] - points[-1]["start_mb"]
        print(f"{n:10,} rows ({n * 784 / 1e6:,.0f} MB): peak {points[-1]['peak_mb']:.0f} MB, {more:.1f} MB above the start "
              f"({more * 2**20 / n:.1f} bytes a row), {points[-1]['seconds']:.0f} s", flush=True)  # fmt: skip
    return points


# ------------------------------------------------------------------------------------------------------ large batches


def batches(args):
    digits, rows = mnist.load(args.data_dir), []
    for size in BATCHES:
        for rule, power in RULES.items():
            if size == BATCHES[0] and power:
                continue
            rate = 1e-3 * (size / BATCHES[0]) ** power
            history = npvae.fit(npvae.VAE(**WIDTHS), digits.x_train, digits.x_test, epochs=EPOCHS, batch_size=size,
                                optimizer=npvae.Adam(rate), progress=False)  # fmt: skip
            row = {"batch": size, "rule": rule, "rate": rate, "loss": history["val_loss"].tolist(),
                   "skipped": int(history["skipped"].sum()), "seconds": history.rows[-1]["seconds"]}  # fmt: skip
            rows.append(row)
            print(f"batch {size:5} {rule:12} {rate:.1e}: {row['loss'][-1]:.2f} nats, {row['seconds']:.0f} s", flush=True)
    return {"epochs": EPOCHS, "rows": rows}


# ------------------------------------------------------------------------------------------------------------ figure


def draw(found):
    figure = Figure(figsize=(11, 8), layout="constrained")
    places = figure.subplots(2, 2)
    for axes, (part, panel) in zip(places.flat, PANELS.items()):
        axes.grid(alpha=0.3)
        if part in found:
            panel(axes, found[part])
    return figure


def draw_weak(axes, result):
    times = {kind: [point["median"] for point in points.values()] for kind, points in result["milliseconds"].items()}
    one = times.pop("one process")
    for (kind, values), colour in zip(times.items(), ("#4477aa", "#228833")):
        axes.plot(ROWS_EACH, [100 * a / b for a, b in zip(one, values)], "o-", label=kind, color=colour)
    axes.set(xscale="log", xlabel="rows for each", ylabel="weak scaling efficiency, %", ylim=(0, 105),
             title="two threads and two processes on two cores")  # fmt: skip
    axes.set_xticks(ROWS_EACH, map(str, ROWS_EACH))
    axes.minorticks_off()
    axes.legend()


def draw_model(axes, result):
    for b, colour in zip(("128", "512", "2048", "8192"), ("#cc3311", "#ee7733", "#228833", "#4477aa")):
        axes.plot(MACHINES, [100 * result["efficiency"][str(N)][b] for N in MACHINES], "o-", color=colour,
                  label=f"{b} rows each")  # fmt: skip
    axes.set(xscale="log", xlabel="machines", ylabel="efficiency, %", ylim=(0, 105),
             title="the cost model, with a network of 2 µs and 10 GB/s")  # fmt: skip
    axes.legend()


def draw_memory(axes, points):
    rows = [point["rows"] for point in points]
    axes.loglog(rows, [784 * n / 2**20 for n in rows], "o--", color="#888888", label="the file")
    axes.loglog(rows, [point["peak_mb"] for point in points], "o-", color="#228833", label="peak of the process")
    above = [point["peak_mb"] - point["start_mb"] for point in points]
    axes.loglog(rows, above, "o-", color="#4477aa", label="of it the rows' share")
    axes.set(xlabel="rows of 784 binary values", ylabel="MB", title="memory of training from a mapped file")
    axes.legend()


def draw_batches(axes, result):
    for rule, colour in zip(RULES, ("#cc3311", "#228833", "#4477aa")):
        rows = [row for row in result["rows"] if row["rule"] == rule or row["batch"] == BATCHES[0]]
        axes.plot([row["batch"] for row in rows], [row["loss"][-1] for row in rows], "o-", color=colour, label=rule)
    axes.set(xscale="log", xlabel="batch", ylabel="−ELBO of the test images, nats",
             title=f"MNIST after {result['epochs']} epochs; learning rate by rule")  # fmt: skip
    axes.set_xticks(BATCHES, map(str, BATCHES))
    axes.minorticks_off()
    axes.legend()


PANELS = {"weak": draw_weak, "model": draw_model, "memory": draw_memory, "batches": draw_batches}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure (default: everything)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--folder", metavar="DIR", help="where the 8 GB of rows of `memory` may be for a while")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="interleaved runs of `weak` (default: 3)")
    parser.add_argument("--as-rank", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_rank:
        return as_rank(args.as_rank)
    if args.memory_of:
        return memory_of(int(args.memory_of[0]), args.memory_of[1])
    info, path = machine(), RESULTS / "scaling_mpi.json"
    print_machine(info)
    found = json.loads(path.read_text()) if path.exists() else {}
    for part in args.parts or PARTS:
        result = {"weak": weak, "memory": memory, "batches": batches}[part](args) if part != "model" else model(args, found)
        found = json.loads(json.dumps({**found, part: result, f"machine of {part}": info}))
        save("scaling_mpi", found, draw(found))


if __name__ == "__main__":
    main()
