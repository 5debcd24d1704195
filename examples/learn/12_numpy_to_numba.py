# %% [markdown]
# # 12 From NumPy to Numba: one op made fast
#
# **Why.** `npvae.kernels` holds a compiled twin of each op of `npvae.ops`. This lesson makes one: the Bernoulli loss on logits
# and its gradient. It shows what slows the NumPy version down, that compiling a loop is not enough, and how to see in the
# machine code whether it is.
#
# **Read before.** Lesson 11; `npvae/ops/likelihood.py`; afterwards `npvae/kernels/likelihood.py` and
# `npvae/kernels/elementary.py`.
#
# **Prediction.** Times depend on the machine, but the traffic does not: NumPy writes each intermediate to memory and reads it
# again, 196 bytes for each pixel in float32. A loop reads the logit and the pixel and writes the gradient: 12 bytes.

# %%
import math
import re
import time

import matplotlib.pyplot as plt
import numba
import numpy as np
from showing import keep
from threadpoolctl import threadpool_limits

from npvae.kernels import dense, elementary

numba.config.DISABLE_JIT = 0  # this lesson is about compiled code, also where a test of uncompiled code runs it

# %% [markdown]
# ## In NumPy, with its bytes
#
# A float32 has 4 bytes, a bool 1. An operation of two arrays reads 4 + 4 and writes 4 bytes for each pixel: 12. The comment
# behind each line adds up its operations. In total 24 + 52 + 4 + 16 + 12 + 18 + 18 + 52 = 196.


# %%
def numpy_version(l, x, dnll):
    """nll (B,) and dlogits (B, D) for logits l and pixels x (B, D), where each row of nll has the upstream gradient dnll."""
    t = np.exp(-np.abs(l))  # 8 + 8 + 8
    terms = np.maximum(l, 0) - l * x + np.log1p(t)  # 8 + 12 + 12 + 8 + 12
    nll = terms.sum(axis=1, dtype=np.float64)  # 4
    larger = 1 / (1 + t)  # 8 + 8
    smaller = t * larger  # 12
    p = np.where(l > 0, larger, smaller)  # σ(l): 5 + 13
    q = np.where(l > 0, smaller, larger)  # σ(−l): 5 + 13
    dlogits = dnll * ((1 - x) * p - x * q)  # (BERNOULLI-logits) 8 + 12 + 12 + 12 + 8
    return nll, dlogits


# %% [markdown]
# An array that counts what is read and written measures it. NumPy calls the two methods below in place of its own functions.


# %%
class Counting(np.ndarray):
    n_bytes = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):  # np.exp, +, sum, ...
        return self.counted(getattr(ufunc, method), inputs, options)

    def __array_function__(self, function, types, inputs, options):  # np.where
        return self.counted(function, inputs, options)

    def counted(self, function, inputs, options):
        arrays = [np.asarray(value) if isinstance(value, np.ndarray) else value for value in inputs]
        result = function(*arrays, **options)
        Counting.n_bytes += result.nbytes + sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
        return result.view(Counting)


rng = np.random.default_rng(12)
B, D = 500, 784
l = (3 * rng.standard_normal((B, D))).astype(np.float32)
x = (rng.random((B, D)) < 0.5).astype(np.float32)
dnll = np.float32(1 / B)
numpy_version(l.view(Counting), x.view(Counting), dnll)
bytes_per_pixel = Counting.n_bytes / l.size
print(f"NumPy moves {bytes_per_pixel:.2f} bytes per pixel (the 0.01 is nll), the loops below 12")

# %% [markdown]
# ## As a loop
#
# The same lines for one pixel at a time. All intermediates are numbers in registers. Numba compiles the function when it is
# first called. The flags allow sums in another order and fused multiply-add, but keep NaN and infinity
# (`npvae/kernels/compile.py` has the reasons).


# %%
def plain_loop(l, x, dnll, nll, dlogits):
    zero, one = np.float32(0), np.float32(1)  # a literal 0.0 would turn the arithmetic into float64
    for b in range(l.shape[0]):
        total = 0.0
        for d in range(l.shape[1]):
            t = math.exp(-abs(l[b, d]))
            total += max(l[b, d], zero) - l[b, d] * x[b, d] + math.log1p(t)
            larger = one / (one + t)
            smaller = t * larger
            p, q = (larger, smaller) if l[b, d] > 0 else (smaller, larger)
            dlogits[b, d] = dnll * ((one - x[b, d]) * p - x[b, d] * q)  # (BERNOULLI-logits)
        nll[b] = total


# %% [markdown]
# ## As a loop that can be vectorised
#
# A processor has vector registers: one instruction adds 4, 8 or 16 float32 at once. As a rule the compiler uses them only for
# loops of which every operation can be done that way. The loop above has two obstacles: `math.exp` and `math.log1p` are calls
# of the C library for one number, and the sum is in float64 between float32 arithmetic. So take exp and log1p written as
# arithmetic, and store the terms of a row before they are added.


# %%
def vector_loop(l, x, dnll, nll, dlogits):
    zero, one = np.float32(0), np.float32(1)
    terms = np.empty(l.shape[1], np.float32)
    for b in range(l.shape[0]):
        for d in range(l.shape[1]):
            t = elementary.exp_minus_abs(l[b, d])
            terms[d] = max(l[b, d], zero) - l[b, d] * x[b, d] + elementary.log1p(t)
            larger = one / (one + t)
            smaller = t * larger
            p, q = (larger, smaller) if l[b, d] > 0 else (smaller, larger)
            dlogits[b, d] = dnll * ((one - x[b, d]) * p - x[b, d] * q)  # (BERNOULLI-logits)
        total = 0.0
        for d in range(l.shape[1]):
            total += terms[d]
        nll[b] = total


flags = {"contract", "reassoc", "nsz", "arcp", "afn"}
plain, vector = (numba.njit(loop, error_model="numpy", fastmath=flags) for loop in (plain_loop, vector_loop))

# %% [markdown]
# ## First the results, then the times
#
# A fast version is compared with the slow one before it is timed. Of several times the median is taken: others use the machine
# too.

# %%
expected_nll, expected_dlogits = numpy_version(l, x, dnll)
nll, dlogits = np.empty(B), np.empty_like(l)
calls = {"NumPy": lambda: numpy_version(l, x, dnll)}
for name, kernel in [("plain loop", plain), ("vector loop", vector)]:
    calls[name] = lambda kernel=kernel: kernel(l, x, dnll, nll, dlogits)
    calls[name]()  # compiles
    assert np.allclose(nll, expected_nll, rtol=2e-6, atol=0)
    assert np.allclose(dlogits, expected_dlogits, rtol=2e-6, atol=0)
milliseconds = {}
for name, call in calls.items():
    durations = []
    for _ in range(11):
        begin = time.perf_counter()
        call()
        durations.append(1e3 * (time.perf_counter() - begin))
    milliseconds[name] = np.median(durations)
    print(f"{name:12} {milliseconds[name]:7.2f} ms, NumPy's time divided by {milliseconds['NumPy'] / milliseconds[name]:.1f}")

# %% [markdown]
# ## Look at the assembly
#
# On x86-64 an arithmetic instruction ends in `ps` (packed single: a whole vector register) or `ss` (scalar single: one number).
# xmm registers hold 4 float32, ymm 8 and zmm 16. On ARM a vector operand is written `v0.4s` and a scalar `s0`. A vectorised
# loop has scalar instructions too, for the pixels left over at the end of a row. Both are counted as often as they stand in
# the code, not as often as they run: nearly all pixels pass through the vector instructions.

# %%
arithmetic = r"(?:add|sub|mul|div|max|min|fn?m(?:add|sub)\d*|f(?:add|sub|mul|div|maxnm|minnm|mla|mls))"
packed = re.compile(rf"\bv?{arithmetic}ps\b|\b{arithmetic}(?:\.4s|\s+v\d+\.4s)")
scalar = re.compile(rf"\bv?{arithmetic}ss\b|\b{arithmetic}\s+s\d+")
counts = {}
for name, kernel in [("plain loop", plain), ("vector loop", vector)]:
    assembly = kernel.inspect_asm(kernel.signatures[0])
    vectors, scalars = ([line for line in assembly.splitlines() if kind.search(line)] for kind in (packed, scalar))
    counts[name] = [len(vectors), len(scalars)]
    print(f"{name:12} {len(vectors)} vector and {len(scalars)} scalar instructions of float32 arithmetic")
    print(f"{'':12} calls of the C library: {sorted(set(re.findall(r'expf|log1pf', assembly))) or 'none'}")
    print(f"{'':12} the first vector instructions: {[' '.join(line.split('#')[0].split()) for line in vectors[:2]] or 'none'}")

# %% [markdown]
# ## Where arithmetic is the limit: a product of matrices
#
# h V of the decoder's last layer multiplies and adds 64 × 400 × 784 = 20 million times, and reads 1.4 MB. Here the loads from
# the nearest cache are what counts. The loop below loads two vectors (of `out` and of V) and stores one for each vector of
# products. In `npvae/kernels/tiles.py` 8 rows times 3 vectors of sums stay in registers: 3 vectors and 8 numbers are loaded for
# 24 vectors of products (half as many sums with AVX2). BLAS has such tiles too, but first copies its factors into an order of
# its own, which pays only for more rows than a minibatch has.


# %%
def loop_of_rows(h, V, out):
    for i in range(h.shape[0]):
        for j in range(V.shape[1]):
            out[i, j] = 0
        for k in range(V.shape[0]):
            for j in range(V.shape[1]):
                out[i, j] += h[i, k] * V[k, j]


h, V = rng.standard_normal((64, 400), np.float32), rng.standard_normal((400, 784), np.float32)
out, exact = np.empty((64, 784), np.float32), h.astype(float) @ V.astype(float)
rows = numba.njit(loop_of_rows, error_model="numpy", fastmath=flags)
products = {"loop of rows": rows, "tiles": dense.times, "BLAS": lambda h, V, out: np.matmul(h, V, out=out)}
with threadpool_limits(1):  # one core for all three
    for name, product in products.items():
        product(h, V, out)  # compiles
        assert np.abs(out - exact).max() < 1e-3
        durations = []
        for _ in range(51):
            begin = time.perf_counter()
            product(h, V, out)
            durations.append(time.perf_counter() - begin)
        billions = 2e-9 * h.shape[0] * V.size / np.median(durations)
        print(f"{name:12} {1e6 * np.median(durations):6.0f} µs, {billions:6.1f} billion multiplications and additions a second")

# %% [markdown]
# ## What is seen
#
# Left: bytes between the processor and its caches. Middle: the plain loop moves a sixteenth of NumPy's bytes but gains less
# than a factor of two (in the picture that is kept, 20 ms against 11), because NumPy's own exp and arithmetic are vectorised
# and those of the loop are not. Only both together are fast. Right: the machine code shows it. The package's kernels are
# written like the vector loop, and its products of few rows in tiles.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
colours = ["#4477aa", "#ee6677", "#228833"]
left.bar_label(left.bar(list(calls), [bytes_per_pixel, 12, 12], color=colours), fmt="%.0f")
left.set(title="Traffic", ylabel="bytes per pixel", ylim=(0, 230))
middle.bar_label(middle.bar(list(calls), list(milliseconds.values()), color=colours), fmt="%.2g")
middle.set(title=f"Time, {B} × {D} pixels", ylabel="milliseconds on this machine")
middle.margins(y=0.15)
for i, (kind, shade) in enumerate([("vector", 1.0), ("scalar", 0.45)]):
    values = [count[i] for count in counts.values()]
    bars = right.bar(np.arange(2) + 0.4 * i - 0.2, values, 0.4, color=colours[1:], alpha=shade)
    right.bar_label(bars, [f"{value}\n{kind}" for value in values], fontsize=9)
right.set(title="Machine code", ylabel="float32 arithmetic instructions", xticks=[0, 1], xticklabels=list(counts))
right.margins(y=0.2)
keep(figure, "12_numpy_to_numba")

# %%
predicted = 24 + 52 + 4 + 16 + 12 + 18 + 18 + 52
assert abs(bytes_per_pixel - predicted) < 0.02
print(f"predicted {predicted}, measured {bytes_per_pixel:.2f} bytes per pixel in NumPy; a loop moves 12")
