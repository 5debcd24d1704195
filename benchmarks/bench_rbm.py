"""How fast a Boltzmann machine is sampled and trained, beside scikit-learn's BernoulliRBM and PyTorch.

    python benchmarks/bench_rbm.py --data-dir DIR [--repeats N] [--enumerate N] [--markdown]

784-500 units, 100 chains, binarised MNIST in batches of 100. A Gibbs step renews all units of all chains once; an update is
a Gibbs step of persistent chains, both phases of the gradient, and the step of the optimiser (PCD-1; with momentum, in
scikit-learn without). All contenders start at the same machine, which npvae trains for some epochs before: how many units are
on decides what npvae's sums over rows cost.

Then, once, log Z of the machine that has the first 25 of these hidden units: exactly, a sum over 2^25 states with all cores,
beside the estimate by annealing.

First verifies that all have the same free energies, and PyTorch the same gradient. Both peers take part where they can be
imported, with one thread and with one per core; scikit-learn computes in float64, as it always does.
"""

import argparse
import json
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from common import RESULTS, interleaved, machine, print_machine, save, settled, spread
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

import npvae
from npvae.core.cores import cores_available
from npvae.core.workers import Workers
from npvae.data import mnist
from npvae.data.rows import Rows
from npvae.models import BoltzmannMachine
from npvae.ops.uniforms import generators
from npvae.training.step import Step

N_HIDDEN, N_ROWS, N_CHAINS = 500, 100, 100
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
EPOCHS = 5  # of the machine that all start at
SECONDS = 0.5  # of one run
N_ENUMERATED = 25  # hidden units, of whose machine log Z is exact
WHAT = ("gibbs", "update")


class Npvae:
    """npvae as `npvae.fit` and `BoltzmannMachine.move` run it."""

    def __init__(self, model, x, n_threads):
        self.model, self.x, self.n_threads = model.copy(), x, n_threads
        self.states = generators(np.random.default_rng(0), N_CHAINS)

    def free_energy(self, x):
        return self.model.free_energy(x)

    def gibbs(self, n):
        machine, chains, states = self.model.machine, self.model.chains, self.states
        with Workers(self.n_threads) as workers:
            started = time.perf_counter()
            workers.map(lambda part: self.model.ops.gibbs(chains[part], states[part], n, *machine), workers.parts(N_CHAINS))
            return time.perf_counter() - started

    def update(self, n):
        rows, optimizer = Rows.of(self.model, self.x, "x"), npvae.Momentum(LEARNING_RATE, MOMENTUM)
        with Workers(self.n_threads) as workers:
            step = Step(self.model, rows, N_ROWS, optimizer, workers)
            step(np.arange(N_ROWS), 0)
            started = time.perf_counter()
            for number, index in enumerate(batches(len(self.x), n), 1):
                step(index, number)
            return time.perf_counter() - started


class Torch:
    """PyTorch, operation by operation."""

    def __init__(self, model, x, n_threads):
        import torch

        self.torch, self.n_threads, self.x = torch, n_threads, torch.from_numpy(x)
        self.a, self.b, self.W = (torch.from_numpy(np.array(value)) for value in model.machine)
        self.velocity = [torch.zeros_like(value) for value in (self.a, self.b, self.W)]
        self.chains = torch.from_numpy(model.chains.copy())

    def hidden(self, x):
        return self.torch.addmm(self.b, x, self.W)

    def free_energy(self, x):
        x = self.torch.from_numpy(x)
        return (-(x @ self.a) - self.torch.nn.functional.softplus(self.hidden(x)).sum(dim=1)).numpy()

    def moved(self, x):
        h = self.torch.bernoulli(self.torch.sigmoid(self.hidden(x)))
        return self.torch.bernoulli(self.torch.sigmoid(self.torch.addmm(self.a, h, self.W.t())))

    def gradient(self, x, chains):
        """Of mean F(x) − mean F(chains): of a, b and W."""
        at_data, at_chains = (self.torch.sigmoid(self.hidden(rows)) for rows in (x, chains))
        dW = chains.t() @ at_chains / len(chains) - x.t() @ at_data / len(x)
        return chains.mean(dim=0) - x.mean(dim=0), at_chains.mean(dim=0) - at_data.mean(dim=0), dW

    def gibbs(self, n):
        with self.torch.inference_mode():
            self.torch.set_num_threads(self.n_threads)
            started = time.perf_counter()
            for _ in range(n):
                self.chains = self.moved(self.chains)
            return time.perf_counter() - started

    def update(self, n):
        with self.torch.inference_mode():
            self.torch.set_num_threads(self.n_threads)
            started = time.perf_counter()
            for index in batches(len(self.x), n):
                self.chains = self.moved(self.chains)
                gradient = self.gradient(self.x[index], self.chains)
                self.torch._foreach_mul_(self.velocity, MOMENTUM)
                self.torch._foreach_add_(self.velocity, gradient, alpha=-LEARNING_RATE)
                self.torch._foreach_add_([self.a, self.b, self.W], self.velocity)
            return time.perf_counter() - started


class Sklearn:
    """scikit-learn's BernoulliRBM."""

    def __init__(self, model, x, n_threads):
        from sklearn.neural_network import BernoulliRBM

        visible_bias, hidden_bias, W = (np.asarray(value, np.float64) for value in model.machine)
        self.x, self.n_threads = x.astype(np.float64), n_threads
        self.model = BernoulliRBM(N_HIDDEN, learning_rate=LEARNING_RATE, batch_size=N_ROWS, random_state=0)
        self.model.partial_fit(self.x[:N_CHAINS])  # which makes its arrays
        self.model.components_ = np.asarray(W.T, order="F")
        self.model.intercept_visible_, self.model.intercept_hidden_ = visible_bias.copy(), hidden_bias.copy()
        self.model.h_samples_ = (np.random.default_rng(0).random((N_CHAINS, N_HIDDEN)) < model.encode(x[:N_CHAINS])) * 1.0
        self.chains = self.x[:N_CHAINS]

    def free_energy(self, x):
        return self.model._free_energy(x.astype(np.float64))

    def gibbs(self, n):
        with threadpool_limits(self.n_threads, user_api="blas"):
            started = time.perf_counter()
            for _ in range(n):
                self.chains = self.model.gibbs(self.chains)
            return time.perf_counter() - started

    def update(self, n):
        with threadpool_limits(self.n_threads, user_api="blas"):
            started = time.perf_counter()
            for index in batches(len(self.x), n):
                self.model.partial_fit(self.x[index])
            return time.perf_counter() - started


PEERS = {"npvae": Npvae, "PyTorch": Torch, "scikit-learn": Sklearn}


def batches(n_rows, n):
    """Indices (N_ROWS,) of n minibatches."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, n_rows, N_ROWS) for _ in range(n)]


def start(data_dir, seed=0):
    """The machine that all start at, and the binarised images it was trained on."""
    dataset = mnist.load(data_dir)
    model = BoltzmannMachine(784, N_HIDDEN, n_chains=N_CHAINS, seed=seed)
    model.centre(dataset.x_train)
    model.parameters["hidden_bias"] = -2.0
    npvae.fit(model, dataset.x_train, epochs=EPOCHS, batch_size=N_ROWS, progress=False, seed=seed)
    plain = BoltzmannMachine(784, N_HIDDEN, n_chains=N_CHAINS, seed=seed)
    plain.parameters.update(zip(plain.parameters, model.machine))
    plain.buffers["chains"][:] = model.chains
    return plain, npvae.model_input(plain, dataset.x_train, seed)


def contenders(model, x):
    """name -> contender, of those that can be imported, with one thread and with one per core."""
    found = {}
    for name, kind in PEERS.items():
        for n_threads in sorted({1, cores_available()}):
            try:
                found[f"{name}, {n_threads} thread{'s' if n_threads > 1 else ''}"] = kind(model, x, n_threads)
            except ImportError:
                print(f"{name}: not installed")
                break
    return found


def verify(found, model, x):
    """SystemExit if a contender's free energies are not npvae's, or PyTorch's gradient is not."""
    expected = model.free_energy(x[:200]).astype(np.float64)
    for name, contender in found.items():
        if not np.allclose(contender.free_energy(x[:200]), expected, rtol=0, atol=1e-5 * np.abs(expected).max()):
            raise SystemExit(f"no times: the free energies of {name} are not those of npvae")
        if isinstance(contender, Torch):
            theirs = [value.numpy() for value in contender.gradient(contender.x[:100], contender.chains)]
            _, cache = model.forward(x[:100], model.chains)
            for ours, value in zip(model.backward(cache).values(), theirs, strict=True):
                if not np.allclose(ours, value, rtol=0, atol=1e-5):
                    raise SystemExit(f"no times: the gradient of {name} is not that of npvae")


def timed(run):
    """A function that runs it for about SECONDS and returns the seconds of one step."""
    run(3)
    n = max(5, int(SECONDS / run(5) * 5))
    return lambda: settled(run, n) / n


def compared(found, repeats):
    """name -> steps per second of Gibbs sampling and updates per second."""
    runs = {(name, what): timed(getattr(contender, what)) for name, contender in found.items() for what in WHAT}
    seconds = interleaved(runs, repeats)
    return {name: {what: spread([1 / value for value in seconds[name, what]]) for what in WHAT} for name in found}


def enumeration(model, x, n_hidden):
    """log Z of the machine with the first n_hidden units, exact and by annealing from the mean of rows x; seconds of each."""
    small, found = BoltzmannMachine(784, n_hidden), {"n_hidden": n_hidden}
    visible_bias, hidden_bias, W = model.machine
    small.parameters.update(visible_bias=visible_bias, hidden_bias=hidden_bias[:n_hidden], W=W[:, :n_hidden])
    BoltzmannMachine(784, 2).log_partition()  # compiled before
    for method in ("exact", "annealing"):
        started = time.perf_counter()
        log_z, error, *_ = small.log_partition(x, method, rng=0)
        found[method] = {"log_z": log_z, "error": error, "seconds": time.perf_counter() - started}
    return found


def sentence(found):
    """What `enumeration` has found, in words."""
    n, exact, annealing = found["n_hidden"], found["exact"], found["annealing"]
    return (f"log Z of the first {n} hidden units, a sum over 2^{n} states: {exact['log_z']:.3f}, exact, in "
            f"{exact['seconds']:.3g} s; by annealing {annealing['log_z']:.3f} ± {annealing['error']:.3f}.")  # fmt: skip


def markdown(result):
    """The README's table, and below it the enumeration."""
    lines = ["| 784-500, 100 chains | Gibbs steps/s | lowest … highest | updates/s (PCD-1) | lowest … highest |",
             "|---|---:|---|---:|---|"]  # fmt: skip
    for name, row in result["contenders"].items():
        cells = [f"{row[what]['median']:,.0f} | {row[what]['min']:,.0f} … {row[what]['max']:,.0f}" for what in WHAT]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines + (["", sentence(result["enumeration"])] if "enumeration" in result else []))


def draw(results):
    figure = Figure(figsize=(9, 0.9 + 0.35 * len(results)), layout="constrained")
    for axes, what, label in zip(figure.subplots(1, 2, sharey=True), WHAT, ("Gibbs steps", "updates")):
        names, values = list(results)[::-1], [row[what]["median"] for row in results.values()][::-1]
        bars = axes.barh(names, values, color=["#228833" if name.startswith("npvae") else "#999999" for name in names])
        axes.bar_label(bars, [f" {value:,.0f}" for value in values])
        axes.set(xlim=(0, 1.2 * max(values)), xlabel=f"{label} per second")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files (default: the cache, else a download)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="interleaved runs of each contender (default: 5)")
    parser.add_argument("--enumerate", type=int, default=N_ENUMERATED, metavar="N",
                        help="hidden units whose states are summed over, 0: none (default: %(default)s)")  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print the saved result as a table")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads((RESULTS / "rbm.json").read_text())))
        return
    info = machine()
    try:
        info["versions"]["scikit-learn"] = version("scikit-learn")
    except PackageNotFoundError:
        info["versions"]["scikit-learn"] = None
    print_machine(info)
    model, x = start(args.data_dir)
    on = {"visible": float(x.mean()), "hidden": float(model.encode(x[:1000]).mean())}
    print(f"of the visible units {on['visible']:.1%} are on, of the hidden ones {on['hidden']:.1%}\n")
    found = contenders(model, x)
    verify(found, model, x)
    result = {"machine": info, "on": on, "contenders": compared(found, args.repeats)}
    if args.enumerate:
        result["enumeration"] = enumeration(model, x, args.enumerate)
    print(markdown(result))
    save("rbm", result, draw(result["contenders"]))


if __name__ == "__main__":
    main()
