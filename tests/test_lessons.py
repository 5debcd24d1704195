"""The lessons of examples/learn run from top to bottom, draw their picture, and print a number that their text predicted."""

import functools
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LEARN = EXAMPLES / "learn"
LESSONS = sorted(LEARN.glob("[0-9][0-9]_*.py"))
NUMBER = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
LAST_LINE = re.compile(rf"predicted ({NUMBER})(?: .*)?, measured ({NUMBER})\b.*")

every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


class Run(NamedTuple):
    status: int
    out: str
    errors: str
    pictures: dict  # name -> pixels


@functools.cache
def run(lesson):
    """The lesson in a process of its own, with a new folder for its picture."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **settings}
        environment.pop("NUMBA_DISABLE_JIT", None)  # a lesson on compiled code needs compiled code
        command = [sys.executable, "-W", "error", lesson, folder]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, env=environment, check=False)
        pictures = {path.name: matplotlib.image.imread(path) for path in sorted(Path(folder).iterdir())}
    return Run(done.returncode, done.stdout, done.stderr, pictures)


def cells(text):
    """The cells of a script in percent format: (is it markdown, its lines)."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    assert parts[0] == ""
    return [(kind.strip() == "[markdown]", body.splitlines()) for kind, body in zip(parts[1::2], parts[2::2])]


def first_cell(lesson):
    markdown, lines = cells(lesson.read_text(encoding="utf-8"))[0]
    assert markdown
    return "\n".join(lines)


def share_that_is_drawn(pixels):
    """The share of the pixels that differ from the corner's, which is background."""
    colours = np.atleast_3d(pixels)[..., :3]
    return (np.abs(colours - colours[0, 0]) > 0.1).any(axis=-1).mean()


def test_the_lessons_are_numbered_from_one_without_a_gap():
    assert [int(path.name[:2]) for path in LESSONS] == list(range(1, len(LESSONS) + 1))
    assert len(LESSONS) >= 6


@every_lesson
def test_a_lesson_runs_and_measures_what_it_predicted(lesson):
    result = run(lesson)
    assert result.status == 0, result.errors
    last_line = LAST_LINE.fullmatch(result.out.rstrip().splitlines()[-1])
    assert last_line, result.out
    text = first_cell(lesson).partition("**Prediction.**")[2].replace("−", "-")
    written = [float(number) for number in re.findall(NUMBER, text)]
    assert any(math.isclose(number, float(last_line[1]), rel_tol=1e-3) for number in written), (last_line[0], text)


@every_lesson
def test_a_lesson_draws_the_picture_that_is_kept(lesson):
    """One picture, not blank, with axes or a drawing on a good part of it; the one in the repository has the same size."""
    name = f"{lesson.stem}.png"
    pictures = run(lesson).pictures
    assert list(pictures) == [name]
    kept = matplotlib.image.imread(LEARN / name)
    assert kept.shape == pytest.approx(pictures[name].shape, rel=0.05), "draw the kept picture again"
    assert 600 <= kept.shape[1] <= 1300
    for pixels in (kept, pictures[name]):
        assert share_that_is_drawn(pixels) > 0.01
    assert (LEARN / name).stat().st_size < 200_000


@every_lesson
def test_a_lesson_opens_as_a_notebook(lesson):
    """Percent format: it begins with a markdown cell, whose lines, like those of all markdown cells, are comments."""
    text = lesson.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n")
    found = cells(text)
    assert len(found) >= 4
    for markdown, lines in found:
        content = [line for line in lines if line]
        assert content, "an empty cell"
        if markdown:
            assert all(line.startswith("#") for line in content), content
        else:
            assert any(not line.startswith("#") for line in content), f"a code cell without code: {content}"


@every_lesson
def test_a_lesson_says_first_why_it_exists_and_what_it_predicts(lesson):
    first = first_cell(lesson)
    assert re.match(rf"# # {lesson.name[:2]} \S", first)
    for part in ("**Why.**", "**Read before.**", "**Prediction.**"):
        assert first.count(part) == 1, part


@every_lesson
def test_a_lesson_names_the_exercises_that_come_now(lesson):
    """Those of its row in examples/README.md, in its last text; none where the row has none."""
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if f"(learn/{lesson.name})" in line)
    listed = row.split("|")[-2].strip()
    text = lesson.read_text(encoding="utf-8")
    links = re.findall(r"^# \*\*Now:\*\* exercises? (.*), `python examples/learn/check\.py (\d+)`\.$", text, flags=re.MULTILINE)
    assert text.count("check.py") == len(links)
    numbers = re.findall(r"\d+", listed)
    assert links == ([(listed.replace(", ", " and "), numbers[0])] if listed else [])
    last_text = [lines for markdown, lines in cells(text) if markdown][-1]
    assert not listed or any("**Now:**" in line for line in last_text)
    exercises = {int(path.name[:2]) for path in (LEARN / "exercises").glob("[0-9][0-9]_*.py")}
    assert {int(number) for number in numbers} <= exercises


@every_lesson
def test_a_lesson_says_where_the_lecture_notes_are_named(lesson):
    """It cites them by the short names of examples/README.md, and says so."""
    text = " ".join(line.removeprefix("# ") for line in lesson.read_text(encoding="utf-8").splitlines())
    cited = re.search(r"[Ll]ectures \(20\d\d\)|Lamacraft|Shiu", text)
    assert not cited or "notes that examples/README.md names" in text
    assert "lectures: lectures" not in text


@every_lesson
def test_a_lesson_stands_once_in_the_reading_path(lesson):
    """Its row in examples/README.md links the file, and names its number and title."""
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    if f"learn/{lesson.name}" not in readme:
        pytest.skip("examples/README.md does not list it yet")
    number, title = first_cell(lesson).splitlines()[0].removeprefix("# # ").split(" ", 1)
    rows = [line for line in readme.splitlines() if title in line]
    assert len(rows) == 1, f"the title {title!r} must stand in one row of examples/README.md, and stands in {len(rows)}"
    assert f"learn/{lesson.name}" in rows[0]
    assert re.search(rf"\b{number}\b", rows[0].replace(lesson.name, ""))
