"""Compilation: cached on disk where that is possible, and never worse than without a cache."""

import functools
import gc
import importlib.util
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numba.core import caching, event

from npvae.kernels import compile as compiling
from npvae.kernels import vae

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")


@pytest.fixture
def load(tmp_path, monkeypatch):
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
        monkeypatch.setitem(sys.modules, "kernel", module)  # where the cache looks for it
        spec.loader.exec_module(module)
        return compiling.jit(module.double)

    return load


def doubles(kernel):
    """Whether the kernel does its work; whether what it runs came from the cache."""
    x = np.arange(3.0)
    kernel(x)
    np.testing.assert_array_equal(x, [0, 2, 4])
    return sum(kernel.stats.cache_hits.values()) == 1


def cache_files(tmp_path):
    return list(tmp_path.rglob("*.nbc"))


def test_a_kernel_is_compiled_once_and_then_loaded(load, tmp_path):
    assert not doubles(load())
    assert len(cache_files(tmp_path)) == 1
    assert doubles(load())


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:-1],
                                    lambda data: b"\x80\x04garbage"])  # fmt: skip
def test_a_damaged_cache_is_compiled_again_and_repaired(load, tmp_path, damage):
    doubles(load())
    (path,) = cache_files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert not doubles(load())
    assert doubles(load())


def test_a_cache_is_stale_when_the_source_of_any_kernel_has_changed(load, monkeypatch):
    doubles(load())
    monkeypatch.setattr(compiling, "sources", lambda: "other sources")
    assert not doubles(load())
    assert doubles(load())


def test_sources_covers_every_file_of_the_kernels(monkeypatch, tmp_path):
    kernels, ops = tmp_path / "npvae" / "kernels", tmp_path / "npvae" / "ops"
    files = [kernels / "compile.py", kernels / "elementary.py", ops / "latent.py"]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    monkeypatch.setattr(compiling, "__file__", str(files[0]))
    digests = {compiling.sources()}
    for path in files:
        path.write_text("2")
        digests.add(compiling.sources())
    assert len(digests) == 4


def test_what_is_saved_at_once_is_not_mixed_up(tmp_path):
    """Two processes that compile versions of one kernel, and neither knows of the other."""
    n, together = 60, threading.Barrier(2)

    def process(k):
        for number in range(n):
            together.wait()
            files(tmp_path / str(number)).save(k, f"compiled by {k}")

    def files(folder):
        return compiling.CacheFiles(folder, "kernel", "sources")

    for number in range(n):
        (tmp_path / str(number)).mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(process, range(2)))
    for number in range(n):
        assert [files(tmp_path / str(number)).load(k) for k in range(2)] == ["compiled by 0", "compiled by 1"]


def test_where_nothing_can_be_written_kernels_compile_in_memory(load, monkeypatch, tmp_path):
    def refuse(self):
        raise OSError("read-only file system")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    assert not doubles(load())
    assert not doubles(load())
    assert not cache_files(tmp_path)


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


@pytest.mark.parametrize("is_on", [True, False])
def test_garbage_is_not_looked_for_during_compilation_and_as_before_after_it(load, is_on):
    during = []

    class Observer(event.Listener):
        def on_start(self, _):
            pass

        def on_end(self, _):
            during.append(gc.isenabled())

    before = gc.isenabled()
    try:
        gc.enable() if is_on else gc.disable()
        with event.install_listener("numba:run_pass", Observer()):
            doubles(load())
        assert gc.isenabled() == is_on
    finally:
        gc.enable() if before else gc.disable()
    assert during
    assert not any(during)


FACTORY = """
from numba.core import event
from npvae.kernels.compile import jit

def _add(x):
    return x + 1

def _double(x):
    return 2 * x

add, double = jit(_add), jit(_double)

def made(op, n, doubled):
    def _repeated(x):
        for _ in range(n):
            x = op(x)
        return x
    repeated = jit(_repeated)
    def _outer(x):
        return 2 * repeated(x) if doubled else repeated(x)
    return jit(_outer)

class Counter(event.Listener):
    n = 0
    def on_start(self, _):
        self.n += 1
    def on_end(self, _):
        pass

def run(*variants):
    counter = Counter()
    with event.install_listener("numba:compile", counter):
        print(*(made(*variant)(3.0) for variant in variants))
    print("compiled" if counter.n else "loaded")
"""


@pytest.fixture
def run_factory(tmp_path):
    """run_factory("add, 2, False", ...) makes and calls these kernels of a factory in a new process: their results, and
    whether anything was compiled."""
    (tmp_path / "factory.py").write_text(FACTORY)

    def run(*variants):
        calls = ", ".join(f"(factory.{variant})" for variant in variants)
        command = [sys.executable, "-c", f"import factory; factory.run({calls})"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        results, how = result.stdout.splitlines()
        return [float(value) for value in results.split()], how

    return run


def test_kernels_of_a_factory_are_cached_each_for_what_its_free_variables_hold(run_factory):
    variants = {"add, 3, False": 6, "add, 3, True": 12, "double, 3, False": 24, "add, 4, False": 7}
    names, results = list(variants), list(variants.values())
    assert run_factory(*names[:2]) == (results[:2], "compiled")  # each pair by a process of its own
    assert run_factory(*names[2:]) == (results[2:], "compiled")
    assert run_factory(*names) == (results, "loaded")


def test_a_function_s_identity_is_its_name_and_what_its_free_variables_hold():
    def made(op, n):
        def repeated():
            return op, n

        return repeated

    def plain():
        pass

    identities = [compiling.identity(made(op, n)) for op in (plain, compiling.jit(plain), made, "op") for n in (1, 2, 1.0)]
    assert identities[:3] == identities[3:6]  # a kernel is known by the function that it was compiled from
    assert len(set(identities)) == 9
    assert "0x" not in "".join(identities)  # an address would differ from process to process


def test_the_names_of_kernels_of_a_factory_differ():
    """Numba calls its files and its machine code by these names."""

    def made(n):
        def power(x):
            return x**n

        return compiling.jit(power)

    names = [made(n).py_func.__qualname__ for n in (2, 3, 2)]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("power_") for name in names)


def test_workers_that_ask_for_the_same_gradient_at_once_get_one_kernel(monkeypatch):
    made, together = [], threading.Barrier(3)

    @functools.cache
    def slow_factory(*names):
        made.append(names)
        time.sleep(0.02)
        return lambda *arguments: len(made)

    def ask(_):
        together.wait()
        x = np.zeros((1, 2))
        return vae.vae_gradient(x[0], x, x, 1.0, "full", "elbo", "bernoulli", 1, 1, None, workspace)

    workspace = vae.Workspace("tanh", None, 1, 0, None, None)
    monkeypatch.setattr(vae, "gradient_kernel", slow_factory)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [1, 1, 1]
    assert made == [("tanh", "full", "elbo", "bernoulli", False, "none")]


def test_all_likelihoods_and_objectives_share_the_kernels_of_the_layers():
    def held(kernel):
        function = kernel.py_func
        return dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__)))

    kinds = ("diagonal", "elbo", "bernoulli", False), ("full", "iwae", "gaussian", True)
    one, other = (held(vae.shard_kernel("tanh", *kind)) for kind in kinds)
    assert one["layers_forward"] is other["layers_forward"]
    assert one["layers_backward"] is other["layers_backward"]
    assert one["importance_weighted"] is not other["importance_weighted"]
