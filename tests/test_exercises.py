"""The exercises of examples/learn: open as shipped, solvable, and every wrong line of the catalogue is recognised."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LEARN = Path(__file__).parents[1] / "examples" / "learn"
sys.path.insert(0, str(LEARN))

import check  # noqa: E402
from judging import exercises, findings, mistakes, verdict  # noqa: E402
from judging.exercises import EXERCISES  # noqa: E402

BLANK = re.compile(r"^    (\w+) = \.\.\.", re.MULTILINE)
BY_NAME = {exercise.name: exercise for exercise in EXERCISES}

SOLUTIONS = {
    "one_neuron": {
        "derror": "dloss * error", "dh": "derror", "dpre": "dh * h * (1 - h)", "dw": "dpre * x", "dx": "dpre * w", "db": "dpre",
    },
    "affine_map": {"dproduct": "dpre", "db": "dpre.sum(axis=0)", "dW": "x.T @ dproduct", "dx": "dproduct @ W.T"},
    "relu": {"dpre": "np.where(pre > 0, dh, 0)"},
    "tanh": {
        "dtop": "dh / bottom", "dbottom": "-dh * top / bottom**2", "dup": "dtop + dbottom", "ddown": "-dtop + dbottom",
        "dpre": "dup * up - ddown * down",
    },
    "silu": {"dsigmoid": "dh * pre", "dpre": "dh * sigmoid + dsigmoid * sigmoid * (1 - sigmoid)"},
    "stable_softplus": {"h": "np.maximum(pre, 0) + np.log1p(np.exp(-np.abs(pre)))"},
    "two_layers": {
        "dW2": "h1.T @ dout", "db2": "dout.sum(axis=0)", "dh1": "dout @ W2.T", "dpre1": "dh1 * (1 - h1**2)",
        "dW1": "x.T @ dpre1", "db1": "dpre1.sum(axis=0)",
    },
    "reparameterize": {
        "dmu": "dz.sum(axis=0)", "dnoise": "dz", "dsigma": "(dnoise * eps).sum(axis=0)", "dlogvar": "dsigma * 0.5 * sigma",
    },
    "gaussian_kl_value": {"variance": "np.exp(logvar)", "kl": "0.5 * (mu**2 + variance - 1 - logvar)"},
    "gaussian_kl": {
        "dsquare": "0.5 * dkl", "dmu": "dsquare * 2 * mu", "dvariance": "0.5 * dkl",
        "dlogvar": "dvariance * variance - 0.5 * dkl",
    },
    "latent": {
        "dmu": "dz + dkl * mu", "dlogvar": "dz * eps * 0.5 * sigma + dkl * 0.5 * (sigma**2 - 1)",
        "dposterior": "np.concatenate([dmu, dlogvar], axis=1)",
    },
    "bernoulli_in_atoms": {
        "dper_pixel": "dnll[:, None] * np.ones_like(x)", "dlog_p": "-dper_pixel * x", "dlog_q": "-dper_pixel * (1 - x)",
        "dq": "dlog_q / q", "dp": "dlog_p / p - dq", "dlogits": "dp * p * q",
    },
    "bernoulli_fused": {"dlogits": "dnll[:, None] * (p - x)"},
    "gaussian_nll": {
        "dsquare": "dnll[:, None] * np.ones_like(x) / (2 * variance)", "dresidual": "dsquare * 2 * residual",
        "dmean": "dresidual",
    },
    "elbo": {
        "dnll": "np.full_like(nll, dloss / nll.size)", "dmean_kl": "np.full_like(mean_kl, dloss * beta)",
        "dkl": "np.ones_like(kl) * dmean_kl / len(kl)",
    },
    "importance_weights": {
        "dbound": "np.full_like(bound, -dloss / bound.size)", "dtotal": "dbound / total", "dw": "dtotal * np.ones_like(w)",
        "dlog_w": "dw * w", "dnll": "-dlog_w", "dweighted_kl": "-dlog_w",
        "dkl": "dweighted_kl[..., None] * beta * np.ones_like(kl)",
    },
    "coupling": {
        "dshift": "dy.copy()", "dx": "dy * scale", "dscale": "dy * x", "dlog_scale": "dscale * scale + dlog_det[:, None]",
    },
    "adam_step": {
        "new_m": "beta1 * m + (1 - beta1) * grad", "new_v": "beta2 * v + (1 - beta2) * grad**2",
        "m_hat": "new_m / (1 - beta1**t)",
        "v_hat": "new_v / (1 - beta2**t)", "step": "learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)",
    },
}  # fmt: skip

FUSED_SOLUTIONS = {  # of whole blocks, as the texts of the exercises suggest
    "tanh": {"dpre": "dh * (1 - h * h)"},
    "bernoulli_in_atoms": {"dlogits": "dnll[:, None] * (p - x)"},
    "gaussian_nll": {"dmean": "dnll[:, None] * residual / variance"},
}

PACKAGE = {
    "affine_map": "from npvae.ops.layers import affine_backward, affine_forward",
    "relu": "from npvae.ops.layers import relu_backward, relu_forward",
    "tanh": "from npvae.ops.layers import tanh_backward, tanh_forward",
    "silu": "from npvae.ops.layers import silu_backward, silu_forward",
    "stable_softplus": "from npvae.ops.layers import softplus_forward",
    "two_layers": """
from npvae.ops.layers import dense_backward, dense_forward

def two_layers_forward(x, W1, b1, W2, b2):
    h1, cache1 = dense_forward(x, W1, b1, "tanh")
    out, cache2 = dense_forward(h1, W2, b2, "identity")
    return out, (cache1, cache2)

def two_layers_backward(dout, cache):
    cache1, cache2 = cache
    dh1, dW2, db2 = dense_backward(dout, cache2)
    _, dW1, db1 = dense_backward(dh1, cache1, need_dx=False)
    return dW1, db1, dW2, db2
""",
    "reparameterize": "from npvae.ops.latent import reparameterize_backward, reparameterize_forward",
    "gaussian_kl_value": "from npvae.ops.latent import gaussian_kl_forward",
    "gaussian_kl": "from npvae.ops.latent import gaussian_kl_backward, gaussian_kl_forward",
    "latent": "from npvae.ops.latent import latent_backward, latent_forward",
    "bernoulli_in_atoms": "from npvae.ops.likelihood import bernoulli_nll_backward, bernoulli_nll_forward",
    "bernoulli_fused": "from npvae.ops.likelihood import bernoulli_nll_backward, bernoulli_nll_forward",
    "gaussian_nll": "from npvae.ops.likelihood import gaussian_nll_backward, gaussian_nll_forward",
    "elbo": "from npvae.ops.bounds import elbo_backward, elbo_forward",
    "importance_weights": "from npvae.ops.bounds import iwae_backward, iwae_forward",
    "coupling": "from npvae.ops.coupling import scale_and_shift_backward, scale_and_shift_forward",
    "adam_step": "from npvae.ops.updates import adam_step",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the exercises to write in."""
    shutil.copytree(exercises.FOLDER, tmp_path / "exercises", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(exercises, "FOLDER", tmp_path / "exercises")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "exercises"


def shipped(name):
    return (LEARN / "exercises" / f"{BY_NAME[name].file}.py").read_text(encoding="utf-8")


def with_lines(name, lines):
    """The exercise with lines in the place of its blanks; other blanks stay, and a NumPy is there for them."""
    text = BLANK.sub(lambda match: f"    {match[1]} = {lines.get(match[1], '...')}", shipped(name))
    return text if "import numpy" in text else text.replace('"""\n\n\ndef', '"""\n\nimport numpy as np\n\n\ndef', 1)


def written(folder, name, text):
    (folder / f"{BY_NAME[name].file}.py").write_text(text, encoding="utf-8")
    return verdict.judge(BY_NAME[name])


def line_of(folder, name, beginning):
    lines = (folder / f"{BY_NAME[name].file}.py").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(beginning))


def printed(name, capsys):
    capsys.readouterr()
    status = check.main([name])
    return status, capsys.readouterr().out


# --------------------------------------------------------------------------------------------------- open, and solvable


@pytest.mark.parametrize("name", BY_NAME)
def test_as_shipped_every_line_is_open(name):
    blanks = BLANK.findall(shipped(name))
    judged = verdict.judge(BY_NAME[name])
    assert (judged.state, judged.problem) == ("open", "")
    assert [row.name for row in judged.rows] == blanks
    assert {row.state for row in judged.rows} == {"open"}
    assert sorted(blanks) == sorted(SOLUTIONS[name])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_solution_line_by_line_is_right(name, folder, capsys):
    judged = written(folder, name, with_lines(name, SOLUTIONS[name]))
    assert judged.state == "solved", judged
    assert set(SOLUTIONS[name]) <= {row.name for row in judged.rows}
    assert all(row.error < 1e-12 for row in judged.rows)
    assert printed(name, capsys)[0] == 0


@pytest.mark.parametrize("name", FUSED_SOLUTIONS)
def test_a_fused_solution_is_right(name, folder):
    text = with_lines(name, FUSED_SOLUTIONS[name])
    text = re.sub(r"^    \w+ = \.\.\..*\n", "", text, flags=re.MULTILINE)
    assert written(folder, name, text).state == "solved"


@pytest.mark.parametrize("name", PACKAGE)
def test_the_package_s_own_code_is_a_solution(name, folder):
    judged = written(folder, name, PACKAGE[name])
    states = {row.name: row.state for row in judged.rows}
    assert set(states.values()) == {"right"}, judged
    assert judged.problem == ""


def test_only_the_neuron_has_no_counterpart_in_the_package():
    assert set(BY_NAME) - set(PACKAGE) == {"one_neuron"}


def test_the_expressions_behind_a_forward_exercise_are_the_solution():
    for exercise in EXERCISES:
        known = {"np": np, **exercise.arguments}
        for name, expression in exercise.intermediates.items():
            known[name] = eval(expression, known)
            np.testing.assert_allclose(known[name], eval(SOLUTIONS[exercise.name][name], known), rtol=1e-14)


@pytest.mark.parametrize("name", [exercise.name for exercise in EXERCISES if exercise.gradients])
def test_each_line_can_be_written_first(name, folder):
    """A line is judged with the right numbers above it, whatever is still open."""
    for blank, line in SOLUTIONS[name].items():
        judged = written(folder, name, with_lines(name, {blank: line}))
        assert {row.name: row.state for row in judged.rows}[blank] == "right"
        assert judged.state == ("open" if len(SOLUTIONS[name]) > 1 else "solved")


@pytest.mark.parametrize("name", BY_NAME)
def test_texts_name_task_hints_command_and_counterpart(name):
    text, exercise = shipped(name), BY_NAME[name]
    assert text.startswith(f'"""Exercise {exercise.number}: ')
    command = f"    python examples/learn/check.py {exercise.number}\n"
    for needed in ("Task: ", "\nHints\n", command, "\nCompare with, after solving: "):
        assert needed in text
    assert len(text.splitlines()) < 70
    for solution in set(SOLUTIONS[name].values()):
        assert len(solution) < 12 or solution not in text.split("_backward(")[-1]


def test_each_exercise_names_the_lesson_that_the_table_of_lessons_gives_it():
    """The table in examples/README.md has lesson -> exercises, the exercise names the lesson's file."""
    table = (LEARN.parent / "README.md").read_text(encoding="utf-8")
    lessons = {}
    for file, asked in re.findall(r"^\| \d\d \| \[[^]]*\]\(learn/(\w+\.py)\) .*\| ([^|]*) \|$", table, re.MULTILINE):
        numbers = [int(number) for number in re.findall(r"\d+", asked)]
        if " to " in asked:
            numbers = range(numbers[0], numbers[1] + 1)
        lessons.update(dict.fromkeys(numbers, file))
    assert sorted(lessons) == [number for number in range(1, 19) if number != 17]
    for exercise in EXERCISES:
        lesson = lessons.get(exercise.number)
        line = f"\nRead before: lesson {lesson[:2]}, examples/learn/{lesson}.\n" if lesson else "\nRead before: lesson 10, "
        assert line in shipped(exercise.name)
        assert lesson is None or (LEARN / lesson).is_file()


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"bernoulli_in_atoms"}))  # which points to the exercise after it
def test_the_counterpart_that_a_text_names_exists(name):
    function, file = re.search(r"Compare with, after solving: (\w+) in (npvae/ops/\w+\.py)", shipped(name)).groups()
    assert f"def {function}(" in (LEARN.parents[1] / file).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- mistakes by name

CATALOGUE = [
    (file[3:], name, line, sentence)
    for file, names in mistakes.MISTAKES.items()
    for name, lines in names.items()
    for line, sentence in lines.items()
]


@pytest.mark.parametrize(("name", "wrong", "line", "sentence"), CATALOGUE, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CATALOGUE])
def test_each_mistake_is_recognised_and_no_other(name, wrong, line, sentence, folder, monkeypatch, capsys):
    judged = written(folder, name, with_lines(name, {**SOLUTIONS[name], wrong: line}))
    states = {row.name: row.state for row in judged.rows}
    assert judged.state == "wrong"
    assert [row.name for row in judged.wrong_lines] == [wrong], states
    assert set(states.values()) <= {"right", "wrong", "wrong input", "not reached"}
    monkeypatch.setattr(check, "judge", lambda exercise: judged)  # once is enough
    status, out = printed(name, capsys)
    assert status == 1
    lines = [text.strip() for text in out.splitlines()]
    assert lines.count(sentence) == 1
    assert not [other for _, _, _, other in CATALOGUE if other != sentence and other in lines]
    assert f"{wrong} = {line}" in out


def test_there_are_many_and_each_is_said_once_in_its_exercise():
    assert len(CATALOGUE) > 100
    for file, names in mistakes.MISTAKES.items():
        sentences = [sentence for lines in names.values() for sentence in lines.values()]
        assert len(sentences) == len(set(sentences)), file
    assert [exercise.file for exercise in EXERCISES] == list(mistakes.MISTAKES)


def test_mistakes_as_a_table(capsys):
    assert check.main(["--mistakes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(CATALOGUE)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in lines)


GENERAL = [  # exercise, line, what is written, what is found
    ("affine_map", "dW", "-x.T @ dproduct", "the sign is the opposite"),
    ("affine_map", "dW", "0.9 * x.T @ dproduct", "it is 0.9 times the right one"),
    ("affine_map", "dx", "2 * dproduct @ W.T", "it is 2 times the right one: a factor 1/2 is lost"),
    ("affine_map", "dx", "-2 * dproduct @ W.T", "it is 2 times the right one, and the sign is the opposite"),
    ("affine_map", "dx", "5 * dproduct @ W.T", "5 is the number of rows B"),
    ("affine_map", "dx", "0 * x", "it is zero everywhere"),
    ("affine_map", "dx", "x * np.nan", "it is not finite"),
    ("affine_map", "dx", "'x'", "it is str, and has to be an array of numbers"),
    ("affine_map", "dx", "1j * x", "it is ndarray, and has to be an array of numbers"),
    ("affine_map", "dx", "x[:2]", "the shape is (2, 4), and has to be (5, 4), that of x"),
    ("affine_map", "dx", "np.stack([dproduct @ W.T, 0 * x])", "it is not summed over axis 0"),
    ("affine_map", "dproduct", "dpre.T", "it is the transpose of the right one"),
    ("two_layers", "dW2", "(h1.T @ dout).T", "this is the transpose of dW2"),
    ("two_layers", "db2", "dout.sum(axis=0)[None] * np.ones((1, 1))", "the shape is (1, 3)"),
    ("importance_weights", "dtotal", "dbound[:1] / total[:1]", "the shape is (1,), and has to be (5,)"),
    ("silu", "dpre", "dh * sigmoid - dsigmoid * sigmoid * (1 - sigmoid)", "`sigmoid = 1 / (1 + np.exp(-pre))` has the oppos"),
    ("silu", "dpre", "dh * sigmoid * 3 + dsigmoid * sigmoid * (1 - sigmoid)", "`h = pre * sigmoid` is 3 times what"),
    ("coupling", "dlog_scale", "dscale * scale + 2 * dlog_det[:, None]", "`log_det = log_scale.sum(axis=1)` is 2 times"),
    ("tanh", "dtop", "1 / bottom", "the upstream gradient is missing"),
    ("one_neuron", "dw", "dpre * 2 * x", "it is 2 times the right one"),
    ("one_neuron", "dw", "dpre + x", "no known mistake has these numbers"),
    ("one_neuron", "dx", "dpre * w * h", "it is the right one times h: this factor is too many"),
    ("two_layers", "db1", "dpre1.sum(axis=0, keepdims=True)", "but axis 0 of length 1 is kept (by keepdims or [None])"),
    ("gaussian_kl_value", "kl", "np.log(logvar)", "it is not finite: look for the logarithm of a negative number"),
    ("stable_softplus", "h", "np.log1p(np.exp(-np.abs(pre))) + np.maximum(pre, 0) + 1e-18", "the small ones have lost"),
    # a factor that is one of the arguments, its square or its inverse
    ("gaussian_nll", "dsquare", "dnll[:, None] * np.ones_like(x) * 2 * variance", "the right one times (2 * variance)**2: it"),
    ("gaussian_nll", "dmean", "dresidual / variance", "it is the right one times 1 / variance: this factor is missing, or a"),
    ("gaussian_nll", "dmean", "-dresidual * variance", "it is the right one times variance and -1: this factor is too many"),
    ("gaussian_nll", "dresidual", "dsquare / (2 * residual)", "times 1 / (2 * residual)**2: it is divided by 2 * residual"),
    ("importance_weights", "dkl", "dweighted_kl[..., None] / beta * np.ones_like(kl)", "it is the right one times 1 / beta**2"),
    ("elbo", "dkl", "dmean_kl * np.ones_like(kl) / len(kl) / beta", "it is the right one times 1 / beta: this factor is mis"),
    ("coupling", "dx", "dy * scale * scale", "it is the right one times scale: this factor is too many"),
    ("two_layers", "dpre1", "dh1 * h1 * (1 - h1**2)", "it is the right one times h1: this factor is too many"),
    ("adam_step", "step", "learning_rate * m_hat / (np.sqrt(v_hat) + epsilon) * beta1", "the right one times beta1: this fac"),
    ("gaussian_nll", "dsquare", "dnll[:, None] / 2 * variance", "that of square; filled up to that shape, it is the right one"),
    # the upstream gradient left out
    ("two_layers", "dpre1", "1 - h1**2", "the upstream gradient is missing: this is the slope of h1 alone"),
    ("reparameterize", "dlogvar", "0.5 * sigma", "the upstream gradient is missing: this is the slope of sigma alone"),
    ("gaussian_kl", "dmu", "2 * mu", "the upstream gradient is missing: this is the slope of square alone"),
    ("gaussian_kl", "dlogvar", "dvariance * variance - 0.5", "dkl is missing in the part that comes through `kl = 0.5 * (sq"),
    ("gaussian_kl", "dlogvar", "variance - 0.5", "the upstream gradient is missing: this is the slope of variance and kl al"),
    ("gaussian_nll", "dresidual", "2 * residual", "the upstream gradient is missing: this is the slope of square alone"),
    ("importance_weights", "dlog_w", "w", "the upstream gradient is missing: this is the slope of w alone"),
    ("importance_weights", "dtotal", "1 / total", "the upstream gradient is missing: this is the slope of bound alone"),
    ("elbo", "dnll", "np.full_like(nll, 1 / nll.size)", "the upstream gradient is missing: this is the slope of mean_nll alo"),
    ("silu", "dpre", "sigmoid + dsigmoid * sigmoid * (1 - sigmoid)", "dh is missing in the part that comes through `h = pre"),
    ("bernoulli_in_atoms", "dlogits", "p * q", "the upstream gradient is missing: this is the slope of p alone"),
    ("tanh", "dpre", "up - down", "the upstream gradient is missing: this is the slope of up and down alone"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "line", "said"), GENERAL)
def test_general_findings(name, wrong, line, said, folder, capsys):
    written(folder, name, with_lines(name, {**SOLUTIONS[name], wrong: line}))
    assert said in printed(name, capsys)[1]


def test_a_missing_part_is_named_where_the_catalogue_knows_none(folder, capsys, monkeypatch):
    monkeypatch.setattr(mistakes, "MISTAKES", {})
    written(folder, "coupling", with_lines("coupling", {**SOLUTIONS["coupling"], "dlog_scale": "dscale * scale"}))
    assert "the way through `log_det = log_scale.sum(axis=1)` is missing" in printed("coupling", capsys)[1]
    judged = written(folder, "two_layers", with_lines("two_layers", {**SOLUTIONS["two_layers"], "dW2": "dout.T @ h1"}))
    assert judged.wrong_lines[0].says == "it is the transpose of the right one"


def test_lines_below_a_wrong_one_are_not_blamed(folder, capsys):
    lines = {**SOLUTIONS["bernoulli_in_atoms"], "dlog_q": "-dper_pixel"}
    judged = written(folder, "bernoulli_in_atoms", with_lines("bernoulli_in_atoms", lines))
    states = {row.name: row.state for row in judged.rows}
    assert states == {"dper_pixel": "right", "dlog_p": "right", "dlog_q": "wrong", "dq": "wrong input", "dp": "wrong input",
                      "dlogits": "wrong input"}  # fmt: skip
    _, out = printed("12", capsys)
    assert "Wrong: dlog_q (line" in out
    assert "the line itself is right: it goes on with what is wrong above" in out


def test_two_wrong_lines_are_both_named(folder):
    lines = {**SOLUTIONS["two_layers"], "dh1": "dout @ W2", "dW1": "x.T @ dpre1 / len(x)"}
    judged = written(folder, "two_layers", with_lines("two_layers", lines))
    assert [row.name for row in judged.wrong_lines] == ["dh1", "dW1"]
    assert "not transposed" in judged.wrong_lines[0].says
    assert "number of rows" in judged.wrong_lines[1].says


def test_a_gradient_that_is_added_up_counts_as_it_is_returned(folder):
    text = with_lines("latent", {**SOLUTIONS["latent"], "dmu": "dz"})
    text = text.replace("    dlogvar =", "    dmu = dmu + dkl * mu\n    dlogvar =")
    assert written(folder, "latent", text).state == "solved"


def test_a_gradient_that_is_added_up_in_a_loop(folder):
    loop = "0 * W\n    for b in range(len(x)):\n        dW += np.outer(x[b], dproduct[b])"
    text = with_lines("affine_map", {**SOLUTIONS["affine_map"], "dW": loop})
    assert written(folder, "affine_map", text).state == "solved"
    judged = written(folder, "affine_map", text.replace("range(len(x))", "range(len(x) - 1)"))
    assert [row.says for row in judged.wrong_lines] == ["the last row of the batch is left out"]


def test_worst_entry_and_error_are_shown(folder, capsys):
    text = with_lines("relu", SOLUTIONS["relu"]).replace("    return dpre", "    dpre[2, 1] = 7\n    return dpre")
    assert written(folder, "relu", text).wrong_lines[0].error > 0.1
    out = printed("relu", capsys)[1]
    assert re.search(r"at \[2, 1\] yours 7, right ", out)
    assert "verdict      rel. error" in out


IN_PLACE = ["dh\n    dpre[pre <= 0] = 0", "dh\n    dpre *= pre > 0", "dh; dpre[pre <= 0] = 0"]


@pytest.mark.parametrize("line", IN_PLACE)
def test_writing_into_what_was_handed_over_is_said_in_the_row(line, folder, capsys):
    judged = written(folder, "relu", with_lines("relu", {"dpre": line}))
    number = line_of(folder, "relu", line.split("\n")[-1].strip().replace("dh; ", "dpre = dh; "))
    said = f"line {number}: this writes into an array that the function was handed (an argument or the cache): make a new array"
    assert [(row.name, row.state, row.says) for row in judged.rows] == [("dpre", "wrong", said)]
    out = printed("relu", capsys)[1]
    assert out.count("this writes into") == 1
    assert "the mask is missing" not in out
    assert "above" not in out
    copied = line.replace("dh", "dh.copy()")
    assert written(folder, "relu", with_lines("relu", {"dpre": copied})).state == "solved"


def test_writing_into_another_name_of_what_was_handed_over(folder):
    """dnoise is dz itself, and right: the line that writes into it is to blame."""
    lines = {**SOLUTIONS["reparameterize"], "dsigma": "dnoise\n    dsigma *= eps\n    dsigma = dsigma.sum(axis=0)"}
    judged = written(folder, "reparameterize", with_lines("reparameterize", lines))
    assert [row.name for row in judged.wrong_lines] == ["dsigma"]
    assert {row.state for row in judged.rows} == {"right", "wrong"}
    assert "this writes into an array" in judged.wrong_lines[0].says
    lines["dmu"] = "dz.sum(axis=1)"  # a wrong line above it does not excuse it
    judged = written(folder, "reparameterize", with_lines("reparameterize", lines))
    assert [row.name for row in judged.wrong_lines] == ["dmu", "dsigma"]
    assert "this writes into an array" in judged.wrong_lines[1].says


def test_a_gradient_may_be_used_up_in_place(folder):
    lines = {**SOLUTIONS["two_layers"], "dpre1": "dh1\n    dpre1 *= 1 - h1**2"}
    judged = written(folder, "two_layers", with_lines("two_layers", lines))
    assert {row.state for row in judged.rows} == {"right"}
    assert judged.state == "solved"


@pytest.mark.parametrize("how", ["dsquare\n    dmu *= 2 * mu", "dsquare; dmu *= 2 * mu"])
def test_a_gradient_that_another_name_has_changed_before_it_is_used(how, folder):
    lines = {**SOLUTIONS["gaussian_kl"], "dmu": how, "dvariance": "dsquare"}
    judged = written(folder, "gaussian_kl", with_lines("gaussian_kl", lines))
    assert [row.name for row in judged.wrong_lines] == ["dvariance"]
    said = "dsquare is changed in place before it is used here: where two names stand for one array, make a new one"
    assert judged.wrong_lines[0].says == said
    lines["dmu"] = how.replace("dsquare", "dsquare.copy()")
    assert written(folder, "gaussian_kl", with_lines("gaussian_kl", lines)).state == "solved"


def test_a_returned_gradient_that_another_name_has_changed(folder):
    lines = {**SOLUTIONS["gaussian_kl"], "dlogvar": "dmu\n    dlogvar *= 0\n    dlogvar += dvariance * variance - 0.5 * dkl"}
    judged = written(folder, "gaussian_kl", with_lines("gaussian_kl", lines))
    assert [(row.name, row.state) for row in judged.rows if row.state != "right"] == [("dmu", "wrong")]
    assert judged.wrong_lines[0].says.startswith("this line is right, and what it made is changed in place later: where two")


def test_a_line_that_fails_and_is_wrong_as_well_is_judged_with_right_numbers(folder, capsys):
    lines = {"dper_pixel": "dnll", "dlog_p": "dper_pixel * x", "dlog_q": "-dper_pixel * x"}
    lines = {**SOLUTIONS["bernoulli_in_atoms"], **lines}
    judged = written(folder, "bernoulli_in_atoms", with_lines("bernoulli_in_atoms", lines))
    assert [row.name for row in judged.wrong_lines] == ["dper_pixel", "dlog_p", "dlog_q"]
    assert "the minus sign" in judged.wrong_lines[1].says
    assert judged.wrong_lines[2].says == "the factor of log_q is 1 - x, not x"
    assert re.search(r"Wrong: dper_pixel \(line \d+\), dlog_p \(line \d+\), dlog_q ", printed("12", capsys)[1])


def test_other_lines_are_judged_though_one_fails(folder, capsys):
    lines = {**SOLUTIONS["two_layers"], "dh1": "dout.T @ W2", "dW1": "dpre1.T @ x", "db1": "dpre1.sum(axis=3)"}
    judged = written(folder, "two_layers", with_lines("two_layers", lines))
    states = {row.name: row.state for row in judged.rows}
    assert states == {"dW2": "right", "db2": "right", "dh1": "wrong", "dpre1": "right", "dW1": "wrong", "db1": "wrong"}
    assert "the shapes in this line do not fit: dout (5, 3), W2 (3, 3)" in judged.rows[2].says
    assert "AxisError" in printed("two_layers", capsys)[1]


def test_a_line_that_fails_because_of_another_is_not_blamed(folder):
    lines = {**SOLUTIONS["affine_map"], "dproduct": "dpre[:2]"}
    judged = written(folder, "affine_map", with_lines("affine_map", lines))
    states = {row.name: row.state for row in judged.rows}
    assert states == {"dproduct": "wrong", "db": "right", "dW": "wrong input", "dx": "wrong input"}
    assert "it fails because of what is wrong above (line " in judged.rows[2].says


def test_nothing_above_is_blamed_where_nothing_above_is_wrong():
    right = np.ones(3)
    for above, state, said in (([], "wrong", "why"), ([verdict.Row("da", 1, (), "wrong")], "wrong input", "above (why)")):
        row = verdict.row_of_failed("db", 2, "why", right, right, above, None, False)
        assert (row.state, row.says[-len(said) :]) == (state, said)


# -------------------------------------------------------------------------------------------------------- broken files

AFFINE = with_lines("affine_map", SOLUTIONS["affine_map"])
BROKEN = [  # what is changed in a solved file; what is said; the line that is named, by its beginning
    (("    db = dpre", "    db = = dpre"), "Python cannot read this line", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = dpree.sum(axis=0)"), "NameError: name 'dpree' is not defined", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = dpre.summ(axis=0)"), "AttributeError: 'numpy.ndarray' object has no", "db ="),
    (("x.T @ dproduct", "x @ dproduct"), "the shapes in this line do not fit: x (5, 4), dproduct (5, 3)", "dW ="),
    (("x.T @ dproduct", "(\n        x.T @ xx)"), "NameError: name 'xx' is not defined", "x.T @ xx"),
    (("    return dx, dW, db", "    return dx, dW"), "returns 2 values, and needs: return dx, dW, db", None),
    (("    return dx, dW, db", "    return dx"), "returns 1 value, and needs: return dx, dW, db", None),
    (("    return dx, dW, db\n", ""), "returns nothing, and needs: return dx, dW, db", None),
    (("    return dx, dW, db", "    return dx, dW, db, 1"), "returns 4 values", None),
    (("    return dx, dW, db", "    return dx, db, dW"), "dW is returned in the place of db: the order is dx, dW, db", None),
    (("    x, W = cache", "    x, W = cache\n    W *= 2"), "writes into an array that the function was handed", "W *="),
    (("    x, W = cache", "    x, W = cache\n    dpre[0] = 0"), "writes into an array that the function was handed", "dpre[0]"),
    (("def affine_backward", "def affine_back"), "the file has no function affine_backward: keep its name", None),
    (("    return pre, (x, W)", "    return pre"), "has to return two things, its output and the cache", None),
    (("    pre = product + b", "    pre = product - b"), "the forward pass gives other numbers", None),
    (("    pre = product + b", "    pre = ..."), "the forward pass has a blank, pre", None),
    (("    pre = product + b", "    pre = product + c"), "NameError: name 'c' is not defined", "pre = product"),
    (("import numpy as np", "import numppy as np"), "ModuleNotFoundError: No module named 'numppy'", "import"),
    (("    return dx, dW, db", "    raise SystemExit"), "SystemExit: no message", "raise"),
    (("    db = dpre.sum(axis=0)", "    db = max(dpre, 0)"), "for arrays there are np.maximum and np.where", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = dpre if dpre > 0 else 0"), "for arrays there are np.maximum and np.where", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = dpre^2"), "powers are written ** in Python: ^ is something else", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = 0.9^3"), "powers are written ** in Python: ^ is something else", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = np.concatenate(dpre, dpre, axis=1)"), "np.concatenate([a, b], axis=1)", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = np.concatenate(dpre, dpre)"), "the arrays go in one list", "db ="),
    (("    db = dpre.sum(axis=0)", "    db = np.hstack(dpre, dpre)"), "the arrays go in one list", "db ="),
    (("    x, W = cache", "    x, W = cache\n    helper = ..."), "helper is still open, and the judge cannot fill it in", None),
]


@pytest.mark.parametrize(("change", "said", "beginning"), BROKEN)
def test_broken_files_get_one_clear_line(change, said, beginning, folder, capsys):
    assert change[0] in AFFINE
    assert written(folder, "affine_map", AFFINE.replace(*change)).state != "solved"
    status, out = printed("affine_map", capsys)
    assert status == 1
    matching = [line for line in out.splitlines() if said in line]
    assert len(matching) == 1, out
    assert "Traceback" not in out
    if beginning:
        assert f"line {line_of(folder, 'affine_map', beginning)}: " in matching[0]


def test_a_blank_of_the_learner_s_own_is_open_not_wrong(folder):
    judged = written(folder, "affine_map", AFFINE.replace("    x, W = cache", "    x, W = cache\n    helper = ..."))
    assert judged.state == "open"
    assert check.remark(judged) == "0 of 4 lines right; helper is still open, and the judge cannot fill it in"


def test_files_that_are_no_text_and_functions_that_are_no_def(folder, capsys):
    file = folder / "02_affine_map.py"
    file.write_bytes(b"x = '\xff'\n")
    assert "Python cannot read this file" in printed("affine_map", capsys)[1]
    file.write_text(AFFINE + "\n\naffine_backward = lambda dpre, cache: cache\n", encoding="utf-8")
    assert "affine_backward is not written with def" in printed("affine_map", capsys)[1]
    file.unlink()
    assert "there is no file" in printed("affine_map", capsys)[1]


def test_adam_must_change_its_arrays_in_place(folder, capsys):
    text = with_lines("adam_step", SOLUTIONS["adam_step"]).replace("    m[:] = new_m", "    m = new_m")
    assert [row.name for row in written(folder, "adam_step", text).wrong_lines] == ["m"]
    text = with_lines("adam_step", SOLUTIONS["adam_step"]).replace("    theta -= step", "    theta += step")
    assert [row.name for row in written(folder, "adam_step", text).wrong_lines] == ["theta"]
    assert "theta += step" in printed("adam", capsys)[1]


# ------------------------------------------------------------------------------------------------ the command line


def test_list_of_a_beginner(folder, capsys):
    assert check.main([]) == 1
    out = capsys.readouterr().out
    assert len(out.splitlines()) == len(EXERCISES) + 2
    assert out.splitlines()[1] == "  2  affine_map            open    0 of 4 lines right"
    assert f"0 of {len(EXERCISES)} solved. Next: edit exercises/01_one_neuron.py, then call python " in out


def test_list_of_somebody_who_is_under_way(folder, capsys):
    written(folder, "one_neuron", with_lines("one_neuron", SOLUTIONS["one_neuron"]))
    written(folder, "affine_map", with_lines("affine_map", {**SOLUTIONS["affine_map"], "dW": "dproduct.T @ x"}))
    written(folder, "relu", "def relu_forward(")
    written(folder, "tanh", with_lines("tanh", {"dtop": "dh / bottom"}))
    assert check.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  1  one_neuron            solved"
    assert re.fullmatch(r"  2  affine_map +wrong   dW \(line \d+\)", lines[1])
    assert lines[2].startswith("  3  relu                  wrong   line 1: Python cannot read this line")
    assert lines[3] == "  4  tanh                  open    1 of 5 lines right"
    assert "1 of 18 solved. Next: edit exercises/02_affine_map.py" in lines[-1]


def test_list_of_somebody_who_is_through(folder, capsys):
    for name in BY_NAME:
        written(folder, name, with_lines(name, SOLUTIONS[name]))
    assert check.main([]) == 0
    assert "18 of 18 solved. All done" in capsys.readouterr().out


def test_detail_of_a_solved_exercise(folder, capsys):
    written(folder, "affine_map", AFFINE)
    status, out = printed("2", capsys)
    assert status == 0
    assert out.startswith("Exercise 2, affine_map: exercises/02_affine_map.py\n")
    assert re.search(r"^ +\d+  dW +\(4, 3\) +right +\de-1\d$", out, re.MULTILINE)
    assert out.endswith("Solved. Compare with: affine_backward in npvae/ops/layers.py.\n")


def test_names_that_find_exercises(folder, capsys):
    for asked in ("2", "02", "affine_map", "02_affine_map", "02_affine_map.py", "AFFINE"):
        assert "Exercise 2, affine_map" in printed(asked, capsys)[1]
    assert "Exercise 10, gaussian_kl:" in printed("gaussian_kl", capsys)[1]  # the whole name, though another contains it


NOT_ONE = [
    ("nothing", "'nothing' is no exercise: there are 1 one_neuron, 2 affine_map, "),
    ("99", "'99' is no exercise: there are 1 one_neuron"),
    ("bernoulli", "'bernoulli' fits several exercises: 12 bernoulli_in_atoms, 13 bernoulli_fused"),
]


@pytest.mark.parametrize(("asked", "said"), NOT_ONE)
def test_names_that_find_none_or_several(asked, said, capsys):
    assert check.main([asked]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_help_teaches_and_the_script_runs(tmp_path):
    command = [sys.executable, LEARN / "check.py"]
    out = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    for needed in ("How to work.", "How it is judged.", "--mistakes", "exit status"):
        assert needed in out
    done = subprocess.run([*command, "1"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "Open: derror (line" in done.stdout


@pytest.mark.parametrize("name", ["stable_softplus", "gaussian_kl_value", "adam_step"])
def test_forward_exercises_run_by_themselves_once_solved(name, folder):
    written(folder, name, with_lines(name, SOLUTIONS[name]))
    file = folder / f"{BY_NAME[name].file}.py"
    out = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"\[[^()]*\]\n", out)  # the result alone, without the cache
    file.write_text(shipped(name), encoding="utf-8")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "still open: put code in the place of `...`\n")


# ------------------------------------------------------------------------------------------------- the judge's numbers


def test_complex_step_of_an_intermediate_is_the_derivative():
    exercise = BY_NAME["gaussian_kl"]
    path = exercises.FOLDER / f"{exercise.file}.py"
    forward = verdict.Forward(path, verdict.load(path), "gaussian_kl_forward", exercise.arguments)
    dkl = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(forward.gradient("variance", [dkl]), 0.5 * dkl, rtol=1e-14)
    slope = 0.5 * np.expm1(exercise.arguments["logvar"])
    np.testing.assert_allclose(forward.gradient("logvar", [dkl]), dkl * slope, rtol=1e-12)
    ways = forward.ways("logvar", [dkl])
    assert [way.code for way in ways] == ["variance = np.exp(logvar)", "kl = 0.5 * (square + variance - 1 - logvar)"]
    assert [way.target for way in ways] == ["variance", "kl"]
    np.testing.assert_allclose(sum(way.share for way in ways), forward.gradient("logvar", [dkl]), rtol=1e-12)
    np.testing.assert_allclose(ways[0].slope, np.exp(exercise.arguments["logvar"]), rtol=1e-12)
    np.testing.assert_allclose(ways[1].slope, -0.5, rtol=1e-12)


def test_comparison_of_arrays_that_are_not_finite():
    assert findings.fits(np.array([1, np.inf]), np.array([1, np.inf]))
    assert not findings.fits(np.array([2, np.inf]), np.array([1, np.inf]))
    assert not findings.fits(np.array([1, np.nan]), np.array([1.0, 2]))
    assert findings.error_of(np.array([1.0, 2e-18]), np.array([1.0, 1e-18])) < 1e-17
    assert findings.error_of(np.array([1.0, 2e-18]), np.array([1.0, 1e-18]), entrywise=True) == 1
    assert not findings.fits(np.array([1.0, 2e-18]), np.array([1.0, 0]), entrywise=True)


def test_a_named_factor_is_no_one_in_disguise():
    right = np.array([1.0, 2, 3])
    assert findings.named_factor(2 * right, right, {"one": 1.0, "signs": np.array([1, -1, 1])}) == ""
    assert findings.named_factor(2 * right, right, {"wrong_shape": np.ones((2, 2)), "text": "2"}) == ""
    assert findings.named_factor(1.4 * right, right, {"beta": 0.7}).startswith("it is the right one times 2 * beta: ")
    assert findings.named_factor(-right / 0.7, right, {"beta": 0.7}).startswith("it is the right one times 1 / beta and -1: ")
    assert findings.named_factor(right**3, right, {"right": right}).startswith("it is the right one times right**2: it is mul")
