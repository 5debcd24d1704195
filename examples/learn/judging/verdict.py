"""The verdict on one exercise: each intermediate and each returned gradient against the complex step.

The forward of the learner's own file runs with one number of one intermediate moved along the imaginary axis; that gives the
gradient with respect to every intermediate. The backward then runs twice: as it stands (with the right value where a line is
still open), and once more with every gradient replaced by the right one after it has been looked at. In the second run each
line starts from right numbers, so that a line is not blamed for what came from above. A third run, with a new array for each
name, tells whether a line is wrong only because an array that it uses was changed in place.
"""

from typing import NamedTuple

import numpy as np

from . import exercises
from .findings import error_of, finding, fits, number_array, worst_entry
from .hooks import ExerciseError, as_tuple, call, load, protected, with_hooks
from .mistakes import named_mistake
from .running import Attempt, Forward

RIGHT, WRONG, INHERITED, OPEN, NOT_REACHED = "right", "wrong", "wrong input", "open", "not reached"
NEW_ARRAY = "where two names stand for one array, make a new one"


class Row(NamedTuple):
    name: str
    line: int
    shape: tuple
    state: str
    error: float = np.nan
    worst: str = ""
    says: str = ""


class Verdict(NamedTuple):
    state: str  # solved, open or wrong
    rows: list
    problem: str = ""  # one line on what stopped it

    @property
    def wrong_lines(self):
        return [row for row in self.rows if row.state == WRONG]


def judge(exercise, path=None):
    """Verdict on the file of an exercise, or on another one in its place."""
    path = path or exercises.FOLDER / f"{exercise.file}.py"
    try:
        namespace = load(path)
        return (judge_backward if exercise.gradients else judge_forward)(exercise, path, namespace)
    except ExerciseError as problem:
        return Verdict(WRONG, [], str(problem))


def judge_backward(exercise, path, namespace):
    forward = Forward(path, namespace, f"{exercise.op}_forward", exercise.arguments)
    expected = as_tuple(exercise.right(*exercise.arguments.values()))
    if len(expected) != len(forward.outputs) or not all(map(fits, forward.outputs, expected)):
        raise ExerciseError("the forward pass gives other numbers than it was given with: put its lines back")
    rng = np.random.default_rng(100 + exercise.number)
    douts = [protected(np.asarray(rng.standard_normal(np.shape(out)))) for out in forward.outputs]
    douts = [dout if dout.shape else np.float64(dout) for dout in douts]
    cache = protected(call(path, namespace[f"{exercise.op}_forward"], *map(protected, exercise.arguments.values()))[1])

    _, hooks = with_hooks(namespace, exercise.function)
    names = [name for name in hooks.lines if name[0] == "d" and is_float(forward.values.get(name[1:]))]
    outputs = [f"d{name}" for name in exercise.gradients]
    right = {name: forward.gradient(name[1:], douts) for name in dict.fromkeys([*names, *outputs])}

    def given_arguments():
        return (*douts, cache)

    hows = ((False, False), (True, False), (True, True))
    attempts = [Attempt(path, namespace, exercise.function, given_arguments, right, *how) for how in hows]
    given = {f"d{name}": dout for name, dout in zip(exercise.outputs, douts)}

    def says(name, value):
        gradients = {f"d{key}": forward.gradient(key, douts) for key, held in forward.values.items() if is_float(held)}
        known = {**forward.values, **gradients, **given}
        ones = [np.ones_like(dout) for dout in douts]
        return named_mistake(exercise, name, value, known) or finding(
            name[1:], value, right[name], known, lambda: forward.ways(name[1:], douts),
            lambda: forward.gradient(name[1:], ones),
        )  # fmt: skip

    return verdict(exercise, attempts, outputs, right, says, [returned(attempt, outputs) for attempt in attempts])


def judge_forward(exercise, path, namespace):
    expected = dict(zip(exercise.outputs, as_tuple(exercise.right(*exercise.arguments.values()))))
    known = {"np": np, **exercise.arguments}
    for name, expression in exercise.intermediates.items():
        known[name] = eval(expression, known)
    right = {**{name: known[name] for name in exercise.intermediates}, **expected}
    fresh = {name: value for name, value in right.items() if name not in exercise.arguments}
    attempts, results = [], []
    for isolate in (False, True):
        arguments = {}

        def fresh_arguments(arguments=arguments):
            for name, value in exercise.arguments.items():
                arguments[name] = value.copy() if name in expected else protected(value)
            return arguments.values()

        attempt = Attempt(path, namespace, exercise.function, fresh_arguments, fresh, isolate)
        attempts.append(attempt)
        in_place = [name for name in exercise.outputs if name in arguments]
        results.append({name: arguments[name] for name in in_place} if in_place else value_of(attempt, exercise.outputs[0]))

    def says(name, value):
        context = {**exercise.arguments, **{key: value for key, value in fresh.items() if key != name}}
        return named_mistake(exercise, name, value, context) or finding(name, value, right[name], context)

    return verdict(exercise, attempts, exercise.outputs, right, says, results)


def is_float(value):
    return value is not None and np.asarray(value).dtype.kind == "f"


def returned(attempt, outputs):
    """Name -> what the backward returns under it; a ExerciseError of the attempt where there are too few or too many."""
    if attempt.problem or attempt.returned is ...:
        return {}
    values, needs = as_tuple(attempt.returned), f"return {', '.join(outputs)}"
    if attempt.returned is None or len(values) != len(outputs):
        count = "nothing" if attempt.returned is None else f"{len(values)} value{'s' * (len(values) > 1)}"
        attempt.problem = ExerciseError(f"the backward pass returns {count}, and needs: {needs}")
        return {}
    return dict(zip(outputs, values))


def value_of(attempt, output):
    """The output of a forward pass that returns it with a cache."""
    if attempt.problem is None and not (isinstance(attempt.returned, tuple) and len(attempt.returned) == 2):
        attempt.problem = ExerciseError(f"the function has to return {output} and the cache, as it was given")
    return {} if attempt.problem else {output: attempt.returned[0]}


def verdict(exercise, attempts, outputs, right, says, results):
    """The rows, in the order of the file, and what they come to."""
    first, rows = attempts[0], []
    order = sorted((name for name in right if name in first.lines), key=first.lines.get)
    for name in order + [name for name in outputs if name not in first.lines]:
        if first.opened and name in exercise.arguments:
            continue  # an array that is changed in place, by lines that are given: not judged before the blanks are filled
        rows.append(row_of(name, exercise, attempts, outputs, right, says, results, rows))
    states = {row.state for row in rows}
    problem = str(first.problem) if first.problem else ""
    blanks_of_their_own = first.opened - set(right)
    if (OPEN in states and not problem and not states & {WRONG, INHERITED}) or blanks_of_their_own:
        return Verdict(OPEN, rows, problem)
    return Verdict("solved" if states <= {RIGHT} and not problem else WRONG, rows, problem)


def row_of(name, exercise, attempts, outputs, right, says, results, above):
    """What the attempts say of one name; above: the rows before it."""
    first, second, *with_own_arrays = attempts
    line, wanted = first.lines.get(name, 0), np.asarray(right[name])
    if name in first.opened:
        return Row(name, line, wanted.shape, OPEN)
    if name in second.failed:
        return Row(name, line, wanted.shape, WRONG, says=second.failed[name])
    own = results[0].get(name, first.records.get(name))
    changed = changed_in_place(first, right)
    if name in changed and name not in results[0]:
        own = first.copies[name]  # a fault only where another line suffers from it
    isolated = results[1].get(name) if name in exercise.arguments else second.records.get(name, results[1].get(name))
    if name in first.failed:
        return row_of_failed(name, line, first.failed[name], isolated, wanted, above, says, exercise.entrywise)
    row = row_of_values(name, line, own, isolated, right, outputs, says, exercise.entrywise)
    if name in changed and row.state != RIGHT:
        return row._replace(state=WRONG, says=f"this line is right, and what it made is changed in place later: {NEW_ARRAY}")
    if changed and row.state == WRONG and any(fits_in(attempt.records.get(name), wanted) for attempt in with_own_arrays):
        return row._replace(says=f"{changed[0]} is changed in place before it is used here: {NEW_ARRAY}")
    return row


def changed_in_place(attempt, right):
    """The names that were right after their own line, and are not at the end."""
    names = [name for name in attempt.copies if name in right and fits_in(attempt.copies[name], right[name])]
    return [name for name in names if not fits_in(attempt.records[name], right[name])]


def fits_in(value, right):
    array = number_array(value)
    return array is not None and fits(array, np.asarray(right))


def row_of_failed(name, line, failed, isolated, wanted, above, says, entrywise):
    """The row of a line that fails with what the learner wrote above it, and runs with the right numbers in their place."""
    alone = number_array(isolated) if isolated is not None else None
    if alone is not None and not fits(alone, wanted, entrywise):
        return Row(name, line, wanted.shape, WRONG, says=says(name, alone))
    if any(row.state in (WRONG, INHERITED) for row in above):
        said = f"it fails because of what is wrong above ({failed})"
        return Row(name, line, wanted.shape, INHERITED, says=said)
    return Row(name, line, wanted.shape, WRONG, says=failed)


def row_of_values(name, line, own, isolated, right, outputs, says, entrywise):
    wanted = np.asarray(right[name])
    if own is None and isolated is None:
        return Row(name, line, wanted.shape, NOT_REACHED)
    judged = [number_array(value) for value in (own, isolated) if value is not None]
    if any(value is None for value in judged):
        return Row(name, line, wanted.shape, WRONG, says=f"it is {type(own).__name__}, and has to be an array of numbers")
    value, alone = judged[0], judged[-1]
    error = error_of(value, wanted, entrywise) if value.shape == wanted.shape else np.nan
    if fits(value, wanted, entrywise):
        return Row(name, line, wanted.shape, RIGHT, error)
    worst = worst_entry(value, wanted, entrywise) if value.shape == wanted.shape else f"yours has the shape {value.shape}"
    other = [key for key in outputs if key != name and name in outputs and fits(value, right[key])]
    if other and (fits(alone, wanted) or not line):
        said = f"{other[0]} is returned in the place of {name}: the order is {', '.join(outputs)}"
        return Row(name, line, wanted.shape, WRONG, error, worst, said)
    if fits(alone, wanted, entrywise):
        said = "the line itself is right: it goes on with what is wrong above"
        return Row(name, line, wanted.shape, INHERITED, error, worst, said)
    return Row(name, line, wanted.shape, WRONG, error, worst, says(name, alone))
