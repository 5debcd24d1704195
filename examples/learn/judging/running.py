"""The functions of a learner's file at work: the forward pass with moved intermediates, and the function that is judged."""

import numpy as np

from .hooks import ExerciseError, as_tuple, call, code_of, protected, with_hooks

STEP = 1e-20  # of the complex step


class Forward:
    """The forward pass of a file, each of whose intermediates can be moved."""

    def __init__(self, path, namespace, name, arguments):
        self.path, self.arguments = path, arguments
        self.values, self.uses, self.move, self.recording = dict(arguments), {}, None, True
        self.function, _ = with_hooks(namespace, name, uses=True, assigned=self.assigned, used=self.used, open=self.blank)
        self.outputs, self.cache = self.outputs_and_cache()
        self.recording = False

    def blank(self, name):
        raise ExerciseError(f"the forward pass has a blank, {name}: it is given in this exercise")

    def assigned(self, name, value, last):
        if self.recording:
            self.values[name] = value
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

    def parts(self, name, douts):
        """Code line -> its share in the gradient of name, where there is one."""
        shares = {}
        for line in sorted(self.uses.get(name, ())):
            share = self.gradient(name, douts, line)
            if share.any():
                shares[code_of(self.function.__code__.co_filename, line)] = share
        return shares


def moved(value, k):
    z = np.array(value, dtype=complex)
    z[k] += 1j * STEP
    return z


class Attempt:
    """One run of the function that the learner writes; right: name -> the right value.

    A line that fails is left out in favour of the right value, and the function runs once more, so that all others are judged.
    failed: name -> what was said.
    """

    def __init__(self, path, namespace, name, arguments, right, isolate=False):
        self.right, self.isolate, self.failed = right, isolate, {}
        _, hooks = with_hooks(namespace, name)
        self.lines, skipped = hooks.lines, set()
        while True:
            self.records, self.opened, self.returned, self.problem = {}, set(), None, None
            function, _ = with_hooks(namespace, name, skipped=skipped, assigned=self.assigned, open=self.blank)
            try:
                self.returned = call(path, function, *arguments())
            except ExerciseError as problem:
                self.problem = problem
                name_there = hooks.plain.get(problem.line)
                if name_there in right and problem.line not in skipped:
                    skipped.add(problem.line)
                    self.failed[name_there] = str(problem)
                    continue
            break
        self.opened -= set(self.failed)

    def assigned(self, name, value, last):
        self.records[name] = value
        return self.right[name].copy() if last and self.isolate and name in self.right else value

    def blank(self, name):
        self.opened.add(name)
        if name not in self.right:
            raise ExerciseError(f"{name} is still open, and the judge cannot fill it in")
        return self.right[name].copy()
