"""What npvae's gradient checks say, word for word, to small functions made of +, −, ×, ÷, √ and rounding, which give nearly the
same bits on every machine.

    python tests/support/reports.py > tests/support/reports.json      after a change that is meant
"""

import json
import math
import re
import warnings

import numpy as np

from npvae.checking import gradcheck

T = np.array([[0.5, -1.25, 2.0], [1.5, 0.75, -0.375]])
V = np.array([1.0, 0.25, -0.5, 2.0])
LONG = np.linspace(-1, 1, 40) * np.linspace(1, 3, 40)
ONES = np.ones(4)


def cubic(t):
    return (t * t * t).sum() + 2 * (t * t).sum()


def dcubic(t):
    return 3 * t * t + 4 * t


def rational(t):
    return (1 / (1 + t * t)).sum()


def drational(t):
    return -2 * t / (1 + t * t) ** 2


def relu(t):
    return np.where(t.real > 0, t, 0).sum()


def two(p):
    return (p["W"] * p["W"]).sum() * p["b"].sum() + cubic(p["b"])


def dtwo(p):
    return {"W": 2 * p["W"] * p["b"].sum(), "b": (p["W"] ** 2).sum() + dcubic(p["b"])}


def one_wrong(grad, k, factor):
    grad = np.array(grad, dtype=float)
    grad[k] *= factor
    return grad


def writing(t):
    t *= 2
    return (t * t).sum() / 4


def inside(kind):
    return lambda t: float((t.real.astype(kind) ** 2).sum())


def with_noise():
    rng = np.random.default_rng(0)
    return lambda t: (t * t).sum() + 1e-3 * rng.random()


def walled(t):
    if np.any(t.real > 2.0):
        raise ValueError("too large")
    return (t * t).sum()


P = {"W": T, "b": V}
TIED = np.array([0.0, 1.0, -2.0, 0.0])
EQUAL = np.array([1.0, 3.0, 3.0, 2.0])
SCALARS = {  # name: f, theta, grad, options
    "cubic": (cubic, T, dcubic(T), {}),
    "cubic, one entry off by 1e-3": (cubic, T, one_wrong(dcubic(T), (1, 2), 1.001), {}),
    "cubic, one entry off by 1e-5": (cubic, T, one_wrong(dcubic(T), (0, 1), 1 + 1e-5), {}),
    "cubic, one entry off by 1e-9": (cubic, T, one_wrong(dcubic(T), (0, 1), 1 + 1e-9), {}),
    "cubic, off by 1e-5 within threshold": (cubic, T, dcubic(T) * (1 + 1e-5), {"threshold": 1e-4}),
    "cubic, off by 1e-3 within atol": (cubic, T, dcubic(T) + 1e-3, {"atol": 2e-3}),
    "cubic, off by 1e-3 beyond atol": (cubic, T, dcubic(T) + 1e-3, {"atol": 0.5e-3}),
    "cubic doubled": (cubic, T, 2 * dcubic(T), {}),
    "cubic, sign": (cubic, T, -dcubic(T), {}),
    "cubic, zero": (cubic, T, np.zeros_like(T), {}),
    "cubic in float32": (cubic, T, dcubic(T).astype(np.float32), {}),
    "cubic in float32, doubled": (cubic, T, (2 * dcubic(T)).astype(np.float32), {}),
    "cubic rounded": (cubic, T, np.round(dcubic(T)).astype(int), {}),
    "square transposed": (
        lambda t: (t @ np.array([[1.0, 2.0], [3.0, 5.0]]) * t).sum(),
        T[:, :2],
        (T[:, :2] @ np.array([[2.0, 5.0], [5.0, 10.0]])).T,
        {},
    ),
    "cubic with a missing gradient": (two, P, {"W": dtwo(P)["W"]}, {}),
    "cubic of another shape": (cubic, T, dcubic(T).T, {}),
    "cubic with NaN": (cubic, T, one_wrong(dcubic(T), (0, 0), math.nan), {}),
    "cubic that is NaN": (lambda t: cubic(t) * math.nan, T, dcubic(T), {}),
    "rational": (rational, V, drational(V), {}),
    "rational without the square": (rational, V, -2 * V / (1 + V * V), {}),
    "rational of many": (rational, LONG, drational(LONG), {}),
    "rational of many, one off": (rational, LONG, one_wrong(drational(LONG), 17, 1.01), {}),
    "rational of many, all off": (rational, LONG, 0.5 * drational(LONG), {}),
    "tensors": (two, P, dtwo(P), {}),
    "tensors, one wrong": (two, P, {**dtwo(P), "W": one_wrong(dtwo(P)["W"], (1, 1), 0.9)}, {}),
    "tensors in a list": (lambda p: two({"W": p[0], "b": p[1]}), [T, V], list(dtwo(P).values()), {}),
    "norm": (lambda t: np.sqrt((t * t).sum()), V, V / np.sqrt((V * V).sum()), {}),
    "norm by linalg": (lambda t: np.linalg.norm(t), V, V / np.sqrt((V * V).sum()), {}),
    "norm by linalg, halved": (lambda t: np.linalg.norm(t), V, V / np.sqrt((V * V).sum()) / 2, {}),
    "weak penalty lost": (lambda t: cubic(t) + 1e-6 * np.abs(t).sum(), V, dcubic(V), {}),
    "weak penalty": (lambda t: cubic(t) + 1e-6 * np.abs(t).sum(), V, dcubic(V) + 1e-6 * np.sign(V), {}),
    "very weak penalty": (lambda t: cubic(t) + 1e-11 * np.abs(t).sum(), V, dcubic(V) + 1e-11 * np.sign(V), {}),
    "modulus": (lambda t: np.abs(t).sum(), V, np.sign(V), {}),
    "modulus at zero": (lambda t: np.abs(t).sum() + cubic(t), TIED, np.sign(TIED) + dcubic(TIED), {}),
    "modulus at zero, beyond": (
        lambda t: np.abs(t).sum() + cubic(t),
        TIED,
        np.array([3.0, 0, 0, 0]) + np.sign(TIED) + dcubic(TIED),
        {},
    ),
    "relu at zero": (relu, TIED, (TIED > 0) * 1.0, {}),
    "relu at zero, one": (relu, TIED, (TIED >= 0) * 1.0, {}),
    "relu at zero, two": (relu, TIED, (TIED > 0) * 1.0 + 2 * (TIED == 0), {}),
    "relu, wrong elsewhere": (relu, TIED, (TIED > 0) * 2.0, {}),
    "relu of products at zero": (
        lambda w: relu(np.array([1.0, -2.0, 0.5]) * w[0]) + 3 * w[1],
        np.array([0.0, 1.0]),
        np.array([0.0, 3.0]),
        {},
    ),
    "all at zero": (relu, np.zeros(3), np.zeros(3), {}),
    "maximum of equals": (
        lambda t: np.max(t.real) if t.dtype.kind != "c" else t[np.argmax(t.real)],
        EQUAL,
        np.array([0.0, 0.5, 0.5, 0]),
        {},
    ),
    "maximum of equals, both": (
        lambda t: np.max(t.real) if t.dtype.kind != "c" else t[np.argmax(t.real)],
        EQUAL,
        np.array([0.0, 1, 1, 0]),
        {},
    ),
    "maximum of equals, first": (
        lambda t: np.max(t.real) if t.dtype.kind != "c" else t[np.argmax(t.real)],
        EQUAL,
        np.array([0.0, 1, 0, 0]),
        {},
    ),
    "float32 inside": (inside(np.float32), V, 2 * V, {}),
    "float32 inside, off by a tenth": (inside(np.float32), V, 2.2 * V, {}),
    "float32 inside, two thresholds": (inside(np.float32), V, 2 * V * (1 + 1e-4), {"threshold": 1e-3}),
    "float16 inside": (inside(np.float16), V, 2 * V, {}),
    "noise": (with_noise, V, 2 * V, {}),
    "writes into theta": (writing, V, 2 * V, {}),
    "optimum": (lambda t: ((t - V) * (t - V)).sum() + 3, V, np.zeros(4), {}),
    "optimum, rounding": (lambda t: ((t - V / 3) * (t - V / 3)).sum() + 3, V / 3, np.full(4, 1e-17), {}),
    "optimum, wrong": (lambda t: ((t - V) * (t - V)).sum() + 3, V, np.full(4, 1e-3), {}),
    "no dependence": (lambda t: 0 * t.sum() + 5.0, V, np.zeros(4), {}),
    "cancels": (lambda t: (1e9 + t * t).sum() - 4e9, V, 2 * V, {}),
    "cancels more": (lambda t: (1e15 + t * t).sum() - 4e15, V, 2 * V, {}),
    "cancels, wrong": (lambda t: (1e9 + t * t).sum() - 4e9, V, 3 * V, {}),
    "tiny": (lambda t: (t * t).sum(), 1e-9 * V, 2e-9 * V, {}),
    "huge": (lambda t: (t * t).sum(), 1e9 * V, 2e9 * V, {}),
    "tiny and huge": (lambda t: (t * t).sum(), np.array([1e-8, 1.0, 1e8]), np.array([2e-8, 2.0, 2e8]), {}),
    "tiny and huge, tiny wrong": (
        lambda t: (t * t / np.array([1e-16, 1, 1e16])).sum(),
        np.array([1e-8, 1.0, 1e8]),
        np.array([3e8, 2.0, 2e-8]),
        {},
    ),
    "wall": (walled, np.array([0.5, 2.0, 1.0]), np.array([1.0, 4.0, 2.0]), {}),
    "wall all around": (lambda t: (t * t).sum() if np.all(t == V) else math.nan, V, 2 * V, {}),
    "returns both": (lambda t: (cubic(t), dcubic(t)), V, None, {}),
    "returns both, wrong": (lambda t: (cubic(t), 2 * dcubic(t)), V, None, {}),
    "gradient as a function": (cubic, V, dcubic, {}),
    "loss of shape (1, 1)": (lambda t: cubic(t).reshape(1, 1), V, dcubic(V), {}),
    "integers": (cubic, np.array([1, 2, 3]), dcubic(np.array([1.0, 2.0, 3.0])), {}),
    "one number": (lambda t: t * t, np.array(1.5), np.array(3.0), {}),
    "one number, wrong": (lambda t: t * t, np.array(1.5), np.array(3.5), {}),
    "seed 4": (rational, LONG, one_wrong(drational(LONG), 3, 1 + 1e-7), {"seed": 4}),
    "two directions": (rational, LONG, one_wrong(drational(LONG), 3, 1 + 1e-7), {"n_directions": 2}),
    "kinks of one's own": (relu, V, (V > 0) * 1.0, {"kinks": lambda t: t}),
}
A = np.array([[2.0, 1.0, 0.5], [-1.0, 3.0, 0.25]])
B = np.array([[1.0, -0.5], [0.25, 2.0], [1.5, 1.0]])
C = np.array([0.25, -0.75])


def affine(x, W, b):
    return x @ W + b, (x, W)


def affine_back(dout, cache):
    x, W = cache
    return dout @ W.T, x.T @ dout, dout.sum(axis=0)


def square(x):
    return x * x, x


def gate(x, y):
    return np.where(x.real > 0, x * y, 0), (x, y)


def gate_back(dout, cache):
    x, y = cache
    return np.where(x > 0, dout * y, 0), np.where(x > 0, dout * x, 0)


class Layer:
    """Keeps its input on itself, and its gradient, which it adds to."""

    def __init__(self):
        self.dx = 0.0

    def forward(self, x):
        self.x = x
        return x * x, None

    def backward(self, dout, cache):
        return 2 * dout * self.x

    def adding(self, dout, cache):
        self.dx = self.dx + 2 * dout * self.x
        return self.dx


def dict_forward(p, x):
    return x * p["a"] + p["b"]["c"], (p, x)


def dict_back(dout, cache):
    p, x = cache
    return {"a": (dout * x).sum(axis=0), "b": {"c": dout.sum(axis=0)}}, dout * p["a"]


PAIRS = {  # name: forward, backward, arguments, options
    "affine": (affine, affine_back, (A, B, C), {}),
    "affine without a transpose": (lambda x, W: (x @ W, (x, W)), lambda d, c: (d @ c[1], c[0].T @ d), (A[:, :2], B[:2]), {}),
    "affine with a mean": (affine, lambda d, c: (*affine_back(d, c)[:2], d.mean(axis=0)), (A, B, C), {}),
    "affine, two of three": (affine, lambda d, c: affine_back(d, c)[1:], (A, B, C), {"wrt": ("W", "b")}),
    "affine, skipped": (affine, lambda d, c: (None, *affine_back(d, c)[1:]), (A, B, C), {}),
    "square": (square, lambda d, x: 2 * d * x, (T,), {}),
    "square without dout": (square, lambda d, x: 2 * x, (T,), {}),
    "square with the square of dout": (square, lambda d, x: 2 * d * d * x, (T,), {}),
    "square, one entry off": (square, lambda d, x: one_wrong(2 * d * x, (1, 1), 1.0001), (T,), {}),
    "square, off by 1e-9 within threshold": (square, lambda d, x: 2 * d * x * (1 + 1e-9), (T,), {"threshold": 1e-8}),
    "square, off within atol": (square, lambda d, x: 2 * d * x + 1e-6, (T,), {"atol": 2e-6}),
    "square in float32": (square, lambda d, x: (2 * d * x).astype(np.float32), (T,), {}),
    "square in float32, strict": (square, lambda d, x: (2 * d * x).astype(np.float32), (T,), {"strict": True}),
    "square of another shape": (square, lambda d, x: (2 * d * x).T, (T,), {}),
    "square with NaN": (square, lambda d, x: one_wrong(2 * d * x, (0, 0), math.nan), (T,), {}),
    "square that writes into dout": (square, lambda d, x: np.multiply(d, 2 * x, out=d), (T,), {}),
    "square that writes into the cache": (square, lambda d, x: np.multiply(x, 2 * d, out=x), (T,), {}),
    "square that writes into x": (lambda x: (np.multiply(x, x, out=x), x), lambda d, x: d, (T,), {}),
    "square through float": (lambda x: (x.real * x.real, x), lambda d, x: 2 * d * x, (T,), {}),
    "square through float, off": (lambda x: (x.real * x.real, x), lambda d, x: 2.001 * d * x, (T,), {}),
    "square through real buffers": (lambda x: (_buffered(x), x), lambda d, x: 2 * d * x, (T,), {}),
    "square with a lost part": (lambda x: (x * x + 1e-5 * x.real, x), lambda d, x: d * (2 * x + 1e-5), (T,), {}),
    "gate": (gate, gate_back, (T, T[::-1].copy()), {}),
    "gate at zero": (gate, gate_back, (TIED, V), {}),
    "gate at zero, strict": (
        gate,
        lambda d, c: (np.where(c[0] >= 0, d * c[1], 0), np.where(c[0] > 0, d * c[0], 0)),
        (TIED, V),
        {"strict": True},
    ),
    "gate at zero, other side": (
        gate,
        lambda d, c: (np.where(c[0] >= 0, d * c[1], 0), np.where(c[0] > 0, d * c[0], 0)),
        (TIED, V),
        {},
    ),
    "gate at zero, beyond": (
        gate,
        lambda d, c: (np.where(c[0] >= 0, 3 * d * c[1], 0), np.where(c[0] > 0, d * c[0], 0)),
        (TIED, V),
        {},
    ),
    "object without its input": (lambda x: Layer().forward(x), lambda d, c: 2 * d, (T,), {}),
    "object with state": (*(lambda layer: (layer.forward, layer.backward))(Layer()), (T,), {}),
    "object with state, strict": (*(lambda layer: (layer.forward, layer.backward))(Layer()), (T,), {"strict": True}),
    "object that adds": (*(lambda layer: (layer.forward, layer.adding))(Layer()), (T,), {}),
    "dict": (dict_forward, dict_back, ({"a": C, "b": {"c": C}}, B), {}),
    "dict, one wrong": (
        dict_forward,
        lambda d, c: ({**dict_back(d, c)[0], "a": d.sum(axis=0)}, dict_back(d, c)[1]),
        ({"a": C, "b": {"c": C}}, B),
        {},
    ),
    "two outputs": (lambda x: ((x * x, 3 * x), x), lambda d, e, x: 2 * d * x + 3 * e, (T,), {}),
    "two outputs, one forgotten": (lambda x: ((x * x, 3 * x), x), lambda d, e, x: 2 * d * x, (T,), {}),
    "a loss": (lambda x: ((x * x).sum(), x), lambda d, x: 2 * d * x, (T,), {}),
    "a loss without dout": (lambda x: ((x * x).sum(), x), lambda d, x: 2 * x, (T,), {}),
    "random": (lambda x: (x * np.random.default_rng().random(), x), lambda d, x: d, (T,), {}),
    "normalised": (lambda x: (x / np.sqrt((x * x).sum()), x), lambda d, x: _normalised_back(d, x), (V,), {}),
    "ill-conditioned": (lambda x: ((1e12 + x) - 1e12, x), lambda d, x: d, (V / 3,), {}),
    "ill-conditioned, wrong": (lambda x: ((1e6 + x) - 1e6, x), lambda d, x: 1.1 * d, (V / 3,), {}),
    "zero": (lambda x: (0 * x, x), lambda d, x: 0 * d, (V,), {}),
    "zero to rounding": (lambda x: ((1 + x) - (1 + x * 1.0), x), lambda d, x: 1e-18 * d, (V,), {}),
    "seed": (square, lambda d, x: one_wrong(2 * d * x, (0, 2), 1 + 1e-9), (T,), {"seed": 5}),
    "many": (lambda x: (1 / (1 + x * x), x), lambda d, x: d * drational(x), (LONG,), {}),
    "many by differences": (lambda x: (1 / (1 + x.real * x.real), x), lambda d, x: d * drational(x), (LONG,), {}),
    "many by differences, one off": (
        lambda x: (1 / (1 + x.real * x.real), x),
        lambda d, x: one_wrong(d * drational(x), 20, 1.001),
        (LONG,),
        {},
    ),
}


def _buffered(x):
    out = np.zeros(x.shape)
    out[:] = x * x
    return out


def _normalised_back(dout, x):
    norm = np.sqrt((x * x).sum())
    return dout / norm - x * (dout * x).sum() / norm**3


def report_of(check, first, *args, **options):
    """What a check says, or the error that it raises, as plain values; errors below 1e-12 are rounding and not told."""
    if first is with_noise:
        first = first()
    options = {name: value for name, value in options.items() if name in KNOWN[check]}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            report = getattr(gradcheck, check)(first, *args, assert_passed=False, **options)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
    rows = [_row(row) for row in report.rows]
    return [report.verdict, rows, list(map(_rounded, report.problems)), list(map(_rounded, report.notes))]


def _row(row):
    where = [str(row.index), _number(row.analytic), _number(row.reference)]
    if row.error < 1e-12:  # which entry is the worst is chance
        where = []
    return [row.verdict, row.name, _number(row.error), _number(row.threshold), *where, _rounded(row.note), _rounded(row.doubt)]


KNOWN = {
    "directional_check": {"n_directions", "seed", "threshold", "atol"},
    "taylor_test": {"seed", "threshold", "atol"},
    "fd_check": {"kinks", "threshold", "atol"},
    "check_pair": {"wrt", "seed", "threshold", "atol", "strict"},
}


def _number(x):
    if x is None or not math.isfinite(x):
        return str(x)
    return 0.0 if abs(x) < 1e-12 else float(f"{x:.3g}")


def _rounded(text):
    """A sentence with its numbers rounded to two digits, those below 1e-12 to zero, and without estimated errors."""
    number = r"-?\d+\.\d+(e[+-]?\d+)?|-?\d+e[+-]?\d+"
    return re.sub(number, lambda found: f"{_number(float(f'{float(found[0]):.1e}')):g}", re.sub(r"\+- \S+", "+- ...", text))


def table():
    """name -> what the checks say."""
    found = {}
    for name, (f, theta, grad, options) in SCALARS.items():
        for check in ("directional_check", "taylor_test", "fd_check"):
            found[f"{check}: {name}"] = report_of(check, f, theta, grad, **options)
    for name, (forward, backward, args, options) in PAIRS.items():
        found[f"check_pair: {name}"] = report_of("check_pair", forward, backward, *args, **options)
    return found


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(found, ensure_ascii=False)}" for name, found in table().items()]
    print("{\n" + ",\n".join(lines) + "\n}")
