"""Judge the exercises in examples/learn/exercises.

    python examples/learn/check.py              the list: what is solved, what is open, what is wrong
    python examples/learn/check.py 2            one exercise in detail, by its number, its name or a part of its name
    python examples/learn/check.py --mistakes   the wrong lines that are recognised, as a table

How to work. Open the first exercise, read its text, and put a line of code in the place of one `...`. Call check.py with its
number. Each line `dname = ...` is judged by itself: where lines above it are still open or wrong, it is judged with the right
numbers in their place, so you may begin anywhere and check as often as you like. Repeat until every line is right.

How it is judged. The forward pass of the file runs with one number of `name` moved by an imaginary 1e-20. The imaginary part of
what comes out, divided by 1e-20, is the derivative, exact to rounding (the complex step). A line is right if the largest
difference is below 1e-9 of the largest entry; the column "rel. error" shows this quotient. Where the numbers are those of a
known mistake, the mistake is named.

The exit status is 0 if all that was asked for is solved, 1 if not, 2 if there is no such exercise.
"""

import argparse
import linecache
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from judging import exercises, mistakes
from judging.hooks import code_of
from judging.verdict import INHERITED, OPEN, RIGHT, WRONG, judge


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=True
    )
    parser.add_argument("name", nargs="?", help="number, name or part of the name of an exercise")
    parser.add_argument("--mistakes", action="store_true", help="print the table of recognised mistakes")
    asked = parser.parse_args(argv)
    if asked.mistakes:
        print(mistakes.as_markdown())
        return 0
    if asked.name is None:
        return print_list()
    found = exercises.found(asked.name)
    if len(found) != 1:
        names = ", ".join(f"{exercise.number} {exercise.name}" for exercise in found or exercises.EXERCISES)
        how = "fits several exercises" if found else "is no exercise: there are"
        print(f"check.py: {asked.name!r} {how} {names}".replace("exercises ", "exercises: ", 1), file=sys.stderr)
        return 2
    return print_detail(found[0])


def path_of(exercise):
    """The file of an exercise, as it is best typed: from the current folder where it is below it."""
    path = exercises.FOLDER / f"{exercise.file}.py"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def command(exercise):
    script = Path(__file__).resolve()
    script = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    return f"python {script} {exercise.number}"


# --------------------------------------------------------------------------------------------------------------- the list


def print_list():
    """All exercises with their states, and the next step."""
    verdicts = [judge(exercise) for exercise in exercises.EXERCISES]
    for exercise, verdict in zip(exercises.EXERCISES, verdicts):
        print(f"{exercise.number:3}  {exercise.name:20}  {verdict.state:7} {remark(verdict)}".rstrip())
    unsolved = [exercise for exercise, verdict in zip(exercises.EXERCISES, verdicts) if verdict.state != "solved"]
    print(f"\n{len(verdicts) - len(unsolved)} of {len(verdicts)} solved.", end=" ")
    if not unsolved:
        print("All done: read npvae/models/vae.py, where these pairs become a model.")
        return 0
    print(f"Next: edit {path_of(unsolved[0])}, then call {command(unsolved[0])}")
    return 1


def remark(verdict):
    """What the list says behind a state."""
    if verdict.state == "solved":
        return ""
    if verdict.state == "open":
        count = f"{sum(row.state == RIGHT for row in verdict.rows)} of {len(verdict.rows)} lines right"
        return "; ".join(part for part in (count, verdict.problem) if part)
    wrong = ", ".join(where(row) for row in verdict.wrong_lines)
    return "; ".join(part for part in (wrong, verdict.problem) if part)


def where(row):
    return f"{row.name} (line {row.line})" if row.line else f"{row.name} (returned)"


# ----------------------------------------------------------------------------------------------------------- one exercise


def print_detail(exercise):
    """One exercise, line by line."""
    verdict = judge(exercise)
    print(f"Exercise {exercise.number}, {exercise.name}: {path_of(exercise)}\n")
    if verdict.rows:
        width = max(8, *(len(row.name) for row in verdict.rows))
        shapes = max(5, *(len(str(row.shape)) for row in verdict.rows))
        print(f"  line  {'value':{width}}  {'shape':{shapes}}  verdict      rel. error")
    for row in verdict.rows:
        line = row.line or "-"
        error = f"{row.error:.0e}" if row.error == row.error else ""
        worst = f"  {row.worst}" if row.worst else ""
        print(f"  {line:>4}  {row.name:{width}}  {row.shape!s:{shapes}}  {row.state:11}  {error:10}{worst}".rstrip())
        if row.state in (WRONG, INHERITED):
            print_explanation(exercise, row)
    if verdict.rows:
        print()
    print(closing(exercise, verdict))
    return 0 if verdict.state == "solved" else 1


def print_explanation(exercise, row):
    if row.line:
        print(f"        {code_of(str(exercises.FOLDER / f'{exercise.file}.py'), row.line)}")
    print(f"        {row.says or 'no known mistake has these numbers: compare the line with its forward line once more'}")


def closing(exercise, verdict):
    """What it comes to, and what to do."""
    if verdict.problem:
        return f"{path_of(exercise)}, {verdict.problem}"
    if verdict.state == "solved":
        return "Solved. " + comparison(exercise)
    opened = [row for row in verdict.rows if row.state == OPEN]
    lists = (("Wrong", verdict.wrong_lines), ("Open", opened))
    said = " ".join(f"{word}: {', '.join(where(row) for row in rows)}." for word, rows in lists if rows)
    return said if verdict.wrong_lines or len(opened) == len(verdict.rows) else f"{said} Everything else is right."


def comparison(exercise):
    """The last sentence of the exercise's text."""
    lines = linecache.getlines(str(exercises.FOLDER / f"{exercise.file}.py"))
    return next((line.strip() for line in lines if line.startswith("Compare with")), "").replace(", after solving", "")


if __name__ == "__main__":
    sys.exit(main())
