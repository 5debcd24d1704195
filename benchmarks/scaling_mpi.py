"""Training in several processes: what it costs, how far it scales, what batch it needs, and how much memory.

    python benchmarks/scaling_mpi.py [weak] [overlap] [model] [memory] [batches] [--data-dir DIR] [--repeats N]

weak      the time of a step of 784-400-20 with b rows for each of one process, two threads, two processes (of mpiexec)
overlap   what it gains to add up half of a gradient, the decoder's, while the encoder's is computed
model     a cost model of the step, fitted to what `weak` measured, stated for up to 1000 machines
memory    the peak memory of training on 10^5, 10^6 and 10^7 binary rows of 784, which are made in a temporary folder
batches   −ELBO on MNIST after equal epochs with batches of 128 ... 8192, by three rules for the learning rate
Without a word: all of them. Each adds what it finds to results/scaling_mpi.json, and the figure is of all that is there.
With --markdown: the tables of what is there.
"""

import argparse
import contextlib
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
from scaling_mpi_report import draw, markdown

import npvae
from npvae.core.randomness import permutation
from npvae.core.ranks import Ranks, SumOfShares
from npvae.core.workers import Workers
from npvae.data import mnist
from npvae.data.arrays import Mapped
from npvae.data.rows import Rows
from npvae.training.step import Step

WIDTHS = {"n_features": 784, "n_latent": 20, "hidden": (400,)}
ROWS_EACH = (128, 256, 512, 1024, 2048)  # b, of each process or thread
SIZES = (10**3, 10**4, 10**5, 10**6, 4 * 10**6)  # of what is added up, float32
KINDS = {"one process": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}  # -> ranks, workers of each
MACHINES = (1, 2, 4, 10, 30, 100, 300, 1000)
NETWORK = {"latency": 2e-6, "bytes_per_second": 1e10, "numbers": 2e-5}  # assumed of a cluster: 2 µs, 10 GB/s
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


def seconds_overlapped(comm, n_rows=512, n_parts=8):
    """Median seconds of the sum of half of a gradient (MPI's own), of the product for the encoder's dW with n_rows rows, of
    both in turn, and of both at once: the sum begun, the product, without or with a look at the sum after each part of it, and
    the sum waited for."""
    x, dpre = (np.ones((n_rows, width), np.float32) for width in (784, 400))
    share, total = np.ones((2, npvae.VAE(**WIDTHS).theta.size // 2), np.float32)
    parts = np.array_split(np.arange(784), n_parts)

    def add():
        comm.Allreduce(share, total)

    def multiply(test=lambda: None):
        for part in parts:
            x[:, part[0] : part[-1] + 1].T @ dpre
            test()

    def at_once(looks):
        request = comm.Iallreduce(share, total)
        multiply(*[request.Test] * looks)
        request.Wait()

    tasks = {"sum": add, "product": multiply, "in turn": lambda: (add(), multiply()), "at once": lambda: at_once(False),
             "at once, with looks": lambda: at_once(True)}  # fmt: skip
    times = {name: [] for name in tasks}
    with Workers(1):  # holds BLAS to one thread
        for _ in range(100):
            for name, task in tasks.items():
                comm.Barrier()
                started = time.perf_counter()
                task()
                times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values[10:])) for name, values in times.items()}


def as_rank(task):
    """What a process of mpiexec does for this script: the answer is printed by rank 0."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[comm.Get_rank() % len(cores)]})  # as mpiexec does it where there is a core for each
    tasks = {"sums": seconds_of_sums, "overlap": seconds_overlapped,
             "steps": lambda comm: {b: seconds_per_step(b, 1, comm) for b in ROWS_EACH}}  # fmt: skip
    answer = tasks[task](comm)
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


def weak(args, _):
    runs = {kind: [] for kind in KINDS}
    for _ in range(args.repeats):
        for kind, (n, workers) in KINDS.items():
            runs[kind].append(on_ranks(n, "steps") if n > 1 else {b: seconds_per_step(b, workers) for b in ROWS_EACH})
    times = {kind: {b: spread([1e3 * run[b] for run in values]) for b in ROWS_EACH} for kind, values in runs.items()}
    return {"milliseconds": times, "sums": {n: on_ranks(n, "sums") for n in (2, 4)}}


def overlap(*_):
    return on_ranks(2, "overlap")


# -------------------------------------------------------------------------------------------------------- cost model


def seconds_per_row(n=4 * 10**6):
    """Of a permutation of n rows, which every rank makes for every epoch, and of rows that are read from a mapped file."""
    times = []
    for seed in range(3):
        started = time.perf_counter()
        permutation(np.random.default_rng(seed), n)
        times.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", np.zeros((100_000, 784), bool))
        mapped, index = Mapped(np.load(Path(folder) / "x.npy", mmap_mode="r")), np.random.default_rng(0).permutation(100_000)
        started = time.perf_counter()
        for start in range(0, len(index), 1000):
            mapped[index[start : start + 1000]]
        return {"permutation": min(times) / n, "input": (time.perf_counter() - started) / len(index)}


def model(_, found):
    """Seconds of a step of N ranks with b rows each, P parameters:

    c0 + c1 b                                        compute and update, of one process
    numbers(N) = numbers(2) log2 N                   the shares' Terms
    sum(N) = 2 (N − 1) (latency + 4 P / (N bandwidth))   the sum: to each other rank a block, and the sum of a block
    permutation N b                                  every rank makes that of all rows, N b for each step
    """
    weak, rows, P = found["weak"], seconds_per_row(), npvae.VAE(**WIDTHS).theta.size
    one = {int(b): 1e-3 * point["median"] for b, point in weak["milliseconds"]["one process"].items()}
    c1, c0 = np.polyfit(list(one), list(one.values()), 1, w=1 / np.array(list(one.values())))  # equal relative errors
    sums = {int(size): seconds for size, seconds in weak["sums"]["2"]["sums"].items()}
    per_byte, start = np.polyfit([4 * size for size in sums], list(sums.values()), 1, w=1 / np.array(list(sums.values())))
    here = {"latency": start / 2, "bytes_per_second": 1 / per_byte, "numbers": weak["sums"]["2"]["numbers"]}

    def step(N, b, network):
        sums = 2 * (N - 1) * (network["latency"] + 4 * P / (N * network["bytes_per_second"]))
        return c0 + c1 * b + rows["permutation"] * N * b + np.log2(N) * network["numbers"] + sums

    efficiency = {N: {b: step(1, b, NETWORK) / step(N, b, NETWORK) for b in (*ROWS_EACH, 8192)} for N in MACHINES}
    needed = {N: next((b for b in range(1, 10**5) if step(1, b, NETWORK) >= 0.9 * step(N, b, NETWORK)), None) for N in MACHINES}
    return {
        "seconds": {"step": c0, "row": c1, **rows}, "here": here, "network": NETWORK, "parameters": P,
        "predicted_two_processes_ms": {b: 1e3 * step(2, b, here) for b in ROWS_EACH},
        "efficiency": efficiency, "rows_for_90_percent": needed,
        "of_the_step_in_the_sum": {b: step(2, b, here) / step(1, b, here) - 1 for b in ROWS_EACH},
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ memory


def anonymous_mb():
    """Memory of this process that is no file's, in MB: what cannot be dropped and read again (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def memory_of(n, folder):
    """Of training on n rows: peak and start of the memory, and seconds; printed."""
    path = Path(folder) / "rows.npy"
    x = np.lib.format.open_memmap(path, "w+", bool, (n, 784))
    some = np.random.default_rng(0).random((10_000, 784), np.float32) < 0.13
    for start in range(0, n, len(some)):
        x[start : start + len(some)] = np.roll(some, start // len(some), axis=1)
    del x, some
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


def memory(args, _):
    points = []
    for n in (10**5, 10**6, 10**7):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            command = [sys.executable, __file__, "--memory-of", str(n), folder]
            points.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(points[-1], flush=True)
    return points


# ------------------------------------------------------------------------------------------------------ large batches


def batches(args, _):
    digits, rows = mnist.load(args.data_dir), []
    for size in BATCHES:
        for rule, power in RULES.items():
            if size == BATCHES[0] and power:
                continue
            rate = 1e-3 * (size / BATCHES[0]) ** power
            rows.append({"batch": size, "rule": rule, "rate": rate, "loss": [None]})
            with contextlib.suppress(FloatingPointError):  # the rate was too high
                history = npvae.fit(npvae.VAE(**WIDTHS), digits.x_train, digits.x_test, epochs=EPOCHS, batch_size=size,
                                    optimizer=npvae.Adam(rate), progress=False)  # fmt: skip
                rows[-1] |= {"loss": history["val_loss"].tolist(), "seconds": history.rows[-1]["seconds"]}
            print(rows[-1], flush=True)
    return {"epochs": EPOCHS, "rows": rows}


PARTS = {"weak": weak, "overlap": overlap, "model": model, "memory": memory, "batches": batches}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all of them)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--folder", metavar="DIR", help="where the 8 GB of rows of `memory` may be for a while")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="interleaved runs of `weak` (default: 3)")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print the saved results as tables")
    parser.add_argument("--as-rank", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_rank:
        return as_rank(args.as_rank)
    if args.memory_of:
        return memory_of(int(args.memory_of[0]), args.memory_of[1])
    path = RESULTS / "scaling_mpi.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if args.markdown:
        return print(markdown(found))
    if wrong := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(wrong)}")
    info = machine()
    print_machine(info)
    for part in args.parts or PARTS:
        result = PARTS[part](args, found)
        found = json.loads(json.dumps({**found, part: result, "machine": info}))
        print(markdown({part: found[part]}), flush=True)
        save("scaling_mpi", found, draw(found))


if __name__ == "__main__":
    main()
