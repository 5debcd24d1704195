"""The table of equations in examples/README.md: each line that it quotes stands in the file that it names."""

import re
from pathlib import Path

import pytest
from test_labels import LABELLED_FILES, OPS, labels_on_code_lines

from npvae.models.likelihoods import LIKELIHOODS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
TABLES = re.search(r"<!-- equations -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)[1]
DISTRIBUTIONS = re.search(r"<!-- distributions -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)[1]
LECTURES = ["lectures (2024)", "lectures (2025)", "Lamacraft", "Shiu"]


def rows(tables):
    """(section or distribution, equation, file, quoted lines) of each row."""
    found = []
    for line in tables.splitlines():
        if line.startswith("| ") and not line.startswith(("| section |", "| distribution |")):
            section, equation, file, quoted, *_ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found.append((section, equation, file.strip("`"), re.findall(r"`([^`]+)`", quoted)))
    return found


def complaints(tables, root=ROOT):
    """What is wrong with the rows: one sentence each."""
    wrong = []
    for section, equation, file, quoted in rows(tables):
        if not (root / file).is_file():
            wrong.append(f"{section}: there is no file {file}")
            continue
        if not equation or not quoted:
            wrong.append(f"{section}: a row needs an equation and a line")
        lines = [line.strip() for line in (root / file).read_text(encoding="utf-8").splitlines()]
        standing = {*lines, *(line.partition("  #")[0].strip() for line in lines)}
        wrong += [f"{section}: {file} has no line {line}" for line in quoted if line not in standing]
    return wrong


def test_every_quoted_line_stands_in_its_file():
    assert complaints(TABLES) == []


def test_every_distribution_has_its_line_and_its_test():
    assert complaints(DISTRIBUTIONS) == []
    tests = re.findall(r"`(\w+\.py)::(test_\w+)` \|$", DISTRIBUTIONS, re.MULTILINE)
    assert len(tests) == len(rows(DISTRIBUTIONS)) >= 15
    for file, name in tests:
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name
    assert {name for name in LIKELIHOODS if f"`{name}`" not in DISTRIBUTIONS} == set()


def test_the_table_covers_the_four_lectures():
    assert re.findall(r"^\*\*(.*)\*\*$", TABLES, re.MULTILINE) == [name[0].upper() + name[1:] for name in LECTURES]
    assert len(rows(TABLES)) >= 80
    for name in LECTURES:
        assert f"| {name} |" in PAGE  # said which lecture that is


def test_every_labelled_identity_is_in_the_table_or_the_derivation():
    sources = [(OPS / name).read_text(encoding="utf-8") for name in LABELLED_FILES]
    labels = {label for source in sources for label in labels_on_code_lines(source)}
    assert len(labels) >= 30
    assert [label for label in sorted(labels) if f"| ({label}) |" not in PAGE and f"({label})" not in TABLES] == []


ROW = "| Weights | pre = x W | `{}` | `{}` |\n"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (ROW.format("layers.py", "pre = x @ W"), None),
        (ROW.format("layers.py", "return pre"), None),
        (ROW.format("layers.py", "pre = x @ V"), "Weights: layers.py has no line pre = x @ V"),
        (ROW.format("layers.py", "re = x @ W"), "Weights: layers.py has no line re = x @ W"),
        (ROW.format("layer.py", "pre = x @ W"), "Weights: there is no file layer.py"),
        (ROW.format("layers.py", "pre = x @ W").replace("`pre = x @ W`", "pre"), "Weights: a row needs an equation and a line"),
        (ROW.format("layers.py", "pre = x @ W`<br>`gone"), "Weights: layers.py has no line gone"),
        (ROW.format("layers.py", "pre = x @ W").replace("W |", r"W\|x |"), None),
    ],
)
def test_a_row_that_is_wrong_is_reported(tmp_path, row, complaint):
    (tmp_path / "layers.py").write_text("def forward(x, W):\n    pre = x @ W  # (B, n)\n    return pre\n")
    table = "| section | equation | file | line |\n|---|---|---|---|\n" + row
    assert complaints(table, tmp_path) == ([complaint] if complaint else [])
