"""The four READMEs: Python prints what they say, links lead somewhere, tables are the saved results."""

import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_labels import LABELLED_FILES

from npvae import models
from npvae.app import settings

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", *(ROOT / room / "README.md" for room in ("examples", "benchmarks", "tests"))]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def blocks(path):
    """(code, the output that the text block directly below it states, or "") of each Python block."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```\n(?:(?:\n[^\n`]+\n)?\n```text\n(.*?)```)?", text, re.DOTALL)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_runs_and_prints_what_is_stated(path, tmp_path, monkeypatch):
    """In the top README the numbers may differ by 1 % or 0.15: the last digits of a training run depend on the machine."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for code, stated in blocks(path):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(path), "exec"), namespace)
        if stated and path.parent != ROOT:
            assert printed.getvalue() == stated
        elif stated:
            assert NUMBER.sub("#", printed.getvalue()) == NUMBER.sub("#", stated)
            numbers = [[float(n) for n in NUMBER.findall(output)] for output in (printed.getvalue(), stated)]
            assert numbers[0] == pytest.approx(numbers[1], rel=0.01, abs=0.15)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_file_names_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert link.startswith("http") or (path.parent / link).exists(), link
    for name in re.findall(r"`((?:npvae|tests|examples|benchmarks|\.ci)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in anchors, anchor


def test_the_readme_quotes_the_function_as_it_stands():
    quoted = next(code for code, _ in blocks(ROOT / "README.md") if code.startswith("def latent_backward"))
    assert quoted in (ROOT / "npvae/ops/latent.py").read_text(encoding="utf-8")


def test_every_label_is_derived_on_the_page_of_derivations():
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for name in LABELLED_FILES:
        source = (ROOT / "npvae/ops" / name).read_text(encoding="utf-8")
        for label in re.findall(r"# \(([A-Z][A-Z0-9]*(?:-\w+)*)\)", source):
            assert f"| ({label}) |" in page, label


@pytest.mark.parametrize(("script", "result"), [("bench_bits_back", "bits_back"), ("bench_chain_coder", "chain_coder"),
                                                ("bench_ising", "ising"), ("bench_rbm", "rbm"),
                                                ("ground_states", "ground_states"),
                                                ("scaling_mpi", "scaling_mpi"), ("bench_drift", "drift")])  # fmt: skip
def test_the_tables_of_several_parts_are_the_saved_results(script, result, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    printed = importlib.import_module(script).markdown(json.loads((ROOT / f"benchmarks/results/{result}.json").read_text()))
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    start = f"<!-- python benchmarks/{script}.py --markdown -->\n"
    assert re.search(rf"{start}(.*?)\n<!-- end -->", text, re.DOTALL)[1] == printed


@pytest.mark.parametrize(("script", "result"), [("bench_step", "step"), ("reproduce_iwae", "iwae"), ("families", "families")])
def test_the_tables_are_the_saved_results(script, result, monkeypatch):
    """The full table in benchmarks/README.md, and each row of the short one in README.md."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    table = importlib.import_module(script).markdown(json.loads((ROOT / f"benchmarks/results/{result}.json").read_text()))
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"<!-- python benchmarks/{script}.py --markdown -->\n(.*?)\n<!-- end -->", text, re.DOTALL)[1] == table
    header, _, *rows = table.splitlines()
    short = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = short.index(header)
    found = short[start + 2 : short.index("", start)]
    assert found
    assert set(found) <= set(rows)


def test_line_counts_are_true():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| *\d+ *\| `([\w/]+\.py)` \| *(\d+) *\|", text, re.MULTILINE)
    assert len(rows) == 7
    for name, lines in rows:
        assert int(lines) == len((ROOT / name).read_text(encoding="utf-8").splitlines()), name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


def test_ci_runs_exactly_the_test_command_of_the_readme():
    commands = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    test_command = next(command for command in commands if "pytest" in command).strip()
    assert test_command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_tables_of_options_are_those_of_the_models():
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    tables = dict(re.findall(r"<!-- options (\w+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL))
    assert tables == {name: settings.options_table(kind) for name, kind in models.classes().items()}


def test_the_mistakes_that_the_page_shows_are_recognised():
    """Some rows of the table that `check.py --mistakes` prints, and how many it has."""
    command = [sys.executable, ROOT / "examples/learn/check.py", "--mistakes"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout.splitlines()
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d\d \| `.*", page, re.MULTILINE)
    assert len(rows) >= 8
    assert set(rows) <= set(printed)
    assert f"{len(printed) - 2} wrong lines are known" in page
