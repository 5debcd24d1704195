"""One full training step (draw the batch, forward, backward, Adam) on real images: npvae against PyTorch, JAX and the floor.

    python benchmarks/bench_step.py [--data-dir DIR] [--repeats N] [--only I ...] [--markdown]

The models are the Bernoulli VAE in several sizes and, in two of them, a VAE with a Gaussian likelihood of learned variances,
one with a beta-binomial likelihood, and a Bernoulli VAE that is given the label of each image.

First verifies, then times. All contenders start from the same weights and take 100 steps on the same batches with the same
noise; unless their losses agree to 1e-3 no time is printed. Then they run by turns, each drawing its own noise, and the median
of the repeats is printed. The floor is the step's matrix products alone, in NumPy's BLAS on all cores, in the same run.
A library that is not installed is a row that says so (pip install '.[bench]'). Compilation is timed apart.
"""

import argparse
import json
import time
from typing import NamedTuple

import numpy as np
from common import RESULTS, interleaved, machine, plain_log, print_machine, save, settled, spread
from matplotlib.figure import Figure
from peers import PEERS

import npvae
from npvae.core.workers import Workers, workers_for
from npvae.data import mnist
from npvae.data.rows import Rows
from npvae.training.optim import Adam
from npvae.training.step import Step

SIZES = [  # D, hidden, L, batch
    (64, (64,), 2, 32),
    (784, (200,), 50, 100),
    (784, (400,), 20, 128),
    (784, (500,), 20, 100),
    (784, (512,), 32, 512),
    (784, (200, 200), 50, 20),
]
MODELS = {  # likelihood of a VAE, or "conditional" -> what the tables call it, and the learning rate
    "bernoulli": ("", 1e-3),
    "gaussian_learned": (", learned variances", 1e-4),  # at 1e-3 a rounding becomes percents of the loss in 100 steps
    "beta_binomial": (", beta-binomial", 1e-3),
    "conditional": (", given the label", 1e-3),
}
ROWS = [("bernoulli", size) for size in SIZES] + [(model, size) for model in list(MODELS)[1:] for size in SIZES[1:3]]
VERIFY_STEPS = 100
SECONDS = 0.5  # of one run
COLOURS = ("#228833", "#bbcc88", "#ee6677", "#cc3311", "#4477aa")


class Task(NamedTuple):
    """What is trained, in the order in which the peers take it."""

    likelihood: str = "bernoulli"
    condition: np.ndarray | None = None  # (n, C) of the images, which makes the VAE a conditional one
    learning_rate: float = 1e-3


BERNOULLI = Task()


class Npvae:
    """npvae's own step, as `npvae.fit` takes it."""

    def __init__(self, widths, theta, images, backend, batch_size, workers=None, task=BERNOULLI):
        self.model = model_of(widths, task, backend)
        for name, value in theta.items():
            self.model.parameters[name] = value
        self.rows = Rows.of(self.model, images if task.condition is None else (images, task.condition), "images")
        self.workers = Workers(workers or workers_for(self.model.theta.size * batch_size))
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

    def step_with(self, x, eps, *condition):
        grad = np.empty_like(self.model.theta)
        terms, _ = self.model.gradient(x, *condition, eps, out=grad)
        self.training_step.optimizer.step(self.model.theta, grad, self.training_step.state)
        return terms.loss


def model_of(widths, task, backend):
    """npvae's model of these widths with its initial weights."""
    settings = {"n_latent": widths[-1], "hidden": widths[1:-1], "likelihood": task.likelihood, "backend": backend}
    if task.condition is None:
        return npvae.VAE(widths[0], **settings)
    return npvae.models.ConditionalVAE(widths[0], task.condition.shape[1], **settings)


def run_peer(peer, batches):
    started = time.perf_counter()
    for rows in batches:
        peer.step(rows)
    peer.finish()
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


def contenders(widths, theta, images, batch_size, task):
    """name -> (object, run(batches) -> seconds), and name -> why a peer is missing."""
    found, missing = {}, {}
    for backend in ("numba", "numpy"):
        ours = Npvae(widths, theta, images, backend, batch_size, task=task)
        found[f"npvae {backend}"] = (ours, ours.run)
    for kind in PEERS:
        try:
            peer = kind(widths, theta, images, *task)
        except ImportError as error:
            missing[kind.name] = f"not installed ({error.name})"
            continue
        found[kind.name] = (peer, lambda batches, peer=peer: run_peer(peer, batches))
    return found, missing


def verify(found, images, batch_size, n_latent, task):
    """The losses after 100 common steps, and the seconds of the first, compilation included; SystemExit if losses disagree."""
    rng = np.random.default_rng(1)
    losses, first = {}, {}
    for _ in range(VERIFY_STEPS):
        rows = rng.integers(0, len(images), batch_size)
        grey = images[rows] / 255
        x = (rng.random(grey.shape) < grey if task.likelihood == "bernoulli" else grey).astype(np.float32)
        eps = rng.standard_normal((batch_size, n_latent), np.float32)
        given = () if task.condition is None else (task.condition[rows],)
        for name, (contender, _) in found.items():
            started = time.perf_counter()
            losses[name] = float(contender.step_with(x, eps, *given))
            first.setdefault(name, time.perf_counter() - started)
    reference = losses["npvae numpy"]
    wrong = {name: loss for name, loss in losses.items() if not abs(loss - reference) <= 1e-3 * abs(reference)}
    if wrong:
        raise SystemExit(f"no times: after {VERIFY_STEPS} steps the loss is {reference}, but {wrong}")
    return losses, first


def bench(model, size, images, labels, repeats):
    """One row of the table as a dict; labels (n,) are the digits, which the conditional model is given."""
    _, learning_rate = MODELS[model]
    task = Task(model, learning_rate=learning_rate)
    if model == "conditional":
        task = Task("bernoulli", np.eye(10, dtype=np.float32)[labels], learning_rate)  # (n,) -> (n, 10)
    D, hidden, n_latent, batch_size = size
    widths = (D, *hidden, n_latent)
    start = 0 if images.shape[1] == D else (images.shape[1] - D) // 2
    images = np.ascontiguousarray(images[:, start : start + D])
    theta = model_of(widths, task, "numpy").parameters
    found, missing = contenders(widths, theta, images, batch_size, task)
    losses, first = verify(found, images, batch_size, n_latent, task)
    rng = np.random.default_rng(2)

    def batches(count):
        return [rng.integers(0, len(images), batch_size) for _ in range(count)]

    for name, (_, run) in found.items():  # drawing the batch is compiled here
        first[name] += run(batches(3))
    n = max(20, int(SECONDS / floor(theta, batch_size, 20) * 10))  # some SECONDS per run of a step of two floors
    runs = {name: lambda run=run: settled(lambda n: run(batches(n)), n) for name, (_, run) in found.items()}
    runs["floor"] = lambda: settled(lambda n: floor(theta, batch_size, n), n)
    seconds = interleaved(runs, repeats)
    return {
        "model": model,
        "size": "-".join(map(str, widths)),
        "batch": batch_size,
        "steps": n,
        "workers": found["npvae numba"][0].workers.n,
        "milliseconds": {name: spread([1e3 * s / n for s in values]) for name, values in seconds.items()},
        "compile_seconds": first,
        "losses_after_100_steps": losses,
        "missing": missing,
    }


def title(row):
    """Size, batch and model of a row; a row that names no model is of the Bernoulli VAE."""
    in_words, _ = MODELS[row.get("model", "bernoulli")]
    return f"{row['size']} @ {row['batch']}{in_words}"


def print_row(row):
    workers = f"npvae: {row['workers']} worker" + ("s" if row["workers"] > 1 else "")
    print(f"{title(row)}  ({row['steps']} steps, median and range of the repeats; {workers})")
    ours = row["milliseconds"]["npvae numba"]["median"]
    for name, ms in row["milliseconds"].items():
        print(f"    {name:18}{ms['median']:9.3f} ms   {ms['min']:.3f} … {ms['max']:.3f}   {ms['median'] / ours:6.2f} ×")
    for name, why in row["missing"].items():
        print(f"    {name:18} {why}")
    first = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in row["compile_seconds"].items())
    print(f"    first steps, with compilation or loading of what is compiled: {first}\n", flush=True)


def markdown(result):
    """The README's table of a result: milliseconds per step, and how much faster npvae is than the fastest peer."""
    ours, theirs = ["npvae numba", "npvae numpy"], [kind.name for kind in PEERS]
    lines = ["| D-H-L @ batch | " + " | ".join([*ours, *theirs, "products alone", "fastest peer / npvae"]) + " |"]
    lines.append("|---|" + "---|" * (len(ours + theirs) + 2))
    for row in result["rows"]:
        ms = {name: values["median"] for name, values in row["milliseconds"].items()}
        cells = [f"{ms[name]:.3g}" if name in ms else "–" for name in [*ours, *theirs, "floor"]]
        peers = [ms[name] for name in theirs if name in ms]
        ratio = f"{min(peers) / ms['npvae numba']:.2f}" if peers else "–"
        lines.append(f"| {title(row)} | " + " | ".join([*cells, ratio]) + " |")
    return "\n".join(lines)


def draw(result):
    """The rows as bars, in units of the floor."""
    rows = result["rows"]
    figure = Figure(figsize=(9, 1.1 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    names = [name for name in rows[0]["milliseconds"] if name != "floor"]
    longest = 1
    for i, name in enumerate(names):
        heights = [row["milliseconds"][name]["median"] / row["milliseconds"]["floor"]["median"] for row in rows]
        places = np.arange(len(rows)) + 0.16 * (i - (len(names) - 1) / 2)
        bars = axes.barh(places, heights, 0.15, label=name, color=COLOURS[i])
        longest = max(longest, *heights)
        axes.bar_label(bars, [f"{h:.2f}" for h in heights], fontsize=7, padding=4)
    axes.axvline(1, color="black", lw=1, ls="--")
    axes.set_yticks(range(len(rows)), [title(row).replace(" @ ", "\nbatch ").replace(", ", "\n", 1) for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5, 1.5 * longest)  # room for its label
    plain_log(axes.xaxis)
    axes.set_xlabel("time of a training step / time of its dense matrix products alone (dashed), smaller is better")
    axes.set_title(result["machine"]["cpu"] + f", {result['machine']['cores']} cores", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--only", type=int, nargs="+", metavar="I", help="rows of the table, from 0; saves nothing")
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="interleaved runs of each contender (default: 9)")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print the saved result as the README's table")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads((RESULTS / "step.json").read_text())))
        return
    data = mnist.load(args.data_dir)
    images, labels = data.x_train[:20000], data.y_train[:20000]
    info = machine()
    print_machine(info)
    rows = []
    for model, size in ROWS if args.only is None else [ROWS[i] for i in args.only]:
        rows.append(bench(model, size, images, labels, args.repeats))
        print_row(rows[-1])
    if args.only is None:
        result = {"machine": info, "rows": rows}
        save("step", result, draw(result))


if __name__ == "__main__":
    main()
