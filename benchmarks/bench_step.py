"""One full training step (draw the batch, forward, backward, Adam) on real images: npvae against PyTorch, JAX and the floor.

    python benchmarks/bench_step.py [--data-dir DIR] [--repeats N] [--only I ...] [--markdown]

The models are the Bernoulli VAE in several sizes and, in two of them, a VAE with a Gaussian likelihood of learned variances,
one with a beta-binomial likelihood, and a Bernoulli VAE that is given the label of each image; a chain of two VAEs; and
diffusion, of points in the plane and of grey images. `tasks.py` has them all. With --only, the rows that were saved before on
the same processor stay as they were.

First verifies, then times. All contenders start from the same weights and take 100 steps on the same batches with the same
noise; unless their losses agree to 1e-3 no time is printed. Then they run by turns, each drawing its own noise, and the median
of the repeats is printed. The floor is the step's matrix products alone, in NumPy's BLAS on all cores, in the same run. The
necessary arithmetic is their multiplications but those by zeros of the data, at the rate of a large product.
A library that is not installed is a row that says so (pip install '.[bench]'). Compilation is timed apart.
"""

import argparse
import json
import time
from functools import partial

import numpy as np
from common import RESULTS, interleaved, machine, plain_log, print_machine, save, settled, spread
from matplotlib.figure import Figure
from peers import PEERS
from tasks import MODELS, ROWS, task_of, widths_of

from npvae.core.workers import Workers, workers_for
from npvae.data import mnist
from npvae.data.rows import Rows
from npvae.training.optim import Adam
from npvae.training.step import Step
from npvae.training.together import is_together

VERIFY_STEPS = 100
SECONDS = 0.5  # of one run
COLOURS = ("#228833", "#bbcc88", "#ee6677", "#cc3311", "#4477aa")


class Npvae:
    """npvae's own step, as `npvae.fit` takes it."""

    def __init__(self, task, theta, backend, batch_size, workers=None):
        self.model = task.model(backend)
        for name, value in theta.items():
            self.model.parameters[name] = value
        self.rows = Rows.of(self.model, task.data, "data")
        self.workers = Workers(workers or workers_for(self.model.theta.size * batch_size, is_together(self.model)))
        self.training_step = Step(self.model, self.rows, batch_size, Adam(task.learning_rate), self.workers)
        self.count = 0

    def run(self, batches):
        """Steps on these batches, timed inside of the workers' block, as within an epoch."""
        with self.workers:
            started = time.perf_counter()
            for rows in batches:
                self.training_step(rows, self.count)
                self.count += 1
            return time.perf_counter() - started

    def step_with(self, x, noise, *condition):
        grad = np.empty_like(self.model.theta)
        terms, _ = self.model.gradient(x, *condition, noise, out=grad)
        self.training_step.optimizer.step(self.model.theta, grad, self.training_step.state)
        return terms.loss


def timed(function, *arguments):
    """The seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def floor(theta, batch_size, n):
    """Seconds of n times the step's products alone: x W, xᵀ dpre, and dpre Wᵀ except for the first layer."""
    widths = [value.shape for name, value in theta.items() if name.endswith(".W")]  # (n_in, n_out) of each layer
    rng = np.random.default_rng(0)
    normal = [[rng.standard_normal(shape, np.float32) for shape in ((batch_size, a), (a, b), (batch_size, b))]
              for a, b in widths]  # fmt: skip
    started = time.perf_counter()
    for _ in range(n):
        for i, (x, W, dpre) in enumerate(normal):
            np.matmul(x, W)
            np.matmul(x.T, dpre)
            if i:
                np.matmul(dpre, W.T)
    return time.perf_counter() - started


def necessary(theta, batch_size, density):
    """The multiplications of a step that are not by a zero of the data: three products in each layer, but for the first, which
    has two, and whose input has this share of non-zeros."""
    sizes = [value.size for name, value in theta.items() if name.endswith(".W")]
    return batch_size * (2 * density * sizes[0] + 3 * sum(sizes[1:]))


def multiplications_per_second():
    """Of a large product of matrices on all cores, the most of a few."""
    a, b, out = (np.ones((1024, 1024), np.float32) for _ in range(3))
    return 1024**3 / min(timed(np.matmul, a, b, out) for _ in range(20))


def contenders(task, theta, batch_size):
    """name -> (object, run(batches) -> seconds), and name -> why a peer is missing."""
    found, missing = {}, {}
    for backend in ("numba", "numpy"):
        ours = Npvae(task, theta, backend, batch_size)
        found[f"npvae {backend}"] = (ours, ours.run)
    for kind in PEERS:
        try:
            peer = kind(task, theta)
        except ImportError as error:
            missing[kind.name] = f"not installed ({error.name})"
            continue
        found[kind.name] = (peer, partial(timed, peer.run))
    return found, missing


def verify(found, n_rows, batch_size):
    """The losses after 100 common steps on the n rows of the data, and the seconds of the first, compilation included;
    SystemExit if losses disagree."""
    rng, ours = np.random.default_rng(1), found["npvae numpy"][0]
    losses, first = {}, {}
    for _ in range(VERIFY_STEPS):
        x, *condition = ours.rows.batch(rng.integers(0, n_rows, batch_size), rng)
        noise = ours.model.draw(rng, x, *condition)
        for name, (contender, _) in found.items():
            started = time.perf_counter()
            losses[name] = float(contender.step_with(x, noise, *condition))
            first.setdefault(name, time.perf_counter() - started)
    reference = losses["npvae numpy"]
    wrong = {name: loss for name, loss in losses.items() if not abs(loss - reference) <= 1e-3 * abs(reference)}
    if wrong:
        raise SystemExit(f"no times: after {VERIFY_STEPS} steps the loss is {reference}, but {wrong}")
    return losses, first


def bench(model, size, images, labels, repeats):
    """One row of the table as a dict; images (n, D) and labels (n,) are the digits."""
    task, batch_size = task_of(model, size, images, labels), size[-1]
    theta, n_rows = task.model("numpy").parameters, len(task.data[0])
    found, missing = contenders(task, theta, batch_size)
    losses, first = verify(found, n_rows, batch_size)
    rng = np.random.default_rng(2)

    def batches(count):
        return [rng.integers(0, n_rows, batch_size) for _ in range(count)]

    n = max(20, int(SECONDS / floor(theta, batch_size, 20) * 10))  # some SECONDS per run of a step of two floors
    for name, (_, run) in found.items():  # drawing the batch is compiled here, and JAX's scan for each number of steps
        first[name] += run(batches(10))
        run(batches(n))
    density = (task.data[0][:1000].mean() / 255).item() if task.config["likelihood"] == "bernoulli" else 1.0
    at_peak = 1e3 * necessary(theta, batch_size, density) / multiplications_per_second()
    runs = {name: lambda run=run: settled(lambda n: run(batches(n)), n) for name, (_, run) in found.items()}
    runs["floor"] = lambda: settled(lambda n: floor(theta, batch_size, n), n)
    seconds = interleaved(runs, repeats)
    return {
        "model": model,
        "size": widths_of(model, size),
        "batch": batch_size,
        "steps": n,
        "workers": found["npvae numba"][0].workers.n,
        "milliseconds": {name: spread([1e3 * s / n for s in values]) for name, values in seconds.items()},
        "milliseconds_at_peak": at_peak,
        "compile_seconds": first,
        "losses_after_100_steps": losses,
        "missing": missing,
    }


def title(row):
    """Size, batch and model of a row; a row that names no model is of the Bernoulli VAE."""
    in_words, *_ = MODELS[row.get("model", "bernoulli")]
    return f"{row['size']} @ {row['batch']}{in_words}"


def print_row(row):
    workers = f"npvae: {row['workers']} worker" + ("s" if row["workers"] > 1 else "")
    print(f"{title(row)}  ({row['steps']} steps, median and range of the repeats; {workers})")
    ours = row["milliseconds"]["npvae numba"]["median"]
    for name, ms in row["milliseconds"].items():
        print(f"    {name:18}{ms['median']:9.3f} ms   {ms['min']:.3f} … {ms['max']:.3f}   {ms['median'] / ours:6.2f} ×")
    for name, why in row["missing"].items():
        print(f"    {name:18} {why}")
    at_peak = row["milliseconds_at_peak"]
    print(f"    necessary arithmetic at the machine's peak: {at_peak:.3f} ms, {at_peak / ours:.2f} of npvae's time")
    first = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in row["compile_seconds"].items())
    print(f"    first steps, with compilation or loading of what is compiled: {first}\n", flush=True)


COLUMNS = {  # of the table and the picture -> the contenders of which the fastest is shown
    "npvae numba": ("npvae numba",),
    "npvae numpy": ("npvae numpy",),
    "PyTorch": ("PyTorch eager", "PyTorch eager, 1 thread", "PyTorch compiled"),
    "JAX jit": ("JAX jit",),
    "JAX scan": ("JAX scan", "JAX scan, rbg"),
    "products alone": ("floor",),
}


def fastest(row):
    """Column -> the least of the medians of its contenders, in milliseconds; a column without any is left out."""
    ms = {name: values["median"] for name, values in row["milliseconds"].items()}
    found = {column: [ms[name] for name in names if name in ms] for column, names in COLUMNS.items()}
    return {column: min(values) for column, values in found.items() if values}


def markdown(result):
    """The README's table of a result: milliseconds per step, how much faster npvae is than the fastest peer, and which share of
    its time the necessary arithmetic would take at the machine's peak."""
    lines = ["| D-H-L @ batch | " + " | ".join([*COLUMNS, "fastest peer / npvae", "share of the machine"]) + " |"]
    lines.append("|---|" + "---|" * (len(COLUMNS) + 2))
    for row in result["rows"]:
        ms = fastest(row)
        cells = [f"{ms[column]:.3g}" if column in ms else "–" for column in COLUMNS]
        peers, ours = [ms[column] for column in ("PyTorch", "JAX jit", "JAX scan") if column in ms], ms["npvae numba"]
        ratio = f"{min(peers) / ours:.2f}" if peers else "–"
        lines.append(f"| {title(row)} | " + " | ".join([*cells, ratio, f"{row['milliseconds_at_peak'] / ours:.2f}"]) + " |")
    return "\n".join(lines)


def draw(result):
    """The rows as bars, in units of the products alone."""
    rows = [(title(row), fastest(row)) for row in result["rows"]]
    figure = Figure(figsize=(9, 1.1 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    names = [name for name in COLUMNS if name in rows[0][1] and name != "products alone"]
    longest = 1
    for i, name in enumerate(names):
        heights = [ms[name] / ms["products alone"] for _, ms in rows]
        places = np.arange(len(rows)) + 0.16 * (i - (len(names) - 1) / 2)
        bars = axes.barh(places, heights, 0.15, label=name, color=COLOURS[i])
        longest = max(longest, *heights)
        axes.bar_label(bars, [f"{h:.2f}" for h in heights], fontsize=7, padding=4)
    axes.axvline(1, color="black", lw=1, ls="--")
    axes.set_yticks(range(len(rows)), [name.replace(" @ ", "\nbatch ").replace(", ", "\n", 1) for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5, 1.5 * longest)  # room for its label
    plain_log(axes.xaxis)
    axes.set_xlabel("time of a training step / time of its dense matrix products alone (dashed), smaller is better")
    axes.set_title(result["machine"]["cpu"] + f", {result['machine']['cores']} cores", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def saved_rows(info):
    """The rows of the saved result; SystemExit where they are of another machine, whose times stand in no table with these."""
    path = RESULTS / "step.json"
    if not path.exists():
        return []
    saved = json.loads(path.read_text())
    theirs, ours = ([of["cpu"], of["cores"]] for of in (saved["machine"], info))
    if theirs != ours:
        raise SystemExit(f"{path.name} is of {theirs[0]}, {theirs[1]} cores, and this is {ours[0]}, {ours[1]} cores: measure "
                         "all rows, without --only")  # fmt: skip
    return saved["rows"]


def merged(kept, rows):
    """Rows that were kept, and new ones in their places, in the order of the table."""
    found = {title(row): row for row in [*kept, *rows]}
    places = {f"{widths_of(model, size)} @ {size[-1]}{MODELS[model][0]}": i for i, (model, size) in enumerate(ROWS)}
    return sorted(found.values(), key=lambda row: places.get(title(row), len(places)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--only", type=int, nargs="+", metavar="I", help="rows of the table, from 0, to be measured again")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="interleaved runs of each contender (default: 9)")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print the saved result as the README's table")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads((RESULTS / "step.json").read_text())))
        return
    info = machine()
    kept = [] if args.only is None else saved_rows(info)
    data = mnist.load(args.data_dir)
    images, labels = data.x_train[:20000], data.y_train[:20000]
    print_machine(info)
    rows = []
    for i in range(len(ROWS)) if args.only is None else args.only:
        rows.append(bench(*ROWS[i], images, labels, args.repeats))
        print_row(rows[-1])
    result = {"machine": info, "rows": merged(kept, rows)}
    save("step", result, draw(result))


if __name__ == "__main__":
    main()
