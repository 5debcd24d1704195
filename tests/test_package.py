"""The house: what imports what, what the README says, what the set-up names."""

import ast
import configparser
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import npvae

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Each file may import only files above it.
ORDER = ["layers", "latent", "likelihood", "bounds", "gradcheck", "checks", "archive", "checkpoint", "parameters", "schedules",
         "optim", "backend", "kernels", "vae", "data", "batches", "parallel", "minibatch", "history", "train", "evaluate",
         "ppca", "subjects", "proofs", "plots", "saving", "runs", "commands", "cli"]  # fmt: skip


def imported(path):
    """The npvae modules that a file imports at any depth of its functions, and other packages it imports at its top."""
    own, others = set(), set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "npvae" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            (own if name.startswith("npvae.") else others).add(name)
    return {name.split(".")[1] for name in own}, {name.split(".")[0] for name in others}


@pytest.mark.parametrize("path", sorted((ROOT / "npvae").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    place = path.relative_to(ROOT / "npvae").parts[0].removesuffix(".py")
    if place in ("__init__", "__main__"):
        return
    own, _ = imported(path)
    too_high = {name for name in own if ORDER.index(name) > ORDER.index(place)}
    # The back end's table is completed by the kernels when it is asked for; the simulation calls its kernel.
    assert too_high <= {"backend": {"kernels"}}.get(place, set())


@pytest.mark.parametrize("name", ["layers", "latent", "likelihood", "gradcheck"])
def test_the_mathematics_knows_only_numpy(name):
    own, others = imported(ROOT / "npvae" / f"{name}.py")
    assert others - set(sys.stdlib_module_names) <= {"numpy"}
    assert own <= {"layers"}


def test_import_loads_neither_numba_nor_matplotlib_nor_scipy():
    code = "import sys, npvae; print([m for m in ('numba', 'matplotlib', 'scipy', 'pooch') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    for name in npvae.__all__:
        assert getattr(npvae, name).__doc__, name


def test_every_file_of_the_package_is_on_the_map():
    for path in (ROOT / "npvae").glob("*.py"):
        if not path.name.startswith("__"):
            assert path.name in npvae.__doc__, path.name


def test_set_up():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["name"] == "npvae"
    assert setup["metadata"]["version"] == npvae.__version__
    assert setup["options"]["python_requires"] == ">=3.11"
    assert "npvae = npvae.cli:main" in setup["options.entry_points"]["console_scripts"]
    assert set(setup["options.extras_require"]) == {"data", "test", "bench"}


# ----------------------------------------------------------------------------------------------------------- README


def test_line_counts_in_the_readme_are_true():
    rows = re.findall(r"^\| *\d+ *\| `(npvae/[\w/]+\.py)` \| *(\d+) *\|", README, re.MULTILINE)
    assert len(rows) >= 15
    for name, lines in rows:
        assert int(lines) == len((ROOT / name).read_text(encoding="utf-8").splitlines()), name
    public = {str(path.relative_to(ROOT)) for path in (ROOT / "npvae").rglob("*.py") if not path.name.startswith("__main")}
    assert {name for name, _ in rows} | {"npvae/__init__.py", "npvae/kernels/__init__.py"} >= public


def test_python_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_ci_runs_exactly_the_test_command_of_the_readme():
    commands = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    test_command = next(command for command in commands if "pytest" in command).strip()
    assert test_command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_files_and_folders_that_the_readme_names_exist():
    for name in re.findall(r"[(`]((?:npvae|tests|examples|benchmarks|\.ci)/[\w./-]*)[)`]", README):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(("script", "result"), [("bench_step", "step"), ("reproduce_iwae", "iwae")])
def test_the_tables_in_the_readme_are_the_saved_results(script, result, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    markdown = importlib.import_module(script).markdown
    table = re.search(rf"<!-- python benchmarks/{script}.py --markdown -->\n(.*?)\n<!-- end -->", README, re.DOTALL)[1]
    assert table == markdown(json.loads((ROOT / f"benchmarks/results/{result}.json").read_text()))
