"""Wall-clock time of training on MNIST until the test −ELBO is below 105 nats, npvae against PyTorch, and rows per second.

    python benchmarks/bench_train.py [--data-dir DIR] [--repeats N]

784-400-20-400-784, relu, Adam 1e-3, batch 128, dynamic binarisation, the same initial weights and order of rows. Only training
is timed: after every epoch the clock stops and npvae's NumPy back end measures the −ELBO of the test images, binarised once,
with the same noise for all. The contenders train by turns. Compilation is in the first epoch's time and shown apart.
"""

import argparse
import resource
import sys
import time
from functools import partial

import numpy as np
from bench_step import COLOURS, Npvae, timed
from common import machine, print_machine, save, spread
from matplotlib.figure import Figure
from peers import PEERS
from tasks import vae_task

import npvae
from npvae.data import mnist

WIDTHS, BATCH_SIZE, TARGET, MAX_EPOCHS = (784, 400, 20), 128, 105.0, 30


def race(name, run, weights, n, judge):
    """Train until the target; returns seconds per epoch and the −ELBO after each."""
    seconds, losses = [], []
    for epoch in range(MAX_EPOCHS):
        order = np.random.default_rng(epoch).permutation(n)
        seconds.append(run([order[i : i + BATCH_SIZE] for i in range(0, n - BATCH_SIZE + 1, BATCH_SIZE)]))
        losses.append(judge(weights()))
        print(f"    {name:18} epoch {epoch + 1:2}: {seconds[-1]:6.2f} s, −ELBO {losses[-1]:.2f}", flush=True)
        if losses[-1] < TARGET:
            return seconds, losses
    raise SystemExit(f"{name} has not reached {TARGET} nats after {MAX_EPOCHS} epochs: {losses[-1]:.2f}")


def contestants(images, theta):
    """name -> a function that makes (run, weights), or a text that says what is missing."""
    task = vae_task(WIDTHS, images)

    def ours():
        contender = Npvae(task, theta, "numba", BATCH_SIZE)
        return contender.run, lambda: contender.model.theta

    found = {"npvae numba": ours}
    for kind in PEERS:
        if not kind.name.startswith("PyTorch"):
            continue

        def theirs(kind=kind):
            peer = kind(task, theta)
            return partial(timed, peer.run), peer.theta

        try:
            theirs()
            found[kind.name] = theirs
        except ImportError as error:
            found[kind.name] = f"not installed ({error.name})"
    return found


def draw(rows):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, (name, row) in enumerate(rows.items()):
        if "runs" in row:
            for j, run in enumerate(row["runs"]):
                label = name if j == 0 else None
                axes.plot(np.cumsum(run["seconds"]), run["elbo"], "o-", ms=3, color=COLOURS[2 * i], label=label)
    axes.axhline(TARGET, color="black", lw=1, ls="--")
    axes.set(xlabel="seconds of training", ylabel="−ELBO of the test images / nats")
    axes.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="races (default: 3)")
    args = parser.parse_args()
    data, info = mnist.load(args.data_dir), machine()
    print_machine(info)
    initial = npvae.VAE(WIDTHS[0], WIDTHS[-1], WIDTHS[1:-1], backend="numpy")
    x_test = npvae.model_input(initial, data.x_test, 0)
    initial_theta = {name: value.copy() for name, value in initial.parameters.items()}

    def judge(theta):
        initial.theta = theta
        return -npvae.evaluate.elbo(initial, x_test, 0).elbo

    found = contestants(data.x_train, initial_theta)
    rows = {name: {"missing": make} if isinstance(make, str) else {"runs": []} for name, make in found.items()}
    for _ in range(args.repeats):
        for name, make in found.items():
            if not isinstance(make, str):
                time.sleep(0.5)
                seconds, losses = race(name, *make(), len(data.x_train), judge)
                rows[name]["runs"].append({"seconds": seconds, "elbo": losses})
    print(f"\n{'':18}  seconds to {TARGET:g} nats        epochs   rows per second (median epoch)")
    for name, row in rows.items():
        if "missing" in row:
            print(f"{name:18}  {row['missing']}")
            continue
        row["seconds_to_target"] = spread([sum(run["seconds"]) for run in row["runs"]])
        row["rows_per_second"] = len(data.x_train) / float(np.median(np.concatenate([run["seconds"] for run in row["runs"]])))
        total = row["seconds_to_target"]
        epochs, times = "/".join(str(len(run["seconds"])) for run in row["runs"]), f"({total['min']:.1f} … {total['max']:.1f})"
        print(f"{name:18}  {total['median']:6.1f}  {times:16} {epochs:>8}   {row['rows_per_second']:9,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak memory of this process, all contenders: {peak / 1e6:.0f} MB\n")
    save("train", {"machine": info, "target": TARGET, "rows": rows}, draw(rows))


if __name__ == "__main__":
    main()
