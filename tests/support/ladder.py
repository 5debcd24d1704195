"""The search of npvae/checking/gradcheck/derivatives.py on functions made of +, −, ×, ÷, √ and rounding, which give the same
bits on every machine: which steps it looks at, and the slope, the errors and the noise that it finds.

    python tests/support/ladder.py > tests/support/ladder.json      after a change of the search that is meant
"""

import json
import math

import numpy as np

from npvae.checking.gradcheck.derivatives import START, derivative
from npvae.checking.gradcheck.entries import Search


def cube(u):
    return (1 + u) * (1 + u) * (1 + u)


def bump(width):
    return lambda u: 1 / (1 + (u / width) * (u / width))


def edge(u):
    if u < 0:
        raise ValueError("outside")
    return 2 * u + math.sqrt(1 + u)


def pseudo_noise(u, size):
    """cube with noise of a size that is the same at the same u."""
    return cube(u) + size * ((u * 7919.0 * 2.0**30) % 1.0 - 0.5)


FUNCTIONS = {
    "linear": lambda u: 7.0 * u,
    "cube": cube,
    "rational": lambda u: 1 / (1 + u),
    "root": lambda u: math.sqrt(1 + u),
    "cube at 1e6": lambda u: 1e6 + cube(u),
    "small cube": lambda u: 1e-12 * cube(u),
    "fifth power": lambda u: u * u * u * u * u,
    "odd square": lambda u: u * abs(u),
    "constant": lambda u: 5.0,
    "zero": lambda u: 0.0 * u,
    "last bit": lambda u: 1.0 if u < 0.01 else 1.0 + 2.0**-52,
    "modulus": lambda u: abs(u),
    "modulus and slope": lambda u: 3 * u + 0.5 * abs(u) + 4,
    "relu": lambda u: u if u > 0 else 0.0,
    "relu beyond": lambda u: u - 0.5 if u > 0.5 else 0.0,
    "relu near": lambda u: 2 + (u - 1e-3 if u > 1e-3 else 0.0),
    "kink at 1e-2": lambda u: cube(u) + abs(u - 1e-2),
    "kink at 1e-5": lambda u: cube(u) + abs(u + 1e-5),
    "kink at 1e-9": lambda u: cube(u) + abs(u - 1e-9),
    "kink at 1e-14": lambda u: cube(u) + abs(u - 1e-14),
    "two kinks": lambda u: cube(u) + abs(u - 1e-2) + abs(u + 1e-5),
    "kink with curvature": lambda u: abs(cube(u) - 1),
    "steps": lambda u: math.floor(8 * u + 0.5) / 8,
    "fine steps": lambda u: math.floor(1e5 * u + 0.5) / 1e5,
    "fine steps at 1": lambda u: 1 + math.floor(1e9 * u + 0.5) / 1e9,
    "stairs of 1/16 at 1e6": lambda u: 1e6 + math.floor(16 * u + 0.5) / 16,
    "stairs of 1/8 at 1e7": lambda u: 1e7 + math.floor(8 * u + 0.5) / 8,
    "stairs of 1/32 at 1e6": lambda u: 1e6 + math.floor(32 * u + 0.5) / 32,
    "stairs on one side": lambda u: 1e6 + (math.floor(16 * u + 0.5) / 16 if u > 0 else u),
    "stairs of 1e-6 and slope": lambda u: math.floor(1e6 * cube(u)) / 1e6 + 1e-3 * u,
    "stairs of 1e-6, slope beside": lambda u: math.floor(1e6 * (1 + u)) / 1e6 - 0.5 * u,
    "float32 inside": lambda u: float(np.float32(1.37 + u) * np.float32(1.37 + u)),
    "float32 and penalty": lambda u: float(np.float32(1.37 + u) * np.float32(1.37 + u)) + 1e-3 * (0.5 + u) * (0.5 + u),
    "float16 inside": lambda u: float(np.float16(np.float16(1.37 + u) * np.float16(1.37 + u))),
    "stairs of 1e-8": lambda u: math.floor(1e8 * cube(u)) / 1e8,
    "noise of 1e-12": lambda u: pseudo_noise(u, 1e-12),
    "noise of 1e-6": lambda u: pseudo_noise(u, 1e-6),
    "noise of 1e-2": lambda u: pseudo_noise(u, 1e-2),
    "edge": edge,
    "edge behind": lambda u: edge(-u),
    "edge at 1e-7": lambda u: edge(u + 1e-7),
    "wall at 1e-3": lambda u: math.nan if abs(u) > 1e-3 else cube(u),
    "wall ahead": lambda u: math.inf if u > 0.03 else cube(u),
    "alone": lambda u: 1.0 if u == 0 else math.nan,
    "nan": lambda u: math.nan,
    "infinite": lambda u: math.inf,
    "bump of 1": bump(1.0),
    "bump of 1e-4, beside": lambda u: bump(1e-4)(u + 1e-4),
    "bump of 1e-9, beside": lambda u: bump(1e-9)(u + 3e-10),
    "wide": lambda u: (1 + 1e-6 * u) * (1 + 1e-6 * u),
    "very wide": lambda u: (1 + 1e-12 * u) * (1 + 1e-12 * u) * (1 + 1e-12 * u),
    "oscillation": lambda u: u + 1e-3 * abs((u * 1e4) % 2.0 - 1.0),
    "oscillation at 100": lambda u: 100 + u + 1e-3 * abs((u * 1e4) % 2.0 - 1.0),
    "pole": lambda u: 1 / (u + 1e-2),
}
SETTINGS = {
    "": {},
    "thorough": {"thorough": True},
    "good 1e-4": {"good": 1e-4},
    "noise 1e-7": {"noise": 1e-7},
}
SCALES = (1e-7, 1.0, 3e5)


def observed(phi, scale, **settings):
    """What the search does with a function: the exponents of its steps, and the Slope."""
    seen = set()

    def watched(u):
        seen.add(float(u))
        return phi(u)

    found = derivative(watched, scale, **settings)
    steps = {round(-math.log2(abs(u) / (START * scale)), 2) for u in seen if u}
    return {
        "calls": len(seen), "largest": min(steps, default=None), "smallest": max(steps, default=None),
        **{name: _plain(getattr(found, name)) for name in ("value", "error", "left", "right", "noise")},
        "tie": found.tie, "windows": len(found.windows), "sharp": _plain(min((w.error for w in found.windows), default=0.0)),
    }  # fmt: skip


def _plain(x):
    return float(f"{x:.6g}") if math.isfinite(x) else str(x)


def table():
    """name -> what is observed, of every function with each of the settings, and of some at other scales."""
    found = {f"{name}; {label}": observed(phi, 1.0, **s) for name, phi in FUNCTIONS.items() for label, s in SETTINGS.items()}
    for scale in SCALES:
        found |= {f"{name}; scale {scale:g}": observed(phi, scale) for name, phi in list(FUNCTIONS.items())[:7]}
    return found


def quick_looks():
    """name -> the Window of the three large steps that `Search` begins with."""
    found = {}
    for name, phi in FUNCTIONS.items():
        search = Search(lambda x, phi=phi: phi(float(x[0])), np.zeros(1), np.ones(1), 1e-6, 0.0, None)
        found[name] = [_plain(x) for x in search.quick_look(lambda h, search=search: search.moved(0, h), 1.0)]
    return found


def as_text(name, found):
    """One line of JSON for each function."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
    return f' "{name}": {{\n' + ",\n".join(lines) + "\n }"


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        print("{\n" + as_text("ladder", table()) + ",\n" + as_text("quick look", quick_looks()) + "\n}")
