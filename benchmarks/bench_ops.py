"""Each kernel against its NumPy twin and against the time that moving its arrays through memory takes, on one thread.

    python benchmarks/bench_ops.py [--repeats N]

Verifies, then times: a kernel whose result is not its twin's is an error, and no times are printed. The arrays are float32, of
the sizes of one worker's shard of 784-400-20 @ 128: 64 rows. The bound is the bytes that a kernel must read and write, over the
bytes per second of a copy of arrays as large. A second table shows at which share of non-zeros the products over non-zeros
begin to win against dense ones, a third holds the dense products against BLAS for several numbers of rows, a fourth says how
much longer a kernel takes for other arguments than usual ones: squares and exponentials may be subnormal, which many processors
handle ten times slower. Kernels that compute exponentials are far above the bound: arithmetic limits them. The backward passes
of sigmoid and silu compute again what NumPy's forward passes kept, and win only together with those.
"""

import argparse
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
from common import machine, plain_log, print_machine, save, seconds_per_call
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

import npvae
from npvae import kernels, ops
from npvae.kernels import dense, layers, sparse
from npvae.kernels.likelihood import bernoulli_rows
from npvae.ops.layers import ACTIVATIONS
from npvae.training import optim

B, D, H, L = 64, 784, 400, 20
DENSITY = 0.13  # of binarised MNIST


def cases():
    """(name, kernel, twin, bytes moved) of every kernel; both functions return what is to be equal."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    out = []
    for name in ACTIVATIONS:
        out += dense_cases(name, normal)
    posterior, eps, dz, dkl = normal(B, 2 * L), normal(B, L), normal(B, L), normal(B, L)
    forwards = [lambda table=table: table.latent_forward(posterior, eps)[0] for table in (kernels, ops)]
    caches = [table.latent_forward(posterior, eps)[1] for table in (kernels, ops)]
    pairs = zip((kernels, ops), caches)
    backwards = [lambda table=table, cache=cache: [table.latent_backward(dz, dkl, cache)] for table, cache in pairs]
    out += [("latent forward", *forwards, 7 * eps.nbytes), ("latent backward", *backwards, 9 * eps.nbytes)]
    output, x = 3 * normal(B, D), (rng.random((B, D)) < DENSITY).astype(np.float32)
    for name, args in [("bernoulli", (output, x)), ("gaussian", (output, x, 0.1))]:
        out.append((f"{name} nll, value and gradient", *(nll_of(table, name, args) for table in (kernels, ops)), 3 * x.nbytes))
    grey, noise = rng.integers(0, 256, (1000, D), np.uint8), rng.integers(0, 2**16, (B, D), np.uint16)
    index = rng.integers(0, 1000, B)
    drawn = [(table, np.empty((B, D), np.float32)) for table in (kernels, ops)]
    binarize = [lambda table=table, x=x: [table.binarize(grey, index, noise, 1 / 255, x)] for table, x in drawn]
    out.append(("binarize", *binarize, 7 * noise.size))
    return out + optimizer_cases(normal)


def dense_cases(name, normal):
    """Bias and activation of one layer, forward and backward, without the products."""
    pre, b, dh = normal(B, H), normal(H), normal(B, H)
    forward, backward = ACTIVATIONS[name]
    shifted, h, dpre, db = pre.copy(), np.empty_like(pre), np.empty_like(pre), np.empty_like(b)
    in_place = name == "identity"

    def kernel_forward():
        shifted[:] = pre  # the copy stands for the product that fills it
        layers.FORWARD[name](shifted, b, shifted if in_place else h)
        return [shifted if in_place else h]

    def kernel_backward():
        layers.BACKWARD[name](dh, shifted, h, dh if in_place else dpre, db)
        return [dh if in_place else dpre, db]

    def twin_forward():
        shifted_here = pre.copy()
        shifted_here += b
        return [forward(shifted_here)[0]]

    kernel_forward()
    cache = forward(pre + b)[1]

    def twin_backward():
        dpre_here = backward(dh, cache)
        return [dpre_here, dpre_here.sum(axis=0)]

    return [
        (f"bias and {name} forward", kernel_forward, twin_forward, (2 if in_place else 4) * pre.nbytes),
        (f"bias and {name} backward", kernel_backward, twin_backward, (1 if in_place else 3) * pre.nbytes),
    ]


def nll_of(table, name, args):
    forward, backward = getattr(table, f"{name}_nll_forward"), getattr(table, f"{name}_nll_backward")
    dnll = np.full(B, 1 / B)

    def value_and_gradient():
        nll, cache = forward(*args)
        return nll, backward(dnll, cache)

    return value_and_gradient


def optimizer_cases(normal):
    """A step on all parameters of 784-400-20 with the gradients of two shards."""
    start = npvae.VAE(D, L, (H,), backend="numpy").theta
    grad, cases = 1e-3 * normal(2, start.size), []
    for optimizer in (optim.SGD(), optim.Momentum(), optim.AdaGrad(), optim.RMSProp(), optim.Adam()):

        def steps(backend, optimizer=optimizer):
            optimizer, theta = replace(optimizer, backend=backend), start.copy()
            state = optim.initial_state(optimizer, theta)
            arrays = [theta, *(state[slot] for slot in optimizer.slots)]

            def step():
                optimizer.step(theta, grad, state)
                return arrays

            return step

        n_arrays = 2 + 2 * (1 + len(optimizer.slots))  # the shards are read, theta and the state read and written
        cases.append((f"{type(optimizer).__name__}, two shards", steps("numba"), steps("numpy"), n_arrays * start.nbytes))
    return cases


def bytes_per_second(n_bytes):
    """Of a copy that reads and writes n_bytes in all."""
    source = np.ones(max(n_bytes // 2, 64), np.uint8)
    target = np.empty_like(source)
    return 2 * source.size / seconds_per_call(lambda: np.copyto(target, source))


def verify(name, kernel, twin):
    """SystemExit if the kernel's results are not its twin's."""
    for ours, theirs in zip(kernel(), twin(), strict=True):
        if not np.allclose(ours, theirs, rtol=1e-5, atol=3e-6 * np.abs(theirs).max()):
            raise SystemExit(f"no times: {name} differs from its NumPy twin by {np.abs(ours - theirs).max()}")


def product_rows(repeats):
    """pre = x W and dW = xᵀ dpre over the non-zeros against the dense products; listing the non-zeros included."""
    rng = np.random.default_rng(1)
    W, dpre = rng.standard_normal((D, H), np.float32), rng.standard_normal((B, H), np.float32)
    results = [(np.empty((B, H), np.float32), np.empty((D, H), np.float32)) for _ in range(2)]
    rows = []
    for density in (0.05, DENSITY, 0.2, 0.3, 0.4, 0.5):
        x = (rng.random((B, D)) < density).astype(np.float32)
        n = np.count_nonzero(x)
        found = np.empty(B + 1, np.int32), np.empty(n + 1, np.int32), np.empty(n + 1, np.float32)

        def over_nonzeros(x=x, found=found):
            pre, dW = results[0]
            sparse.find(x, *found)
            sparse.combine_rows(*found, W, pre)
            sparse.combine_rows(*sparse.transposed(found, D), dpre, dW)
            return pre, dW

        def over_all(x=x):
            pre, dW = results[1]
            dense.times(x, W, pre)
            dense.transposed_times(x, dpre, dW)
            return pre, dW

        verify("the product over non-zeros", over_nonzeros, over_all)
        rows.append({"density": density, **alternate(over_nonzeros, over_all, repeats)})
    return rows


def dense_rows(repeats):
    """The three products of the decoder's output layer, h W, hᵀ dpre and dpre Wᵀ, against BLAS, for several numbers of rows."""
    rng = np.random.default_rng(2)
    W, dW, rows = rng.standard_normal((H, D), np.float32), np.empty((H, D), np.float32), []
    for n_rows in (8, 16, 32, 64, 128, 256):
        h, dpre = rng.standard_normal((n_rows, H), np.float32), rng.standard_normal((n_rows, D), np.float32)
        pre, dh = np.empty_like(dpre), np.empty_like(h)
        products = {
            "h W": (dense.times, (h, W, pre), (h, W)),
            "hᵀ dpre": (dense.transposed_times, (h, dpre, dW), (h.T, dpre)),
            "dpre Wᵀ": (dense.times_transposed, (dpre, W, dh), (dpre, W.T)),
        }
        for name, (kernel, arguments, factors) in products.items():

            def ours(kernel=kernel, arguments=arguments):
                kernel(*arguments)
                return [arguments[2]]

            def blas(factors=factors):
                return [np.matmul(*factors)]

            verify(f"the product {name}", ours, blas)
            rows.append({"rows": n_rows, "product": name, **alternate(ours, blas, repeats)})
    return rows


FAR = (0.0, 1e-30, 1e-15, 1.0, 10.0, 18.0, 30.0, 46.0, 60.0, 80.0, 84.0, 86.0, 88.0, 95.0, 103.0, 1e3, 1e15)


def range_rows(repeats):
    """Of kernels with exponentials: the time for normal arguments, the longest for arguments that are all the same number, of
    either sign, and that number."""
    rng = np.random.default_rng(4)
    x = (rng.random((B, D)) < DENSITY).astype(np.float32)
    usual, rows = 3 * rng.standard_normal((B, D)).astype(np.float32), []
    nll, out, zero, db = np.empty(B), np.empty((B, D), np.float32), np.zeros(D, np.float32), np.empty(D, np.float32)
    dh = np.ones_like(out)

    def activation(name, argument):
        pre, h = argument.copy(), np.empty_like(argument)
        layers.FORWARD[name](pre, zero, h)
        return lambda: (layers.FORWARD[name](pre, zero, h), layers.BACKWARD[name](dh, pre, h, out, db))

    kinds = {"bernoulli nll": lambda argument: lambda: bernoulli_rows(argument, x, nll, 1 / 128, out)}
    for name in ("tanh", "sigmoid", "softplus", "silu"):
        kinds[f"{name}, forward and backward"] = partial(activation, name)
    for name, of in kinds.items():
        times = {}
        for value in (None, *FAR, *(-value for value in FAR)):
            call = of(usual if value is None else np.full_like(usual, value))
            times[value] = 1e6 * median(seconds_per_call(call) for _ in range(repeats))
        slowest = max(times, key=times.get)
        rows.append({"name": name, "usual": times[None], "longest": times[slowest], "argument": slowest})
    return rows


def alternate(kernel, twin, repeats):
    """Microseconds of both, medians of measurements by turns."""
    pairs = [(seconds_per_call(kernel), seconds_per_call(twin)) for _ in range(repeats)]
    kernel_seconds, twin_seconds = (1e6 * median(column) for column in zip(*pairs))
    return {"kernel": kernel_seconds, "twin": twin_seconds}


def draw(rows, products, dense_products):
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    left, right, last = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    names = [row["name"] for row in rows]
    left.barh(names, [row["twin"] / row["kernel"] for row in rows], color="#228833")
    left.axvline(1, color="black", lw=1, ls="--")
    left.set(xscale="log", xlabel="time of NumPy / time of the kernel")
    plain_log(left.xaxis)
    left.invert_yaxis()
    left.tick_params(axis="y", labelsize=7)
    densities = [row["density"] for row in products]
    right.plot(densities, [row["kernel"] for row in products], "o-", color="#228833", label="over the non-zeros")
    right.plot(densities, [row["twin"] for row in products], "s-", color="#4477aa", label="dense products")
    right.axvline(sparse.SPARSE, color="black", lw=1, ls="--")
    right.set(xlabel="share of non-zeros (dashed: where npvae changes)", ylim=0)
    right.set_ylabel(f"µs of x W and xᵀ dpre, {B} × {D} × {H}")
    right.legend(frameon=False)
    for name, marker in [("h W", "o-"), ("hᵀ dpre", "s-"), ("dpre Wᵀ", "^-")]:
        chosen = [row for row in dense_products if row["product"] == name]
        last.plot([row["rows"] for row in chosen], [row["twin"] / row["kernel"] for row in chosen], marker, label=name)
    last.axhline(1, color="black", lw=1, ls="--")
    last.set(xlabel="rows of the shard", ylabel=f"time of BLAS / of npvae's dense products, W {H} × {D}", xscale="log", ylim=0)
    last.legend(frameon=False)
    plain_log(last.xaxis)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="measurements of each, by turns (default: 7)")
    args = parser.parse_args()
    info = machine()
    print_machine(info)
    with threadpool_limits(1):
        found = cases()
        for name, kernel, twin, _ in found:
            verify(name, kernel, twin)
        print(f"{'':34}{'kernel':>9}{'NumPy':>9}{'bound':>9}  µs   NumPy/kernel  kernel/bound")
        rows = []
        for name, kernel, twin, n_bytes in found:
            row = {"name": name, **alternate(kernel, twin, args.repeats), "bound": 1e6 * n_bytes / bytes_per_second(n_bytes)}
            rows.append(row)
            print(f"{name:34}{row['kernel']:9.1f}{row['twin']:9.1f}{row['bound']:9.1f}{row['twin'] / row['kernel']:14.1f}"
                  f"{row['kernel'] / row['bound']:14.1f}", flush=True)  # fmt: skip
        products, dense_products = product_rows(args.repeats), dense_rows(args.repeats)
        ranges = range_rows(args.repeats)
    print(f"\nx W and xᵀ dpre, {B} × {D} × {H}    over non-zeros    dense  µs")
    for row in products:
        print(f"{row['density']:8.0%} non-zeros {row['kernel']:24.0f}{row['twin']:9.0f}")
    print(f"\nW {H} × {D}                           npvae     BLAS  µs")
    for row in dense_products:
        print(f"{row['product']:8}{row['rows']:8} rows {row['kernel']:19.0f}{row['twin']:9.0f}")
    print(f"\n{'':34}    usual  longest  µs, at the argument")
    for row in ranges:
        print(f"{row['name']:34}{row['usual']:9.1f}{row['longest']:9.1f}  {row['argument']}")
    result = {"machine": info, "rows": rows, "products": products, "dense": dense_products, "ranges": ranges}
    save("ops", result, draw(rows, products, dense_products))


if __name__ == "__main__":
    main()
