"""Every labelled identity stands in a derivation, on one code line and in the name of a test, and no label lacks one of them.

A label is capitals, with parts after hyphens: (RELU), (KL-mu). Its test is called `test_RELU_is_the_derivative...`,
`test_KL_mu_is_the_derivative...`. Labels are found by reading the sources, so a new one is covered as soon as it is written.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
OPS = TESTS.parent / "npvae" / "ops"
LABELLED_FILES = ["layers.py", "convolution.py", "latent.py", "likelihood.py", "bounds.py", "coupling.py", "full_posterior.py",
                  "gaussian_kl.py", "gaussian_likelihoods.py", "discrete.py", "sde.py", "diffusion.py", "energy.py",
                  "adversarial.py", "noise_schedule.py", "pixel_mixture.py", "boltzmann.py", "potentials.py", "cusps.py",
                  "pair_features.py"]  # fmt: skip

LABEL = re.compile(r"\(([A-Z][A-Z0-9]+(?:-[A-Za-z]\w*)*|[A-Z](?:-[A-Za-z]\w*)+)\)")  # not (B), a shape
TEST_OF_LABEL = re.compile(r"test_([A-Z]\w*?)_is_the_derivative")


def labels_in_docstrings(source):
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = (ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, documented))
    return [label for docstring in docstrings for label in LABEL.findall(docstring)]


def labels_on_code_lines(source):
    """Only labels in comments that stand behind code."""
    comments = (t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT)
    return [label for t in comments if t.line[: t.start[1]].strip() for label in LABEL.findall(t.string)]


def labels_in_test_names(source):
    """In the form of names, KL_mu."""
    names = (node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return [match[1] for match in map(TEST_OF_LABEL.match, names) if match]


def complaints(sources, test_sources):
    """What is wrong with the labels of these files (name -> source): one sentence each."""
    in_docstrings, on_code_lines, wrong = Counter(), Counter(), []
    for name, source in sources.items():
        documented, coded = labels_in_docstrings(source), labels_on_code_lines(source)
        in_docstrings.update(documented)
        on_code_lines.update(coded)
        wrong += [f"({label}): in a docstring of {name}, on no code line" for label in set(documented) - set(coded)]
        wrong += [f"({label}): on a code line of {name}, in no docstring" for label in set(coded) - set(documented)]
    wrong += [f"({label}): on {count} code lines" for label, count in on_code_lines.items() if count > 1]
    tested = {name for source in test_sources for name in labels_in_test_names(source)}
    labels = {label.replace("-", "_") for label in in_docstrings | on_code_lines}
    wrong += [f"no test is called test_{name}_is_the_derivative" for name in labels - tested]
    wrong += [f"test_{name}_is_the_derivative: there is no such label" for name in tested - labels]
    return sorted(wrong)


def test_docstrings_code_lines_and_test_names_agree():
    sources = {name: (OPS / name).read_text(encoding="utf-8") for name in LABELLED_FILES}
    tests = [path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py") if path.name != Path(__file__).name]
    assert len(labels_on_code_lines("".join(sources.values()))) >= 15  # the collectors do find something
    assert complaints(sources, tests) == []


# ---- the judge itself ----

CODE = '''
def op_backward(dy, x):
    """An op on (B, D).

    (OP-x)  dx = 2 x
    """
    return 2 * x * dy  # (OP-x) (B, D) -> (B, D)
'''
TEST = "def test_OP_x_is_the_derivative():\n    pass\n"


@pytest.mark.parametrize(
    ("code", "test", "expected"),
    [
        (CODE, TEST, []),
        (CODE, TEST.replace("derivative", "derivative_for_two_shapes"), []),
        (CODE, TEST.replace("OP_x", "OP_y"), ["no test is called test_OP_x", "test_OP_y_is_the_derivative: there is no such"]),
        (CODE, "# " + TEST.replace("\n", "\n# "), ["no test is called test_OP_x"]),
        (CODE.replace("# (OP-x)", "# (OP-z)"), TEST, ["(OP-x): in a docstring", "(OP-z): on a code", "no test is called"]),
        (CODE.replace("# (OP-x)", "#"), TEST, ["(OP-x): in a docstring"]),
        (CODE.replace("return", "# (OP-x)\n    return").replace("dy  # (OP-x)", "dy  #"), TEST, ["(OP-x): in a docstring"]),
        (CODE.replace("    return", "    x = x  # (OP-x)\n    return"), TEST, ["(OP-x): on 2 code lines"]),
        (CODE.replace("    (OP-x)  dx", "    dx"), TEST, ["(OP-x): on a code line"]),
        (CODE.replace("dy  #", 'dy, "(TEXT)"  #'), TEST, []),
    ],
)
def test_each_disagreement_is_reported(code, test, expected):
    found = complaints({"op.py": code}, [test])
    assert len(found) == len(expected)
    assert all(complaint.startswith(start) for complaint, start in zip(found, expected))
