"""A learner's file: read it, run one of its functions, and look at every assignment on the way.

The source of the function is parsed, and after each assignment `name = ...` a line `name = __assigned__("name", name, last)` is
put in, where last says whether the name is assigned for the last time (never in a loop). So a value can be recorded, moved
along the imaginary axis, or replaced. Line numbers stay those of the file.
"""

import ast
import linecache
import re
import traceback
import warnings

import numpy as np

STATEMENTS = (ast.Assign, ast.AugAssign, ast.AnnAssign)


class ExerciseError(Exception):
    """What stops a file from being judged: one line of text, and where in the file."""

    def __init__(self, text, line=None):
        super().__init__(f"line {line}: {text}" if line else text)
        self.line = line


def load(path):
    """The names that the file defines."""
    try:
        text = path.read_text(encoding="utf-8")
        code = compile(text, str(path), "exec")
    except SyntaxError as error:
        raise ExerciseError(f"Python cannot read this line ({error.msg})", error.lineno) from error
    except ValueError as error:
        raise ExerciseError(f"Python cannot read this file ({error})") from error
    except OSError as error:
        raise ExerciseError(f"there is no file {path}") from error
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    namespace = {"__name__": path.stem, "__file__": str(path)}
    call(path, exec, code, namespace)
    return namespace


def call(path, function, *arguments):
    """What the function returns; an error in it becomes an ExerciseError with its line in the file."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments)
    except ExerciseError:
        raise
    except (Exception, SystemExit) as error:
        places = [place for place in traceback.walk_tb(error.__traceback__) if place[0].f_code.co_filename == str(path)]
        frame, line = places[-1] if places else (None, None)  # the deepest line of the file that was at work
        code = code_of(str(path), line) if line else ""
        raise ExerciseError(explained(error, shapes_in(frame, line), code), line) from error


def shapes_in(frame, line):
    """The arrays that a line names, with their shapes, as a text."""
    if frame is None:
        return ""
    code = code_of(frame.f_code.co_filename, line).partition("=")[2]
    names = dict.fromkeys(re.findall(r"[A-Za-z_]\w*", code))
    values = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
    return ", ".join(f"{name} {value.shape}" for name, value in values.items() if isinstance(value, np.ndarray))


def code_of(file, line):
    """The code of a line, without its comment."""
    return linecache.getline(file, line).split("  #")[0].strip()


def explained(error, shapes, code):
    text = (str(error).strip() or "no message").split("\n")[0]
    if "truth value of an array" in text:
        return "max, if and `and` work on single numbers: for arrays there are np.maximum and np.where"
    if isinstance(error, TypeError) and ("for ^" in text or "bitwise_xor" in text):
        return "powers are written ** in Python: ^ is something else"
    if isinstance(error, TypeError) and re.search(r"(concatenate|stack)\(\w", code):
        return "the arrays go in one list: np.concatenate([a, b], axis=1)"
    if "read-only" in text:
        return "this writes into an array that the function was handed (an argument or the cache): make a new array"
    if isinstance(error, ValueError) and ("broadcast" in text or "mismatch" in text or "not aligned" in text):
        return f"the shapes in this line do not fit: {shapes or text}"
    return f"{type(error).__name__}: {text}"


# ------------------------------------------------------------------------------------------------------- the source of it


def source_of(namespace, name):
    """The function of this name, and its syntax tree."""
    function = namespace.get(name)
    if not hasattr(function, "__code__"):
        raise ExerciseError(f"the file has no function {name}: keep its name")
    code = function.__code__
    tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name and node.lineno >= code.co_firstlineno:
            return function, node
    raise ExerciseError(f"{name} is not written with def", code.co_firstlineno)


def root_names(target):
    """The names that an assignment to this target changes: W for W, W[0] and W[0][1]; several for a tuple."""
    if isinstance(target, ast.Name):
        return [target.id]
    if isinstance(target, (ast.Tuple, ast.List)):
        return [name for element in target.elts for name in root_names(element)]
    return root_names(target.value) if isinstance(target, (ast.Subscript, ast.Starred)) else []


def assigned_names(statement):
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [name for target in targets for name in root_names(target)]


def assignments(node):
    """(name, place) of each assignment below a node."""
    statements = [part for part in ast.walk(node) if isinstance(part, STATEMENTS)]
    return [(name, place_of(statement)) for statement in statements for name in assigned_names(statement)]


def place_of(statement):
    return statement.lineno, statement.col_offset


def lines_of(node):
    return range(node.lineno, node.end_lineno + 1)


def is_blank(node):
    return isinstance(node, ast.Constant) and node.value is ...


class Hooks(ast.NodeTransformer):
    """Puts the calls of __assigned__ and __open__ into a function, and with uses=True of __used__ around each name.

    skipped: numbers of lines that are treated as blanks; what they change in place is set as a whole.
    """

    def __init__(self, node, uses, skipped):
        self.uses, self.skipped = uses, skipped
        self.last = {}  # name -> (line, column) where it is assigned last
        self.plain = {}  # line -> the one name that it assigns, as a whole or in part
        for name, place in assignments(node):
            self.last[name] = max(place, self.last.get(name, place))
        self.lines = {name: line for name, (line, _) in self.last.items()}
        for statement in ast.walk(node):
            if isinstance(statement, STATEMENTS) and len(assigned_names(statement)) == 1:
                self.plain.update(dict.fromkeys(lines_of(statement), assigned_names(statement)[0]))
        loops = [loop for loop in ast.walk(node) if isinstance(loop, (ast.For, ast.While))]
        self.in_loops = {pair for loop in loops for pair in assignments(loop)}

    def visit(self, node):
        if isinstance(node, STATEMENTS) and node.value is not None:
            return self.with_looks(node)
        if self.uses and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            return hook("__used__", node.id, node, node.lineno)
        return self.generic_visit(node)

    def with_looks(self, node):
        """The statement, its blanks filled by __open__, and a look at each name that it assigns."""
        names = assigned_names(node)
        if names and self.skipped.intersection(lines_of(node)):
            node = ast.copy_location(ast.Assign([ast.Name(names[0], ast.Store())], hook("__open__", names[0])), node)
        elif names and is_blank(node.value):
            node.value = hook("__open__", names[0])
        elif isinstance(node.value, ast.Tuple) and len(names) == len(node.value.elts) and any(map(is_blank, node.value.elts)):
            node.value.elts = [hook("__open__", name) if is_blank(part) else part
                               for name, part in zip(names, node.value.elts)]  # fmt: skip
        else:
            node.value = self.visit(node.value)
        looks = []
        for name in names:
            last = place_of(node) == self.last[name] and (name, place_of(node)) not in self.in_loops
            value = hook("__assigned__", name, loaded(name), last)
            looks.append(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node))
        return [node, *looks]


def loaded(name):
    return ast.Name(name, ast.Load())


def hook(function, *arguments):
    parts = [part if isinstance(part, ast.AST) else ast.Constant(part) for part in arguments]
    return ast.Call(loaded(function), parts, [])


def with_hooks(namespace, name, uses=False, skipped=frozenset(), **hooks):
    """The function of this name with the hooks put in, and what is known of its assignments."""
    function, node = source_of(namespace, name)
    node.decorator_list = []
    hooks_put_in = Hooks(node, uses, skipped)
    node.body = [part for statement in node.body for part in listed(hooks_put_in.visit(statement))]
    module = ast.fix_missing_locations(ast.Module([node], []))
    inside = {**function.__globals__, **{f"__{key}__": value for key, value in hooks.items()}}
    exec(compile(module, function.__code__.co_filename, "exec"), inside)
    return inside[node.name], hooks_put_in


def listed(value):
    return value if isinstance(value, list) else [value]


# ------------------------------------------------------------------------------------------------------------- the arrays


def protected(value):
    """A copy in which nothing can be written: arrays, and tuples, lists and dicts of them."""
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
    elif isinstance(value, (tuple, list)):
        value = type(value)(protected(part) for part in value)
    elif isinstance(value, dict):
        value = {key: protected(part) for key, part in value.items()}
    return value


def as_tuple(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
