"""The benchmark of several processes: its cost model finds what made-up times were made of; its tables and its figure."""

import json
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import scaling_mpi

    monkeypatch.setattr(scaling_mpi, "seconds_per_row", lambda: {"permutation": 1e-8, "input": 3e-7})
    return scaling_mpi


def made_up(bench):
    """What `weak` would save where a step takes 0.5 ms and 10 µs a row, and a sum 10 µs and 1 ns a byte."""

    def times(factor):
        return {b: {"median": 1e3 * factor * (5e-4 + 1e-5 * b), "min": 0, "max": 0} for b in bench.ROWS_EACH}

    sums = {"sums": {size: 1e-5 + 4 * size * 1e-9 for size in bench.SIZES}, "numbers": 4e-5}
    milliseconds = {kind: times(factor) for kind, factor in zip(bench.KINDS, (1, 1.1, 1.25))}
    return json.loads(json.dumps({"weak": {"milliseconds": milliseconds, "sums": {2: sums, 4: sums}}}))


def test_the_cost_model_finds_the_constants(bench):
    found = bench.model(None, made_up(bench))
    assert found["seconds"]["step"] == pytest.approx(5e-4)
    assert found["seconds"]["row"] == pytest.approx(1e-5)
    assert found["here"] == pytest.approx({"latency": 5e-6, "bytes_per_second": 1e9, "numbers": 4e-5})
    P = found["parameters"]
    expected = 5e-4 + 1e-5 * 256 + 1e-8 * 2 * 256 + 4e-5 + 1e-5 + 4 * P * 1e-9
    assert found["predicted_two_processes_ms"][256] == pytest.approx(1e3 * expected)
    one, ten = 5e-4 + (1e-5 + 1e-8) * 512, 5e-4 + (1e-5 + 1e-7) * 512 + np.log2(10) * 2e-5 + 18 * (2e-6 + 0.4 * P / 1e10)
    assert found["efficiency"][10][512] == pytest.approx(one / ten)
    for N, b in found["rows_for_90_percent"].items():
        assert b is None or found["efficiency"][N][8192] >= 0.9
    assert found["rows_for_90_percent"][1000] is None  # the permutation alone takes as long as the rows


def test_tables_and_figure_show_what_was_measured(bench):
    found = made_up(bench)
    found["model"] = bench.model(None, found)
    found["memory"] = [{"rows": 10**k, "start_mb": 100.0, "peak_mb": 110.0 + 10**k / 2**20, "seconds": 1} for k in (5, 6, 7)]
    rows = [{"batch": b, "rule": rule, "loss": [200.0, None if (b, rule) == (8192, "linear") else 100 + b / 1024]}
            for b in bench.BATCHES for rule in bench.RULES if b > 128 or rule == "constant"]  # fmt: skip
    found = json.loads(json.dumps({**found, "batches": {"epochs": 2, "rows": rows}}))
    tables = bench.markdown(found).split("\n\n")
    assert "| 128 | 1.78 ms | 1.96 ms | 2.23 ms | 91% | 80% | 88% |" in tables[0]
    assert tables[1].splitlines()[2].startswith("| 1 | 100% |")
    assert "| 10,000,000 | 7,840 MB | 120 MB | 20 MB | 2.0 |" in tables[2]
    assert bench.markdown({"overlap": {"sum": 1e-3, "in turn": 2e-3}}).splitlines()[2] == "| 1.00 ms | 2.00 ms |"
    assert tables[3].splitlines()[2:] == [
        "| as it is | 100.12 | 100.25 | 100.50 | 101.00 | 102.00 | 104.00 | 108.00 |",
        "| √(batch/128) | 100.12 | 100.25 | 100.50 | 101.00 | 102.00 | 104.00 | 108.00 |",
        "| batch/128 | 100.12 | 100.25 | 100.50 | 101.00 | 102.00 | 104.00 | diverged |",
    ]
    axes = bench.draw(found).axes
    assert [len(panel.lines) for panel in axes] == [2, 4, 3, 3]
