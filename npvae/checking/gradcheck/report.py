"""What a check found: a `Report` of `Row`s, as text and as plain values."""

import math
from dataclasses import asdict, dataclass, field

import numpy as np


@dataclass(frozen=True)
class Row:
    """One comparison: error against threshold, with the two numbers (of the worst entry, where index tells it)."""

    name: str
    shape: tuple
    error: float
    threshold: float
    index: tuple | None = None
    analytic: float | None = None
    reference: float | None = None
    note: str = ""
    details: dict = field(default_factory=dict)

    @property
    def passed(self):
        return bool(self.error <= self.threshold)  # False for NaN


@dataclass(frozen=True)
class Report:
    """What a check found: one row per tensor, and problems, sentences of which each one fails the check by itself."""

    check: str
    rows: list
    problems: list = field(default_factory=list)

    @property
    def passed(self):
        return bool(self.rows) and not self.problems and all(row.passed for row in self.rows)

    @property
    def error(self):
        return float(np.max([row.error for row in self.rows]))  # NaN if any is

    @property
    def threshold(self):
        return self.rows[0].threshold

    def __str__(self):
        """One line for one good row, otherwise a table."""
        if self.passed and len(self.rows) == 1:
            row = self.rows[0]
            verdict = f"error {row.error:.1e} <= {row.threshold:.0e}"
            return f"{self.check}: passed, {row.name} {row.shape}, {verdict}{row.note and ', ' + row.note}"
        lines = [["argument", "shape", "worst at", "analytic", "reference", "error", "threshold", "verdict", ""]]
        for row in self.rows:
            texts = ["" if value is None else f"{value:.14e}" for value in (row.analytic, row.reference)]
            index = "" if row.index is None else str(row.index)
            verdict = "ok" if row.passed else "WRONG"
            lines.append(
                [row.name, str(row.shape), index, *texts, f"{row.error:.1e}", f"{row.threshold:.0e}", verdict, row.note]
            )
        widths = [max(map(len, column)) for column in zip(*lines)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        title = f"{self.check}: {'passed' if self.passed else 'FAILED'}"
        return "\n  ".join([title, *table, *(f"! {problem}" for problem in self.problems)])

    def as_dict(self):
        """Plain values for json.dump; NaN and infinity, which JSON does not have, become strings."""
        rows = [{**asdict(row), "passed": row.passed} for row in self.rows]
        return _plain({**asdict(self), "rows": rows, "error": self.error, "threshold": self.threshold, "passed": self.passed})


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
