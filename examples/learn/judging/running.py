"""The functions of a learner's file at work: the forward pass with moved intermediates, and the function that is judged."""

from typing import NamedTuple

import numpy as np

from .hooks import ExerciseError, as_tuple, call, code_of, protected, with_hooks

STEP = 1e-20  # of the complex step


class Way(NamedTuple):
    """One of the lines in which a name is used."""

    code: str
    target: str  # what the line assigns
    share: np.ndarray  # of the gradient, what comes through this line
    slope: np.ndarray  # what that would be for dtarget = 1


class Forward:
    """The forward pass of a file, each of whose intermediates can be moved."""

    def __init__(self, path, namespace, name, arguments):
        self.path, self.arguments = path, arguments
        self.values, self.uses, self.move, self.recording = dict(arguments), {}, None, True
        self.watched, self.seen = None, 0.0
        looks = dict(assigned=self.assigned, used=self.used, open=self.blank)
        self.function, self.hooks = with_hooks(namespace, name, uses=True, **looks)
        self.outputs, self.cache = self.outputs_and_cache()
        self.recording = False

    def blank(self, name):
        raise ExerciseError(f"the forward pass has a blank, {name}: it is given in this exercise")

    def assigned(self, name, value, last):
        if self.recording:
            self.values[name] = value
        if name == self.watched:
            self.seen = value
        if self.move and last and self.move[:2] == (name, None) and name not in self.arguments:
            return moved(value, self.move[2])
        return value

    def used(self, name, value, line):
        if self.recording:
            self.uses.setdefault(name, set()).add(line)
        return moved(value, self.move[2]) if self.move and self.move[:2] == (name, line) else value

    def outputs_and_cache(self):
        arguments = dict(self.arguments)
        if self.move and self.move[1] is None and self.move[0] in arguments:
            arguments[self.move[0]] = moved(arguments[self.move[0]], self.move[2])
        result = call(self.path, self.function, *map(protected, arguments.values()))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise ExerciseError("the forward pass has to return two things, its output and the cache, as it was given")
        return as_tuple(result[0]), result[1]

    def gradient(self, name, douts, line=None):
        """d Σ dout · out / d name, by the complex step; with a line, only through the use of name in that line."""
        gradient = np.empty(np.shape(self.values[name]))
        for k in np.ndindex(gradient.shape):
            self.move = (name, line, k)
            outputs, _ = self.outputs_and_cache()
            gradient[k] = sum(np.sum(dout * np.imag(out)) for dout, out in zip(douts, outputs)) / STEP
        self.move = None
        return gradient

    def slope(self, name, line, target):
        """d Σ target / d name through the use of name in that line."""
        slope, self.watched = np.empty(np.shape(self.values[name])), target
        for k in np.ndindex(slope.shape):
            self.move = (name, line, k)
            self.outputs_and_cache()
            slope[k] = np.sum(np.imag(self.seen)) / STEP
        self.move = self.watched = None
        return slope

    def ways(self, name, douts):
        """A Way for each line that uses name and lets a gradient through."""
        found, file = [], self.function.__code__.co_filename
        for line in sorted(self.uses.get(name, ())):
            share, target = self.gradient(name, douts, line), self.hooks.plain.get(line)
            if share.any():
                slope = self.slope(name, line, target) if target else np.nan
                found.append(Way(code_of(file, line), target, share, slope))
        return found


def moved(value, k):
    z = np.array(value, dtype=complex)
    z[k] += 1j * STEP
    return z


class Attempt:
    """One run of the function that the learner writes; right: name -> the right value.

    A line that fails is left out in favour of the right value, and the function runs once more, so that all others are judged.
    failed: name -> what was said. own_arrays: two names never stand for one array, whatever the file says.
    """

    def __init__(self, path, namespace, name, arguments, right, isolate=False, own_arrays=False):
        self.right, self.isolate, self.own_arrays, self.failed = right, isolate, own_arrays, {}
        _, hooks = with_hooks(namespace, name)
        self.lines, skipped = hooks.lines, set()
        while True:
            self.records, self.copies, self.opened, self.returned, self.problem = {}, {}, set(), None, None
            function, _ = with_hooks(namespace, name, skipped=skipped, assigned=self.assigned, open=self.blank)
            try:
                self.returned = call(path, function, *arguments())
            except ExerciseError as problem:
                self.problem = problem
                name_there = hooks.plain.get(problem.line)
                if name_there in right and problem.line not in skipped:
                    skipped |= {line for line, name in hooks.plain.items() if name == name_there and line >= problem.line}
                    self.failed[name_there] = str(problem)
                    continue
            break
        self.opened -= set(self.failed)

    def assigned(self, name, value, last):
        self.records[name] = value
        self.copies[name] = value.copy() if isinstance(value, np.ndarray) else value
        if not (last and self.isolate and name in self.right):
            return self.copies[name].copy() if self.own_arrays and isinstance(value, np.ndarray) else value
        replaced = self.right[name].copy()
        if isinstance(value, np.ndarray) and isinstance(replaced, np.ndarray):
            replaced.flags.writeable = value.flags.writeable
        return replaced

    def blank(self, name):
        self.opened.add(name)
        if name not in self.right:
            raise ExerciseError(f"{name} is still open, and the judge cannot fill it in")
        return self.right[name].copy()
