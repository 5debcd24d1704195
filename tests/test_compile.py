"""Compilation: cached on disk where that is possible, and never worse than without a cache."""

import functools
import importlib.util
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numba.core import caching

from npvae.kernels import compile as compiling
from npvae.kernels import vae

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")


@pytest.fixture
def load(tmp_path):
    """load() imports the file of a small kernel as a new process would, and returns the kernel."""
    path = tmp_path / "kernel.py"
    path.write_text(
        textwrap.dedent("""
        def double(x):
            for i in range(x.size):
                x[i] *= 2
        """)
    )

    def load():
        spec = importlib.util.spec_from_file_location("kernel", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return compiling.jit(module.double)

    return load


def doubles(kernel):
    """Whether the kernel does its work; whether what it runs came from the cache."""
    x = np.arange(3.0)
    kernel(x)
    np.testing.assert_array_equal(x, [0, 2, 4])
    return sum(kernel.stats.cache_hits.values()) == 1


def cache_files(tmp_path, suffix):
    return list(tmp_path.rglob(f"*.{suffix}"))


def test_a_kernel_is_compiled_once_and_then_loaded(load, tmp_path):
    assert not doubles(load())
    assert len(cache_files(tmp_path, "nbi")) == len(cache_files(tmp_path, "nbc")) == 1
    assert doubles(load())


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:-1],
                                    lambda data: b"\x80\x04garbage"])  # fmt: skip
def test_a_damaged_cache_is_compiled_again_and_repaired(load, tmp_path, suffix, damage):
    doubles(load())
    (path,) = cache_files(tmp_path, suffix)
    path.write_bytes(damage(path.read_bytes()))
    assert not doubles(load())
    assert doubles(load())


def test_a_cache_is_stale_when_the_source_of_any_kernel_has_changed(load, monkeypatch):
    doubles(load())
    monkeypatch.setattr(compiling, "sources", lambda: "other sources")
    assert not doubles(load())
    assert doubles(load())


def test_sources_covers_every_file_of_the_kernels(monkeypatch, tmp_path):
    kernels = tmp_path / "npvae" / "kernels"
    kernels.mkdir(parents=True)
    files = [kernels / "compile.py", kernels / "elementary.py", kernels.parent / "latent.py"]
    for path in files:
        path.write_text("1")
    monkeypatch.setattr(compiling, "__file__", str(files[0]))
    digests = {compiling.sources()}
    for path in files:
        path.write_text("2")
        digests.add(compiling.sources())
    assert len(digests) == 4


def test_where_nothing_can_be_written_kernels_compile_in_memory(load, monkeypatch, tmp_path):
    def refuse(self):
        raise OSError("read-only file system")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    assert not doubles(load())
    assert not doubles(load())
    assert not cache_files(tmp_path, "nb*")


def test_a_full_disk_is_no_error(load, monkeypatch):
    def full(self, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert not doubles(load())


def test_compilation_is_announced_once_and_loading_from_the_cache_is_not(load):
    said = []
    with compiling.announced(lambda: said.append("compiling")):
        kernel = load()
        doubles(kernel)
        kernel(np.arange(3))  # another type: compiled as well
    assert said == ["compiling"]
    with compiling.announced(lambda: said.append("compiling")):
        doubles(load())
    assert said == ["compiling"]
    doubles(load())


def test_workers_that_ask_for_the_same_gradient_at_once_get_one_kernel(monkeypatch):
    made, together = [], threading.Barrier(3)

    def slow_jit(function):
        made.append(function)
        time.sleep(0.02)
        return function

    def ask(_):
        together.wait()
        return vae.gradient_kernel("tanh", "bernoulli", "elbo")

    for name in ("_gradient_kernel", "_stack_kernels"):  # none of them made yet
        monkeypatch.setattr(vae, name, functools.cache(getattr(vae, name).__wrapped__))
    monkeypatch.setattr(vae, "jit", slow_jit)
    with ThreadPoolExecutor(3) as pool:
        kernels = list(pool.map(ask, range(3)))
    assert len(set(kernels)) == 1
    assert len(made) == 3  # two stacks of layers, and the model of both
