"""How the time of a training step grows with batch size, width, depth and workers, as log-log plots with their slopes.

    python benchmarks/bench_scaling.py [--repeats N]

Starts from 784-400-20 @ 128 and changes one size at a time; grey images as sparse as MNIST's. First verifies, at every
point, that the gradient of the compiled step is that of the NumPy ops. The slope is that of the last half of the points:
1 where the time is proportional to the size. Twice the width is four times the products of the layers between hidden layers,
but twice those of the layers next to data and latent.
"""

import argparse

import numpy as np
from bench_step import Npvae
from common import interleaved, machine, plain_log, print_machine, save, settled, spread
from matplotlib.figure import Figure
from tasks import vae_task

from npvae.core.cores import cores_available

SECONDS = 0.2  # of one run
# name -> sizes; each makes (widths, batch size, workers or None for npvae's own choice)
AXES = {
    "batch size": ([16, 32, 64, 128, 256, 512, 1024, 2048], lambda n: ((784, 400, 20), n, None)),
    "width of the hidden layer": ([32, 64, 128, 256, 512, 1024, 2048], lambda n: ((784, n, 20), 128, None)),
    "hidden layers of 200 units": ([1, 2, 4, 8, 16], lambda n: ((784, *[200] * n, 20), 128, None)),
    "workers": (None, lambda n: ((784, 400, 20), 512, n)),
}


def grey_images(n):
    """n rows of 784 grey levels, of which four fifths are black, as in MNIST."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (n, 784)) * (rng.random((n, 784)) < 0.2)).astype(np.uint8)


def verify(contender, batch_size):
    """SystemExit if the gradient is not that of the NumPy back end."""
    model = contender.model
    rng = np.random.default_rng(1)
    (x,) = contender.rows.batch(np.arange(batch_size), rng)
    eps = rng.standard_normal((1, batch_size, model.n_latent), np.float32)
    ours, theirs = np.empty_like(model.theta), np.empty_like(model.theta)
    model.gradient(x, eps, out=ours)
    model.copy(backend="numpy").gradient(x, eps, out=theirs)
    if not np.allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max()):
        raise SystemExit(f"no times: the gradient of {model} differs by {np.abs(ours - theirs).max()}")


def contender(images, widths, batch_size, workers):
    task = vae_task(widths, images)
    ours = Npvae(task, task.model("numpy").parameters, "numba", batch_size, workers)
    verify(ours, batch_size)
    rng = np.random.default_rng(2)

    def run(n):
        return ours.run([rng.integers(0, len(images), batch_size) for _ in range(n)])

    run(2)
    n = max(5, int(SECONDS / run(5) * 5))
    return lambda: settled(run, n) / n, ours.workers.n


def slope(sizes, values):
    """Of the last half of the points, in logarithms."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def draw(results):
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(2, 2).flat, results.items()):
        sizes, ms = result["sizes"], [point["median"] for point in result["milliseconds"]]
        axes.loglog(sizes, ms, "o-", color="#228833")
        axes.fill_between(sizes, *([point[end] for point in result["milliseconds"]] for end in ("min", "max")),
                          color="#228833", alpha=0.2)  # fmt: skip
        if result["slope"] is not None:
            axes.set_title(f"slope of the last half: {result['slope']:.2f}", fontsize=10)
        axes.set(xlabel=name, ylabel="ms per step")
        axes.set_xticks(sizes, map(str, sizes))
        axes.minorticks_off()
        plain_log(axes.yaxis)
        axes.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="interleaved runs of each point (default: 5)")
    args = parser.parse_args()
    info, images = machine(), grey_images(5000)
    print_machine(info)
    results = {}
    for name, (sizes, make) in AXES.items():
        sizes = sizes or list(range(1, cores_available() + 1))
        runs, workers = zip(*(contender(images, *make(size)) for size in sizes))
        seconds = interleaved(dict(zip(sizes, runs)), args.repeats)
        points = [spread([1e3 * s for s in values]) for values in seconds.values()]
        medians = [point["median"] for point in points]
        results[name] = {"sizes": sizes, "workers": workers, "milliseconds": points,
                         "slope": slope(sizes, medians) if len(sizes) > 3 else None}  # fmt: skip
        print(name)
        for size, n_workers, point in zip(sizes, workers, points):
            print(f"{size:8}{point['median']:10.3f} ms   {point['min']:.3f} … {point['max']:.3f}   {n_workers} workers")
        if results[name]["slope"] is not None:
            print(f"   slope of the last half {results[name]['slope']:.2f}")
        print(flush=True)
    save("scaling", {"machine": info, "axes": results}, draw(results))


if __name__ == "__main__":
    main()
