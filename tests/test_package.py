"""The house: its rooms, what imports what, the map, what the set-up names."""

import ast
import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import npvae

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "npvae"
ROOMS = ["core", "ops", "kernels", "data", "models", "training", "checking", "app"]  # from the ground up
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
# A back end is loaded when a model asks for it, and the registry of models is asked by name.
MAY_IMPORT_LATE = {("models/backend.py", "kernels")}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """(module, whether at the top of the file) of every import of npvae, wherever it stands; other packages at the top."""
    own, others = [], set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(ast.walk(tree)) - {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
            own.append((f"{package}.{node.module}", node in top))
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "npvae" else [node.module]
            for module in modules:
                if module.split(".")[0] == "npvae":
                    own.append((module, node in top))
                elif node in top:
                    others.add(module.split(".")[0])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "npvae":
                    own.append((alias.name, node in top))
                elif node in top:
                    others.add(alias.name.split(".")[0])
    return own, others


def room_of(module):
    return module.split(".")[1] if module.count(".") else None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downward(path):
    room = name_of(path).split("/")[0]
    for module, _ in imports(path)[0]:
        other = room_of(module)
        assert other is not None, f"{name_of(path)} imports the whole package"
        assert ROOMS.index(other) <= ROOMS.index(room) or (name_of(path), other) in MAY_IMPORT_LATE, module


def test_there_is_no_circle():
    """Of imports at the top of files: within a room, too, files form no circle."""
    modules = {module_name(path): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        if path.name == "__init__.py":
            continue  # it gathers what its room holds
        graph[module] = {other for other, at_top in imports(path)[0] if at_top and other in modules and other != module
                         and modules[other].name != "__init__.py"}  # fmt: skip

    done, walking = set(), []

    def walk(module):
        assert module not in walking, " -> ".join([*walking, module])
        if module in done:
            return
        walking.append(module)
        for other in graph.get(module, ()):
            walk(other)
        done.add(walking.pop())

    for module in graph:
        walk(module)


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).startswith("ops/")], ids=name_of)
def test_the_mathematics_knows_only_numpy(path):
    own, others = imports(path)
    assert others - set(sys.stdlib_module_names) <= {"numpy"}
    assert {module for module, _ in own if room_of(module) != "ops"} <= {"npvae.core.numerics"}


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).startswith("checking/gradcheck/")], ids=name_of)
def test_the_gradient_checks_know_nothing_of_the_package(path):
    own, others = imports(path)
    assert others - set(sys.stdlib_module_names) <= {"numpy"}
    assert all(module.startswith("npvae.checking.gradcheck.") for module, _ in own)


def test_the_seam_names_no_model():
    """Training, checkpoints, checks and the command line speak to the protocol only."""
    for room in ("core", "training", "checking", "app"):
        for path in (PACKAGE / room).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {node.attr if isinstance(node, ast.Attribute) else node.id
                     for node in ast.walk(tree) if isinstance(node, (ast.Attribute, ast.Name))}  # fmt: skip
            used = names & set(npvae.models.classes())
            allowed = {"VAE"} if path.name in ("cli.py", "estimator.py") else set()  # the default of --model; VAEEstimator
            assert used <= allowed, path.name


def test_import_loads_neither_numba_nor_matplotlib_nor_scipy():
    code = "import sys, npvae; print([m for m in ('numba', 'matplotlib', 'scipy', 'pooch') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    for name in npvae.__all__:
        assert getattr(npvae, name).__doc__, name


def test_what_checks_from_outside_import():
    for name in ("gradcheck", "evaluate", "layers", "latent", "likelihood", "bounds", "optim", "ppca", "schedules", "data"):
        assert importlib.import_module(f"npvae.{name}") is getattr(npvae, name)


def mapped():
    """room -> the names that the map in npvae.__doc__ lists in it."""
    rooms, room = {}, None
    text, _, _ = npvae.__doc__.partition("\n    x ─ layers")  # below it the flow of data is drawn
    for line in text.splitlines():
        words = line.split()
        if line.startswith("    ") and words and words[0].endswith("/"):
            room = words[0].removesuffix("/")
            rooms[room] = []
        elif line.startswith("        ") and words and room is not None:
            rooms[room].append(words[0])
    return rooms


def test_every_file_is_on_the_map_and_the_rooms_stand_in_the_order_of_imports():
    rooms = mapped()
    assert list(rooms) == ROOMS[::-1]
    for room, names in rooms.items():
        files = {path.stem if path.parent.name == room else path.parent.name for path in (PACKAGE / room).rglob("*.py")
                 if path.name != "__init__.py"}  # fmt: skip
        assert set(names) == files, room
        assert len(names) == len(set(names)), room


def test_files_and_functions_are_short():
    """Files of 300 lines, functions of 45 without their docstrings; a model is one file all the same."""
    long_files = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name for name, lines in long_files.items() if lines > 300} <= {"models/vae.py", "models/cvae.py", "models/flow.py"}
    long_functions = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                if node.end_lineno - node.lineno + 1 - docstring.count("\n") > 45:
                    long_functions.add(f"{name_of(path)}:{node.name}")
    assert long_functions == set()


def test_set_up():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["name"] == "npvae"
    assert setup["metadata"]["version"] == npvae.__version__
    assert setup["options"]["python_requires"] == ">=3.11"
    assert "npvae = npvae.app.cli:main" in setup["options.entry_points"]["console_scripts"]
    assert set(setup["options.extras_require"]) == {"data", "test", "bench", "sklearn", "mpi"}
