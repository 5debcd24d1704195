"""Dense products in tiles: every shape, nothing written beside the result, the limits, the machine code."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest
from llvmlite import binding

from npvae.kernels import dense, sparse
from npvae.kernels.compile import jit
from npvae.kernels.tiles import has_32_registers, lanes_of

DTYPES = ["float32", "float64"]
COMPILED = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")
BESIDE = 5  # numbers before and after each array: none of them may change, and no array begins at a cache line

# As many rows as tiles of 8 and 4 have, and some more or fewer; as many columns as tiles of three vectors and of one have, for
# vectors of 4 to 16 numbers, and some more; too few of either; sums of one product, and of a vector and a rest.
SHAPES = [(8, 3, 48), (16, 7, 96), (9, 5, 49), (13, 4, 64), (12, 9, 65), (4, 2, 80), (7, 6, 113), (23, 1, 150), (3, 5, 48),
          (8, 5, 47), (1, 1, 1), (30, 130, 24), (5, 6, 128), (6, 13, 143), (4, 7, 129), (3, 4, 130), (2, 6, 200),
          (11, 5, 128)]  # fmt: skip


def inside(shape, dtype, value=np.nan):
    """An array of this shape in the middle of a longer one, which is returned too."""
    size = int(np.prod(shape))
    whole = np.full(size + 2 * BESIDE, value, dtype)
    return whole[BESIDE : BESIDE + size].reshape(shape), whole


def normal(shape, dtype, seed):
    array, _ = inside(shape, dtype)
    array[:] = np.random.default_rng(seed).standard_normal(shape)
    return array


def product(name, a, b):
    """The product `name` of dense, what it is in long double, and the sums of absolute values that bound its error."""
    left = a.T if name == "transposed_times" else a
    right = b.T if name == "times_transposed" else b
    out, whole = inside((len(left), right.shape[1]), a.dtype)
    getattr(dense, name)(a, b, out)
    assert np.isnan(whole[:BESIDE]).all()
    assert np.isnan(whole[-BESIDE:]).all()
    exact = left.astype(np.longdouble) @ right.astype(np.longdouble)
    return out, exact, np.abs(left) @ np.abs(right)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "n_in", "n_out"), SHAPES)
def test_products_of_every_shape(B, n_in, n_out, dtype):
    x, W, dpre = normal((B, n_in), dtype, 0), normal((n_in, n_out), dtype, 1), normal((B, n_out), dtype, 2)
    for name, a, b in [("times", x, W), ("transposed_times", x, dpre), ("times_transposed", dpre, W)]:
        out, exact, size = product(name, a, b)
        n_terms = {"times": n_in, "transposed_times": B, "times_transposed": n_out}[name]
        assert np.all(np.abs(out - exact) <= n_terms * np.finfo(dtype).eps * size), name


@COMPILED
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_a_product_does_not_depend_on_the_rows_beside_it(dtype):
    """Every sum has one order, in whichever tile it is."""
    x, W = normal((29, 50), dtype, 0), normal((50, 150), dtype, 1)
    out, _, _ = product("times", x, W)
    for rows in (slice(0, 8), slice(3, 7), slice(20, 29)):
        np.testing.assert_array_equal(product("times", np.ascontiguousarray(x[rows]), W)[0], out[rows])


@COMPILED
def test_where_tiles_are_used():
    fits = jit(lambda n_rows, n_columns, n_batch, out: dense.fits_tiles(n_rows, n_columns, n_batch, out))
    lanes, has_32 = jit(lambda out: lanes_of(out)), jit(lambda: has_32_registers())
    for dtype in DTYPES:
        out = np.empty((1, 1), dtype)
        is_wide = lanes(out) * out.itemsize >= dense.WIDE
        assert fits(4, 3 * lanes(out), dense.FEW, out) == is_wide
        assert fits(4, 3 * lanes(out), dense.FEW + 1, out) == (is_wide and has_32())
        assert not fits(3, 3 * lanes(out), 4, out)
        assert not fits(4, 3 * lanes(out) - 1, 4, out)
    assert not dense.fits_tiles(100, 1000, 4, np.empty((1, 1)))  # uncompiled


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_columns", [1, 15, 16, 40, 64, 100, 128, 150, 200, 300])
def test_combining_rows_in_strips_of_every_width(n_columns, dtype):
    rng = np.random.default_rng(3)
    x, factor = (rng.random((6, 40)) < 0.3) * normal((6, 40), dtype, 4), normal((40, n_columns), dtype, 5)
    x = x.astype(dtype)
    x[2] = 0  # a row without non-zeros
    starts, columns, values = np.empty(7, np.int32), np.empty(200, np.int32), np.empty(200, dtype)
    sparse.find(x, starts, columns, values)
    out, whole = inside((6, n_columns), dtype)
    sparse.combine_rows(starts, columns, values, factor, out)
    assert np.isnan(whole[:BESIDE]).all()
    assert np.isnan(whole[-BESIDE:]).all()
    exact = x.astype(np.longdouble) @ factor.astype(np.longdouble)
    assert np.all(np.abs(out - exact) <= 40 * np.finfo(dtype).eps * (np.abs(x) @ np.abs(factor)))


@COMPILED
@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2"), reason="tiles are not used without AVX2")
def test_the_sums_of_a_tile_stay_in_registers():
    """In the machine code of `product`, the loop over k moves no vector to the stack or back."""
    x, W, out = normal((8, 4), "float32", 0), normal((4, 100), "float32", 1), normal((8, 100), "float32", 2)
    kernel = numba.njit(dense._product)  # of what came from a cache there is no code to read
    kernel(x.reshape(-1), 4, 1, W.reshape(-1), out.reshape(-1), out.reshape(-1), 8, 4, 100)
    for code in kernel.inspect_asm().values():
        blocks = [block for block in re.split(r"\n\.\w+:", code) if len(re.findall(r"vfmadd\S+\s.*%[yz]mm", block)) >= 12]
        assert blocks
        assert not any(re.search(r"%[yz]mm.*\(%rsp\)|\(%rsp\).*%[yz]mm", block) for block in blocks)


@COMPILED
@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx512f"), reason="the processor has one width of vectors")
def test_narrower_vectors_give_the_same_products(tmp_path):
    """A process whose Numba is told that the processor has no AVX-512."""
    script = textwrap.dedent("""
        import numpy as np
        from npvae.kernels import dense
        rng = np.random.default_rng(0)
        a, W, dpre = (rng.standard_normal(shape).astype(np.float32) for shape in [(13, 70), (70, 131), (13, 131)])
        out, dW, dx = np.empty((13, 131), np.float32), np.empty((70, 131), np.float32), np.empty((13, 70), np.float32)
        dense.times(a, W, out), dense.transposed_times(a, dpre, dW), dense.times_transposed(dpre, W, dx)
        assert "zmm" not in "".join([*dense.product.inspect_asm().values(), *dense.dots.inspect_asm().values()])
        for ours, exact in [(out, a @ W), (dW, a.T @ dpre), (dx, dpre @ W.T)]:
            np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-4)
        print("done")
    """)
    features = binding.get_host_cpu_features()
    narrow = ",".join(("+" if on and not name.startswith("avx512") else "-") + name for name, on in features.items())
    environment = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": narrow, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment |= {"PYTHONPATH": str(Path(dense.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
