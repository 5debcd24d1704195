"""The suite of gradient proofs: everything passes, and it visits every regime that it claims to."""

import json

import numpy as np
import pytest

import npvae
from npvae import cli, gradcheck, latent, layers, proofs, subjects
from npvae.subjects import ModelCase, Pair

SUBJECTS = subjects.subjects()


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_subject_passes_every_check(subject):
    for outcome in proofs.prove(subject):
        assert outcome.report.passed, outcome.report


def values_of(prefix, argument):
    """All values that the pairs whose names begin with `prefix` have for one argument."""
    pairs = [s for s in SUBJECTS if isinstance(s, Pair) and s.name.startswith(prefix)]
    values = [np.ravel(pair.args[proofs.argument_names(pair).index(argument)]) for pair in pairs]
    return np.concatenate(values)


@pytest.mark.parametrize("name", subjects.ACTIVATIONS)
def test_activations_are_visited_below_at_and_above_zero(name):
    pre = values_of(name, "pre")
    assert (pre < 0).any()
    assert (pre == 0).any()
    assert (pre > 0).any()


@pytest.mark.parametrize("prefix", ["clip logvar", "numpy latent", "numba latent"])
def test_logvar_is_visited_below_at_inside_and_above_its_bounds(prefix):
    raw = values_of(prefix, "raw" if prefix.startswith("clip") else "posterior")
    for visited in (raw < latent.LOGVAR_MIN, raw == latent.LOGVAR_MIN, raw == latent.LOGVAR_MAX, raw > latent.LOGVAR_MAX,
                    (raw > latent.LOGVAR_MIN) & (raw < latent.LOGVAR_MAX)):  # fmt: skip
        assert visited.any()


@pytest.mark.parametrize("prefix", ["", "numpy ", "numba "])
def test_logits_and_targets_are_visited_in_every_combination(prefix):
    pairs = [s for s in SUBJECTS if isinstance(s, Pair) and s.name.startswith(f"{prefix}Bernoulli nll, logit")]
    arguments = [(pair.args[0].flat[0], pair.args[1].flat[0]) for pair in pairs]
    visited = {(abs(logit), target, np.sign(logit)) for logit, target in arguments}
    expected = {(level, target, sign) for level in (0, 1, 20, 40, 100, 1e4) for target in (0, 0.3, 1) for sign in (-1, 1)}
    assert visited == {(level, target, sign if level else 0) for level, target, sign in expected}


@pytest.mark.parametrize("backend", npvae.backend.BACKENDS)
def test_models_cover_depth_activation_likelihood_batch_samples_beta_and_age(backend):
    cases = [s for s in SUBJECTS if isinstance(s, ModelCase) and s.model.backend == backend]
    assert {len(case.model.hidden) for case in cases} == {0, 1, 2, 3}
    assert {case.model.activation for case in cases} == set(subjects.ACTIVATIONS)
    assert {case.model.likelihood for case in cases} == set(npvae.vae.LIKELIHOODS)
    assert {len(case.x) for case in cases} >= {1, 3, 4}
    assert {case.eps.shape[0] for case in cases if case.eps.ndim == 3} >= {1, 4}
    assert any(case.eps.ndim == 2 for case in cases)
    assert {case.beta for case in cases} >= {0.5, 1.0, 2.0}
    assert {"fresh" in case.name for case in cases} == {True, False}
    for case in cases:
        assert all(case.model.parameters[name].all() for name in case.model.parameters)  # generic: no parameter is zero
        assert set(np.unique(case.x)) <= {0, 1} or case.model.likelihood == "gaussian"


def test_trained_cases_are_trained():
    fresh, trained = (subjects.model_at((6,), "tanh", "bernoulli", "numpy", 4, None, n)[0] for n in (0, 100))
    assert np.abs(trained.theta - fresh.theta).max() > 0.3  # a hundred Adam steps of at most 0.01


def test_pairs_are_odd_and_not_square():
    args = next(s for s in SUBJECTS if s.name == "affine").args
    assert len({*args[0].shape, *args[1].shape}) == 3


def wrong(pair, factor):
    """The pair with a backward that is off by a factor."""

    def backward(*args):
        grads = pair.backward(*args)
        return tuple(factor * g for g in grads) if isinstance(grads, tuple) else factor * grads

    return pair._replace(backward=backward)


def test_an_error_of_1e_8_is_seen_and_named():
    pair = next(s for s in SUBJECTS if s.name == "tanh")
    failed = [o.check for o in proofs.prove(wrong(pair, 1 + 1e-8)) if not o.report.passed]
    assert failed == ["complex step"]
    failed = [o.check for o in proofs.prove(wrong(pair, 0.9)) if not o.report.passed]
    assert failed == ["complex step", "finite differences", "Taylor"]


def test_float64_gradients_of_float32_arguments_fail():
    pair = next(s for s in SUBJECTS if s.name == "tanh")

    def backward(dh, cache):
        return layers.tanh_backward(dh, cache).astype(np.float64)

    report = proofs.float32_report(pair._replace(backward=backward))
    assert not report.passed
    assert "gradient is float64, argument is float32" in str(report)


def test_a_backward_with_an_offset_is_not_linear():
    pair = next(s for s in SUBJECTS if s.name == "tanh")
    report = proofs.linearity_report(pair._replace(backward=lambda dh, cache: layers.tanh_backward(dh, cache) + 1e-9))
    assert not report.passed
    assert "zero upstream gives a gradient of pre that is not zero" in str(report)
    report = proofs.linearity_report(pair._replace(backward=lambda dh, cache: dh * np.abs(dh)))
    assert report.error > proofs.LINEAR_THRESHOLD


def test_a_model_that_keeps_state_is_seen():
    class Forgetful(npvae.VAE):
        def forward(self, x, eps, *args, **options):
            terms, self.latest = super().forward(x, eps, *args, **options)
            return terms, self.latest

        def backward(self, cache, out=None):
            return super().backward(self.latest, out)

    case = next(s for s in SUBJECTS if isinstance(s, ModelCase) and len(s.x) > 1)
    model = Forgetful(**case.model.config)
    model.theta = case.model.theta
    report = proofs.model_invariants(case._replace(model=model), model.backward(model.forward(case.x, case.eps, case.beta)[1]))
    assert "changed when the model was used between forward and backward" in str(report)


def test_the_table_shows_the_worst_case_of_each_group():
    def outcome(subject, check, error):
        return proofs.Outcome(subject, check, gradcheck.Report(check, [gradcheck.Row("x", (1,), error, 1e-12)]))

    lines = proofs.table([outcome("a", "complex step", 1e-15), outcome("a, far", "complex step", 1e-3),
                          outcome("b", "Taylor", 0.05)])  # fmt: skip
    assert lines[1].split() == ["a", "2", "1.0e-03", "WRONG"]
    assert lines[2].split() == ["b", "1", "order", "1.95", "WRONG"]


@pytest.fixture
def few_subjects(monkeypatch):
    few = [s for s in SUBJECTS if s.name in ("relu", "sampler")]
    monkeypatch.setattr(subjects, "subjects", lambda: list(few))
    return few


def test_npvae_gradcheck_prints_the_table(few_subjects, capsys):
    assert cli.main(["gradcheck"]) == 0
    out = capsys.readouterr().out
    assert "all passed" in out
    assert "sampler" in out
    assert "WRONG" not in out


def test_npvae_gradcheck_fails_with_the_report(few_subjects, capsys, monkeypatch):
    monkeypatch.setattr(subjects, "subjects", lambda: [wrong(few_subjects[0], 1.01)])
    assert cli.main(["gradcheck"]) == 1
    out = capsys.readouterr().out
    assert "relu: check_pair relu_forward: FAILED" in out
    assert "WRONG" in out
    assert "FAILED, see above" in out


def test_npvae_gradcheck_json(few_subjects, capsys):
    assert cli.main(["gradcheck", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is True
    assert {report["subject"] for report in result["reports"]} == {"relu", "sampler"}
    assert {report["check"] for report in result["reports"]} == set(proofs.CHECKS)
    assert all(row["error"] <= row["threshold"] for report in result["reports"] for row in report["rows"])


def test_npvae_gradcheck_of_a_run(few_subjects, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).random((40, 9)))
    assert cli.main(["train", "--data", "x.npy", "--hidden", "5", "--epochs", "1", "--out", "run"]) == 0
    capsys.readouterr()
    assert cli.main(["gradcheck", "run"]) == 0
    assert "run VAE 9-5-2-5-9 relu bernoulli" in capsys.readouterr().out
    assert cli.main(["gradcheck", "nothing"]) == 1
    assert capsys.readouterr().err.startswith("npvae: error: nothing is not a run folder")
