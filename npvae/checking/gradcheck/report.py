"""What a check found: a `Report` of `Row`s, as text and as plain values."""

import math
from dataclasses import asdict, dataclass, field

import numpy as np

INCONCLUSIVE = "inconclusive: "  # how a problem begins that leaves the verdict open


@dataclass(frozen=True)
class Row:
    """One comparison: error against threshold, with the two numbers (of the worst entry, where index tells it).

    doubt says why there is no verdict although nothing wrong was seen, "" where there is one.
    """

    name: str
    shape: tuple
    error: float
    threshold: float
    index: tuple | None = None
    analytic: float | None = None
    reference: float | None = None
    note: str = ""
    details: dict = field(default_factory=dict)
    doubt: str = ""

    @property
    def verdict(self):
        """ "passed", "wrong" or "inconclusive"."""
        if not self.error <= self.threshold:  # NaN as well
            return "wrong"
        return "inconclusive" if self.doubt else "passed"

    @property
    def passed(self):
        return self.verdict == "passed"

    @property
    def wrong(self):
        return self.verdict == "wrong"


@dataclass(frozen=True)
class Report:
    """What a check found: one row per tensor; problems, sentences of which each one fails the check by itself (or leaves it
    open, where it begins with "inconclusive: "); and notes, sentences that are good to know."""

    check: str
    rows: list
    problems: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    @property
    def verdict(self):
        """ "wrong" if anything is, else "inconclusive" if anything is, else "passed"."""
        verdicts = [row.verdict for row in self.rows] or ["inconclusive"]
        verdicts += ["inconclusive" if problem.startswith(INCONCLUSIVE) else "wrong" for problem in self.problems]
        return next((verdict for verdict in ("wrong", "inconclusive") if verdict in verdicts), "passed")

    @property
    def passed(self):
        return self.verdict == "passed"

    @property
    def wrong(self):
        return self.verdict == "wrong"

    @property
    def error(self):
        return float(np.max([row.error for row in self.rows])) if self.rows else math.nan  # NaN if any is

    @property
    def threshold(self):
        return self.rows[0].threshold if self.rows else math.nan

    def __str__(self):
        """One line for one good row, otherwise a table."""
        if self.passed and len(self.rows) == 1 and not self.notes:
            row = self.rows[0]
            verdict = f"error {row.error:.1e} <= {row.threshold:.0e}"
            return f"{self.check}: passed, {row.name} {row.shape}, {verdict}{row.note and ', ' + row.note}"
        title = {"passed": "passed", "wrong": "FAILED", "inconclusive": "FAILED, inconclusive"}[self.verdict]
        doubts = [f"! {INCONCLUSIVE}{row.name}: {row.doubt}" for row in self.rows if row.doubt and not row.wrong]
        sentences = [*doubts, *(f"! {problem}" for problem in self.problems), *(f"- {note}" for note in self.notes)]
        return "\n  ".join([f"{self.check}: {title}", *table(self.rows), *sentences])

    def as_dict(self):
        """Plain values for json.dump; NaN and infinity, which JSON does not have, become strings."""
        rows = [{**asdict(row), "passed": row.passed, "verdict": row.verdict} for row in self.rows]
        summary = {"error": self.error, "threshold": self.threshold, "passed": self.passed, "verdict": self.verdict}
        return _plain({**asdict(self), "rows": rows, **summary})


def table(rows):
    """The rows as lines of text with aligned columns, under a line of headings; nothing for no rows."""
    if not rows:
        return []
    lines = [["argument", "shape", "worst at", "analytic", "reference", "error", "threshold", "verdict", ""]]
    words = {"passed": "ok", "wrong": "WRONG", "inconclusive": "open"}
    for row in rows:
        texts = ["" if value is None else f"{value:.14e}" for value in (row.analytic, row.reference)]
        index = "" if row.index is None else str(row.index)
        numbers = [f"{row.error:.1e}", f"{row.threshold:.0e}"]
        lines.append([row.name, str(row.shape), index, *texts, *numbers, words[row.verdict], row.note])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def conclude(report, assert_passed):
    """The end of every check: AssertionError with the report's text if it has not passed and assert_passed, else the report."""
    if assert_passed and not report.passed:
        raise AssertionError(str(report))
    return report


def _plain(value):
    """value with lists for tuples, and NaN and infinity as strings."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
