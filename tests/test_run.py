"""The cases and their checks: every case passes, and the cases visit every regime that they claim to."""

import functools
import json

import numpy as np
import pytest

import npvae
from npvae import gradcheck
from npvae.app import cli
from npvae.checking import cases, run
from npvae.models.backend import BACKENDS
from npvae.models.vae import LIKELIHOODS
from npvae.ops import bounds, latent, layers

PAIRS = cases.all_pairs()
EXAMPLES = {example.name: example for backend in BACKENDS for kind in npvae.models.classes().values()
            for example in kind.examples(backend)}  # fmt: skip


@functools.cache
def cases_of(name):
    """The cases of one example, which it trains: not where tests are collected, but where the first of them runs."""
    return list(cases.cases_of(EXAMPLES[name]))


def model_cases():
    return [case for name in EXAMPLES for case in cases_of(name)]


def assert_passes(case):
    for outcome in run.run(case):
        assert outcome.report.passed, outcome.report


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_every_pair_passes_every_check(pair):
    assert_passes(pair)


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_model_passes_every_check(name, trained):
    assert_passes(cases_of(name)[trained])


def test_these_are_all_cases_and_each_has_a_name(monkeypatch):
    names = [case.name for case in PAIRS + model_cases()]
    monkeypatch.setattr(cases, "cases_of", lambda example: cases_of(example.name))
    assert [case.name for case in cases.cases()] == names
    assert len(set(names)) == len(names)


def values_of(prefix, argument):
    """All values that the pairs whose names begin with `prefix` have for one argument."""
    pairs = [pair for pair in PAIRS if pair.name.startswith(prefix)]
    values = [np.ravel(pair.args[run.argument_names(pair).index(argument)]) for pair in pairs]
    return np.concatenate(values)


@pytest.mark.parametrize("name", cases.ACTIVATIONS)
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
    pairs = [pair for pair in PAIRS if pair.name.startswith(f"{prefix}Bernoulli nll, logit")]
    arguments = [(pair.args[0].flat[0], pair.args[1].flat[0]) for pair in pairs]
    visited = {(abs(logit), target, np.sign(logit)) for logit, target in arguments}
    expected = {(level, target, sign) for level in (0, 1, 20, 40, 100, 1e4) for target in (0, 0.3, 1) for sign in (-1, 1)}
    assert visited == {(level, target, sign if level else 0) for level, target, sign in expected}


def vae_cases(backend):
    names = [name for name, (_, model, *_) in EXAMPLES.items() if type(model) is npvae.VAE and model.backend == backend]
    return [case for name in names for case in cases_of(name)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_vaes_cover_depth_activation_likelihood_batch_samples_beta_objective_and_age(backend):
    found = vae_cases(backend)
    assert {len(case.model.hidden) for case in found} == {0, 1, 2, 3}
    assert {case.model.activation for case in found} == set(cases.ACTIVATIONS)
    assert {case.model.likelihood for case in found} == set(LIKELIHOODS)
    assert {len(case.batch[0]) for case in found} >= {1, 3, 4}
    assert {case.noise.shape[0] for case in found} >= {1, 4}
    assert {case.settings.get("beta", 1.0) for case in found} >= {0.5, 1.0, 2.0}
    assert {case.settings.get("objective", "elbo") for case in found} == set(bounds.OBJECTIVES)
    assert any(case.settings.get("free_bits_total") for case in found)
    assert any(case.settings.get("free_bits_per_dimension") for case in found)
    assert {"fresh" in case.name for case in found} == {True, False}


def test_free_bits_are_visited_where_a_dimension_counts_and_where_one_does_not():
    free = [case for case in vae_cases("numpy") if "free bits" in case.name]
    counts = [case.model.forward(*case.batch, case.noise, **case.settings)[1].bound[-1] for case in free]
    assert any(c.all() for c in counts)
    assert any(not c.all() for c in counts)


def test_models_are_at_generic_parameters_and_their_data_are_of_their_kind():
    found = model_cases()
    assert {type(case.model) for case in found} == set(npvae.models.classes().values())
    for case in found:
        assert case.model.theta.all()  # no parameter is zero
        for x in (*case.batch[:1], *case.others[:1]):
            allowed = {"binary": lambda x: np.isin(x, (0, 1)), "levels": lambda x: np.isin(np.round(255 * x, 9), range(256)),
                       "real": np.isfinite}[case.model.data_kind](x)  # fmt: skip
            assert allowed.all()


def test_the_trained_cases_are_trained_on_rows_that_they_are_not_checked_with():
    example = next(npvae.VAE.examples("numpy"))
    fresh, trained = cases.cases_of(example)
    assert np.abs(trained.model.theta - fresh.model.theta).max() > 0.3  # a hundred Adam steps of at most 0.01
    for case in (fresh, trained):
        (x,) = example.batch
        np.testing.assert_array_equal(np.concatenate([case.others[0], case.batch[0]]), x)
        losses = {"before": fresh.model.forward(*case.others, fresh.noise, **case.settings)[0].loss,
                  "after": trained.model.forward(*case.others, fresh.noise, **case.settings)[0].loss}  # fmt: skip
    assert losses["after"] < losses["before"]


def pair_called(name):
    return next(pair for pair in PAIRS if pair.name == name)


def test_pairs_are_odd_and_not_square():
    args = pair_called("affine").args
    assert len({*args[0].shape, *args[1].shape}) == 3


def wrong(pair, factor):
    """The pair with a backward that is off by a factor."""

    def backward(*args):
        grads = pair.backward(*args)
        return tuple(factor * g for g in grads) if isinstance(grads, tuple) else factor * grads

    return pair._replace(backward=backward)


def test_an_error_of_1e_8_is_seen_and_named():
    pair = pair_called("tanh")
    failed = [o.check for o in run.run(wrong(pair, 1 + 1e-8)) if not o.report.passed]
    assert failed == ["complex step"]
    failed = [o.check for o in run.run(wrong(pair, 0.9)) if not o.report.passed]
    assert failed == ["complex step", "finite differences", "Taylor"]


def test_float64_gradients_of_float32_arguments_fail():
    pair = pair_called("tanh")

    def backward(dh, cache):
        return layers.tanh_backward(dh, cache).astype(np.float64)

    report = run.float32_report(pair._replace(backward=backward))
    assert not report.passed
    assert "gradient is float64, argument is float32" in str(report)


def test_a_backward_with_an_offset_is_not_linear():
    pair = pair_called("tanh")
    report = run.linearity_report(pair._replace(backward=lambda dh, cache: layers.tanh_backward(dh, cache) + 1e-9))
    assert not report.passed
    assert "zero upstream gives a gradient of pre that is not zero" in str(report)
    report = run.linearity_report(pair._replace(backward=lambda dh, cache: dh * np.abs(dh)))
    assert report.error > run.LINEAR_THRESHOLD


def test_a_model_that_keeps_state_is_seen():
    class Forgetful(npvae.VAE):
        def forward(self, x, eps, *args, **options):
            terms, self.latest = super().forward(x, eps, *args, **options)
            return terms, self.latest

        def backward(self, cache, *args, **options):
            return super().backward(self.latest, *args, **options)

    case = next(case for case in vae_cases("numpy") if len(case.batch[0]) > 1)
    model = Forgetful(**case.model.config)
    model.theta = case.model.theta
    invariants = next(outcome.report for outcome in run.run(case._replace(model=model)) if outcome.check == "invariants")
    assert "changed when the model was used between forward and backward" in str(invariants)


def test_a_gradient_that_is_not_the_mean_of_the_rows_is_seen():
    class Summing(npvae.VAE):
        """1/B is forgotten: for the complex step alone the loss could be a sum as well."""

        def backward(self, cache, dloss=1.0, out=None):
            return super().backward(cache, dloss * len(cache.bound[1]), out)

    case = next(case for case in vae_cases("numpy") if len(case.batch[0]) > 1 and not case.settings)
    model = Summing(**case.model.config)
    model.theta = case.model.theta
    failed = [outcome.check for outcome in run.run(case._replace(model=model)) if not outcome.report.passed]
    assert "invariants" in failed
    rows = run.mean_rows(case._replace(model=model), model.backward(model.forward(*case.batch, case.noise)[1]))
    assert not any(row.passed for row in rows if row.name == "posterior.W")


def test_rows_are_cut_from_every_shape_of_noise():
    x, eps, t = np.arange(6.0).reshape(3, 2), np.arange(12.0).reshape(2, 3, 2), np.arange(3)
    assert run.rows_of(None, 1) is None
    cut = run.rows_of((x, (eps, t)), 1)
    assert cut[0].tolist() == [[2, 3]]
    assert cut[1][0].tolist() == [[[2, 3]], [[8, 9]]]
    assert cut[1][1].tolist() == [1]


def test_the_table_shows_the_worst_case_of_each_group():
    def outcome(subject, check, error):
        return run.Outcome(subject, check, gradcheck.Report(check, [gradcheck.Row("x", (1,), error, 1e-12)]))

    lines = run.table([outcome("a", "complex step", 1e-15), outcome("a, far", "complex step", 1e-3),
                          outcome("b", "Taylor", 0.05)])  # fmt: skip
    assert lines[1].split() == ["a", "2", "1.0e-03", "WRONG"]
    assert lines[2].split() == ["b", "1", "order", "1.95", "WRONG"]


@pytest.fixture
def few_cases(monkeypatch):
    few = [pair_called("relu"), pair_called("sampler")]
    for name in ("cases", "all_pairs"):
        monkeypatch.setattr(cases, name, lambda: list(few))
    return few


def test_npvae_gradcheck_prints_the_table(few_cases, capsys):
    assert cli.main(["gradcheck"]) == 0
    out = capsys.readouterr().out
    assert "all passed" in out
    assert "sampler" in out
    assert "WRONG" not in out


def test_npvae_gradcheck_fails_with_the_report(few_cases, capsys, monkeypatch):
    monkeypatch.setattr(cases, "cases", lambda: [wrong(few_cases[0], 1.01)])
    assert cli.main(["gradcheck"]) == 1
    out = capsys.readouterr().out
    assert "relu: check_pair relu_forward: FAILED" in out
    assert "WRONG" in out
    assert "FAILED, see above" in out


def test_npvae_gradcheck_json(few_cases, capsys):
    assert cli.main(["gradcheck", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is True
    assert {report["case"] for report in result["reports"]} == {"relu", "sampler"}
    assert {report["check"] for report in result["reports"]} == set(run.CHECKS)
    assert all(row["error"] <= row["threshold"] for report in result["reports"] for row in report["rows"])


def test_npvae_gradcheck_of_a_run(few_cases, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).random((40, 9)))
    assert cli.main(["train", "--data", "x.npy", "--hidden", "5", "--epochs", "1", "--out", "run"]) == 0
    capsys.readouterr()
    assert cli.main(["gradcheck", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["relu", "sampler", "run"]
    assert lines[3].endswith("ok")
    assert cli.main(["gradcheck", "run", "--json"]) == 0
    names = [report["case"] for report in json.loads(capsys.readouterr().out)["reports"]]
    assert names[-1].startswith("run, VAE(9-5-2-5-9, relu, bernoulli, float64, ")
    assert cli.main(["gradcheck", "nothing"]) == 1
    assert capsys.readouterr().err.startswith("npvae: error: nothing is not a run folder")
