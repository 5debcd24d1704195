"""The chain of VAEs: its gradients, the VAE that it is with one latent, linear chains in closed form, and what it learns."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from small_models import rows_for

import npvae
from npvae import evaluate, ppca
from npvae.app import cli
from npvae.core.numerics import log_sum_exp
from npvae.models import HierarchicalVAE, latent_chain
from npvae.models.hierarchical import TOP_KLS
from npvae.ops import bounds
from npvae.schedules import Cosine, Linear
from npvae.training import checkpoint


def problem(latent=(3, 2), hidden=(5, 4), likelihood="bernoulli", backend="numpy", B=3, S=2, **options):
    """A small model with generic biases, and a batch with noise: x, eps."""
    rng = np.random.default_rng(1)
    options = {"depth": 1, "dtype": "float64", "seed": 3, "sigma": 0.5, **options}
    model = HierarchicalVAE(6, latent, hidden, activation="tanh", likelihood=likelihood, backend=backend, **options)
    for name, value in model.parameters.items():
        if name.endswith((".b", ".logvar")):
            value[:] = 0.3 * rng.standard_normal(value.shape)
    return model, (rows_for(model, B), rng.standard_normal((S, B, model.n_latent)))


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


# ---- gradients ----

SETTINGS = [{}, {"top_kl": "sampled", "beta": 0.7}, {"objective": "iwae", "beta": 0.7}, {"free_bits_total": 9.0, "beta": 0.5}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(
    ("latent", "hidden", "backend"),
    [((2,), 4, "numpy"), ((3, 2), (), "numpy"), ((2, 3, 2), (4, 3, 3), "numpy"), ((2, 3, 2), (4, 3, 3), "numba")],
)
def test_the_gradient_is_that_of_the_complex_step(latent, hidden, settings, backend):
    model, batch = problem(latent, hidden, backend=backend)
    grads = model.backward(model.forward(*batch, **settings)[1])
    twin, expected = model.copy(dtype="complex128", backend="numpy"), np.empty(model.theta.size)
    for k in range(expected.size):
        twin.theta[k] += 1e-20j
        expected[k] = twin.forward(*batch, **settings, check=False)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("objective", bounds.OBJECTIVES)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian_global", "beta_binomial"])
def test_with_one_latent_it_is_the_vae(likelihood, backend, objective, beta):
    model, (x, eps) = problem((3,), (5,), likelihood, backend, depth=2)
    twin = npvae.VAE(6, 3, (5, 5), "tanh", likelihood, backend, "float64", sigma=0.5)
    twin.theta = model.theta
    for noise in (eps, eps[0]):
        terms, cache = model.forward(x, noise, beta, objective)
        expected, twin_cache = twin.forward(x, noise, beta, objective)
        np.testing.assert_allclose(terms, (*expected[:3], expected.kl, expected.clipped), rtol=1e-12)
        grads = flat(twin.backward(twin_cache))
        assert np.abs(flat(model.backward(cache)) - grads).max() <= 1e-12 * np.abs(grads).max()
    for ours, theirs in zip(model.encode(x), twin.encode(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_allclose(model.sample(3, 0), twin.sample(3, 0), rtol=1e-12)
    np.testing.assert_allclose(model.log_likelihood(x, 5, 0), twin.log_likelihood(x, 5, 0), rtol=1e-12)
    np.testing.assert_allclose(model.reconstruct(x), twin.reconstruct(x), rtol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=str)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian_learned"])
def test_the_gradient_is_that_of_autograd(likelihood, settings):
    torch = pytest.importorskip("torch")
    model, (x, eps) = problem((4, 3, 2), (6, 5, 4), likelihood, "numba", depth=2)
    terms, cache = model.forward(x, eps, **settings)
    grads = model.backward(cache)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in model.parameters.items()}

    def network(h, part, last):
        for i in range(model.depth):
            h = torch.tanh(h @ p[f"{part}.{i}.W"] + p[f"{part}.{i}.b"])
        return h @ p[f"{last}.W"] + p[f"{last}.b"]

    def normal(output):
        mu, raw = output.chunk(2, dim=-1)
        return torch.distributions.Normal(mu, torch.exp(raw.clamp(-30, 20) / 2))

    x_t, noise = torch.tensor(x), torch.tensor(eps).split(model.latent, dim=-1)
    z, q, below = [], [], x_t.expand(len(eps), -1, -1)
    for t, e in enumerate(noise, 1):
        q.append(normal(network(below, f"encoder.{t}", f"posterior.{t}")))
        below = q[-1].mean + q[-1].stddev * e
        z.append(below)
    priors = [normal(network(z[t], f"prior.{t}", f"prior.{t}")) for t in (1, 2)]
    top = torch.distributions.Normal(torch.zeros_like(z[-1]), 1.0)
    kls = [q_t.log_prob(z_t) - p_t.log_prob(z_t) for q_t, p_t, z_t in zip(q, [*priors, top], z)]
    objective, beta = settings.get("objective", "elbo"), settings.get("beta", 1.0)
    if objective == "elbo" and settings.get("top_kl", "closed") == "closed":
        kls[-1] = torch.distributions.kl_divergence(q[-1], top)
    kl = sum(part.sum(-1) for part in kls)
    output = network(z[0], "decoder", "likelihood")
    if likelihood == "bernoulli":
        nll = -torch.distributions.Bernoulli(logits=output).log_prob(x_t).sum(-1)
    else:
        mean, logvar = output.chunk(2, dim=-1)
        nll = -torch.distributions.Normal(mean, torch.exp(logvar.clamp(2 * math.log(1 / 255), 20) / 2)).log_prob(x_t).sum(-1)
    loss = (nll + beta * kl).mean()
    if objective == "iwae":
        loss = -(torch.logsumexp(-nll - beta * kl, dim=0) - math.log(len(eps))).mean()
    loss.backward()
    assert terms.loss == pytest.approx(loss.item(), rel=1e-12)
    for name, tensor in p.items():
        expected = tensor.grad.numpy()
        assert np.abs(grads[name] - expected).max() <= 1e-10 * np.abs(expected).max(), name


@pytest.mark.parametrize("settings", [{}, {"objective": "iwae"}])
def test_float32_agrees_with_float64(settings):
    model, batch = problem()
    single = model.copy(dtype="float32")
    (terms, cache), (terms32, cache32) = model.forward(*batch, **settings), single.forward(*batch, **settings)
    np.testing.assert_allclose(terms32, terms, rtol=1e-5)
    grads = model.backward(cache)
    for name, value in single.backward(cache32).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, grads[name], rtol=0, atol=1e-4 * np.abs(grads[name]).max(), err_msg=name)


def test_the_share_of_clipped_log_variances_counts_those_of_all_transitions():
    """Of 3 + 2 of q and 3 of p(z_1|z_2)."""
    model, batch = problem()
    for part, first, expected in [("prior.1", 3, 3 / 8), ("posterior.2", 2, 5 / 8)]:
        model.parameters[f"{part}.b"][first:] = 40
        assert model.forward(*batch)[0].clipped == expected


# ---- linear chains, solved in closed form ----


def linear_chain():
    """z_2 ~ N(0, I), z_1|z_2 ~ N(z_2 A + a, diag(s)), x|z_1 ~ N(z_1 W + b, σ² I), where the rows of W are orthogonal and A has
    at most one entry in each column: then the posteriors are diagonal, and q is set to them. Returns the model, and the mean
    and covariance of x."""
    rng, sigma = np.random.default_rng(5), 0.5
    model = HierarchicalVAE(6, (3, 2), (), likelihood="gaussian", backend="numpy", dtype="float64", sigma=sigma)
    A, a, s = np.array([[1.5, 0, 0], [0, -0.8, 0]]), rng.standard_normal(3), np.array([0.5, 1.2, 0.7])
    W, b = (np.linalg.qr(rng.standard_normal((6, 3)))[0] * [2.0, 1.0, 0.7]).T, rng.standard_normal(6)
    variance_1 = (A**2).sum(axis=0) + s  # of z_1, (3,)
    of_q_1 = 1 / (1 / variance_1 + (W**2).sum(axis=1) / sigma**2)  # p(z_1|x): its variance, (3,)
    of_q_2 = 1 / (1 + (A**2 / s).sum(axis=1))  # p(z_2|z_1), (2,)
    gain_1, gain_2 = W.T / sigma**2 * of_q_1, A.T / s[:, None] * of_q_2  # (6, 3), (3, 2)
    p = {"prior.1.W": np.hstack([A, 0 * A]), "prior.1.b": np.concatenate([a, np.log(s)]), "likelihood.W": W, "likelihood.b": b,
         "posterior.1.W": np.hstack([gain_1, 0 * gain_1]), "posterior.2.W": np.hstack([gain_2, 0 * gain_2]),
         "posterior.1.b": np.concatenate([a / variance_1 * of_q_1 - b @ gain_1, np.log(of_q_1)]),
         "posterior.2.b": np.concatenate([-a @ gain_2, np.log(of_q_2)])}  # fmt: skip
    model.parameters.update(p)
    return model, a @ W + b, W.T @ np.diag(variance_1) @ W + sigma**2 * np.eye(6)


def test_at_the_exact_posterior_every_weight_is_the_closed_form_of_log_p():
    model, mean, covariance = linear_chain()
    rng = np.random.default_rng(6)
    x = 2 * rng.standard_normal((4, 6))
    log_p = scipy.stats.multivariate_normal(mean, covariance).logpdf(x)
    z, kl = model.infer(rng.standard_normal((5, 4, 5)), x)
    np.testing.assert_allclose(-model.nll(z, x) - kl.sum(axis=2), np.tile(log_p, (5, 1)), rtol=1e-11)
    np.testing.assert_allclose(model.log_likelihood(x, 3, 0), log_p, rtol=1e-11)
    eps = rng.standard_normal((2, 4, 5))
    for settings in ({"top_kl": "sampled"}, {"objective": "iwae"}):
        assert model.forward(x, eps, **settings)[0].loss == pytest.approx(-log_p.mean(), rel=1e-11)
    many = rng.standard_normal((20_000, 4, 5))
    loss = model.forward(x, many)[0].loss
    assert 0 < abs(loss + log_p.mean()) < 0.03


def test_both_forms_of_the_topmost_kl_agree_in_mean_and_which_varies_less_depends_on_q():
    """At the exact posterior log w is log p(x) for every z, as long as all its parts are of the same z: the sampled form has no
    variance, and the closed one has. Where q is far from the posterior it is the other way round."""
    x = np.repeat(np.random.default_rng(7).standard_normal((1, 6)), 3000, axis=0)
    eps = np.random.default_rng(8).standard_normal((3000, 5))
    wrong, _ = problem(likelihood="gaussian", hidden=())
    wrong.parameters["posterior.2.b"][:2] += 2
    for model, closed_varies_less in ((linear_chain()[0], False), (wrong, True)):
        closed, sampled = (elbo_of_rows(model, x, eps, top_kl) for top_kl in TOP_KLS)
        difference = closed - sampled
        assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(eps))
        assert (closed.var() < sampled.var()) == closed_varies_less
        assert difference.std() > 0.1


def elbo_of_rows(model, x, eps, top_kl):
    """The estimate of the ELBO from one z of each row, (B,)."""
    nll, kl, _ = model.forward(x, eps, top_kl=top_kl)[1].bound  # (1, B), (B, L)
    return -nll[0] - kl.reshape(len(x), -1).sum(axis=1)


def test_training_a_linear_chain_reaches_the_closed_form_of_log_p():
    """With variances that depend on nothing, a chain is probabilistic PCA with as many dimensions as z_1 has."""
    rng = np.random.default_rng(9)
    x = rng.standard_normal((100, 2)) @ rng.standard_normal((2, 5)) + 0.5 * rng.standard_normal((100, 5)) + 1
    best = ppca.log_likelihood(ppca.maximum_likelihood(x, 2, 0.5), x).mean()
    model = ConstantVariances(5, (2, 1), (), likelihood="gaussian", backend="numpy", dtype="float64", sigma=0.5, seed=1)
    for weights in logvar_weights(model.parameters):
        weights[:] = 0
    start = evaluate.log_likelihood(model, x, 10, 0).mean()
    npvae.fit(model, x, epochs=500, batch_size=100, optimizer=npvae.Adam(Cosine(0.05, 500)), max_gradient_norm=5.0,
              n_samples=10, progress=False)  # fmt: skip
    found = latent_chain.draws(model, x, 200, 0)
    assert start < best - 1
    assert -(found.nll + found.kl).mean() == pytest.approx(best, abs=1e-3)


def logvar_weights(named):
    """What the log-variances of a linear chain of two latents depend on their inputs by, or its gradient."""
    return [named[f"{part}.W"][:, named[f"{part}.W"].shape[1] // 2 :] for part in ("posterior.1", "posterior.2", "prior.1")]


class ConstantVariances(HierarchicalVAE):
    """A linear chain whose variances stay what they are for all inputs."""

    def backward(self, cache, dloss=1.0, out=None):
        grads = super().backward(cache, dloss, out)
        for grad in logvar_weights(grads):
            grad[:] = 0
        return grads


# ---- as probabilities ----


def log_p_on_a_grid(model, x):
    """log p(x) of a chain of two latents of one dimension each, by sums over a grid: x (n, D) -> (n,)."""
    line = np.linspace(-8, 8, 161)
    step = line[1] - line[0]
    mu, sigma = ((value[:, 0]) for value in prior_of(model, line[:, None]))
    log_p_z1_given_z2 = scipy.stats.norm.logpdf(line[:, None], mu, sigma)  # (z_1, z_2)
    log_p_z1 = log_sum_exp((log_p_z1_given_z2 + scipy.stats.norm.logpdf(line)).T) + math.log(step)  # (z_1,)
    p = model.decode(line[:, None])  # (z_1, D)
    log_p_x = x @ np.log(p).T + (1 - x) @ np.log1p(-p).T  # (n, z_1)
    return log_sum_exp((log_p_x + log_p_z1).T) + math.log(step)


def prior_of(model, above, t=1):
    """Mean and standard deviation of p(z_t|z_t+1)."""
    output, _ = model.ops.mlp_forward(above, model.priors[t - 1])
    mu, logvar = np.split(output, 2, axis=1)
    return mu, np.exp(logvar / 2)


def all_images(D):
    return (np.arange(2**D)[:, None] >> np.arange(D) & 1).astype(float)


def test_the_bounds_lie_below_log_p_and_reach_it_with_many_samples():
    model, _ = problem((1, 1), (4, 4))
    model.theta *= 1.5
    x = all_images(6)
    log_p = log_p_on_a_grid(model, x)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-4)  # over all 64 images
    found = latent_chain.draws(model, x, 200, 0)
    elbo = -found.nll - found.kl  # (S, n)
    error = elbo.std(axis=0) / np.sqrt(len(elbo))
    assert (elbo.mean(axis=0) < log_p + 4 * error).all()
    assert (log_p - elbo.mean(axis=0)).mean() > 0.05
    many = 10_000  # of 1000 the error is 0.01 itself
    gaps = [(log_p - model.log_likelihood(x, n_samples, seed)).mean() for n_samples, seed in [(20, 1), (many, 1), (many, 2)]]
    assert gaps[0] > 0.02
    assert max(map(abs, gaps[1:])) < 0.01, gaps


def test_samples_have_the_moments_of_a_linear_chain():
    model, mean, covariance = linear_chain()
    covariance = covariance - model.sigma**2 * np.eye(6)  # of E[x|z_1]
    samples = model.sample(20_000, 0)
    variance = np.diag(covariance)
    assert (np.abs(samples.mean(axis=0) - mean) < 5 * np.sqrt(variance / 20_000)).all()
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=5 * variance.max() * np.sqrt(2 / 20_000))
    np.testing.assert_array_equal(samples[:3], model.sample(20_000, np.random.default_rng(0))[:3])


def test_the_latents_of_a_datum_are_those_of_the_posterior():
    """Over all x, draws of the exact posterior have the prior's distribution: z_2 ~ N(0, I), and z_1 given z_2."""
    model, mean, covariance = linear_chain()
    x = np.random.default_rng(2).multivariate_normal(mean, covariance, 4000)
    z, _ = model.infer(np.random.default_rng(3).standard_normal((1, 4000, 5)), x)
    z_1, z_2 = z[0, :, :3], z[0, :, 3:]
    np.testing.assert_allclose(np.cov(z_2.T), np.eye(2), atol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(z_2.mean(axis=0), 0, atol=5 / np.sqrt(4000))
    mu, sigma = prior_of(model, z_2)
    u = (z_1 - mu) / sigma
    np.testing.assert_allclose(np.cov(u.T), np.eye(3), atol=5 * np.sqrt(2 / 4000))
    assert np.abs(np.corrcoef(u.T, z_2.T)[:3, 3:]).max() < 5 / np.sqrt(4000)


def test_elbo_of_the_measures_and_of_the_loss_are_one():
    model, (x, _) = problem((3, 2), (5, 4), "gaussian")
    found = latent_chain.draws(model, x, 4000, 0)
    eps = np.random.default_rng(1).standard_normal((4000, 3, 5))
    terms, _ = model.forward(x, eps)
    error = (found.nll + found.kl).mean(axis=1).std() / np.sqrt(4000)
    assert (found.nll + found.kl).mean() == pytest.approx(terms.loss, abs=6 * error)
    assert found.kl.mean() == pytest.approx(terms.kl, abs=6 * found.kl.mean(axis=1).std() / np.sqrt(4000))
    parts = latent_chain.of_each(model, found.kl_per_dimension)
    assert {name: part.shape for name, part in parts.items()} == {"latent_1": (3,), "latent_2": (2,)}
    assert sum(part.sum() for part in parts.values()) == pytest.approx(found.kl.mean(), rel=1e-12)
    assert parts["latent_2"].sum() == pytest.approx(terms.kl_top, abs=0.05)


def test_a_unit_is_active_where_x_moves_its_mean():
    """E[z_t|x] of a chain in which the first dimension of each latent hears nothing of x."""
    model, _ = problem((3, 2), (5, 4), "gaussian")
    for t, widths in ((1, 3), (2, 2)):
        W = model.parameters[f"posterior.{t}.W"]
        W[:, 0] = 0
        W[:, 1:widths] *= 5
    x = np.random.default_rng(0).standard_normal((400, 6))
    found = latent_chain.draws(model, x, 20, 0)
    active = latent_chain.of_each(model, latent_chain.active_units(found.means))
    assert active["latent_1"].tolist() == [False, True, True]
    assert active["latent_2"].tolist() == [False, True]
    assert not np.array_equal(*found.means[:, :, 3:])  # upper means come from draws of z_1, which differ
    np.testing.assert_allclose(found.means[0, :, :3], model.encode(x)[0], rtol=1e-12)
    measures = {m.name: m for m in model.measure(x, 5)}
    assert measures["active_units"].value == {"latent_1": 2, "latent_2": 1}
    assert measures["log_likelihood"].value == pytest.approx(model.log_likelihood(x, 5, 0).mean())


# ---- what it is given ----


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, eps: m.forward(x[:, :5], eps), r"x must be a real array of shape \(n, 6\)"),
        (lambda m, x, eps: m.forward(x + 1, eps), r"x must lie in \[0, 1\]"),
        (lambda m, x, eps: m.forward(x, eps[:, :, :3]), r"eps must be .* \(n, n, 5\); got shape \(2, 3, 3\)"),
        (lambda m, x, eps: m.forward(x, eps[:, :2]), "eps must have one row for each of the 3 rows of x"),
        (lambda m, x, eps: m.forward(x, eps, top_kl="exact"), "top_kl must be one of closed, sampled; got 'exact'"),
        (lambda m, x, eps: m.forward(x, eps, objective="best"), "objective must be one of elbo, iwae"),
        (lambda m, x, eps: m.decode(eps[0]), r"z must be .* \(n, 3\); got shape \(3, 5\)"),
        (lambda m, x, eps: m.decode(eps[0, :, :3], t=2), r"z must be .* \(n, 2\); got shape \(3, 3\)"),
        (lambda m, x, eps: m.encode(x, 3), "t must be an integer from 1 to 2; got 3"),
        (lambda m, x, eps: evaluate.elbo(m, x), "the KL of a chain of latents has no closed form"),
        (lambda m, x, eps: m.sample(0), "n must be an integer of at least 1; got 0"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    model, batch = problem()
    with pytest.raises(ValueError, match=f"^{message}") as error:
        call(model, *batch)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent": (3, 0)}, "latent must be an integer of at least 1; got 0"),
        ({"hidden": (4, 4, 4)}, "hidden must have one width for each of the 2 latents, or one for all, .*; got 3"),
        ({"hidden": (4, -1)}, "hidden must be an integer of at least 1; got -1"),
        ({"depth": 0}, "depth must be an integer of at least 1; got 0"),
        ({"n_features": 0}, "n_features must be an integer of at least 1; got 0"),
        ({"likelihood": "poisson"}, "likelihood must be one of bernoulli"),
        ({"sigma": 0}, "sigma must be a finite number above 0"),
        ({"min_sigma": 0}, "min_sigma must be a finite number above 0"),
        ({"latent": (10**5, 10**5), "hidden": ()}, "parameters; at most"),
    ],
)
def test_bad_constructor_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        HierarchicalVAE(**{"n_features": 6, "latent": (3, 2), "hidden": (5, 4), **arguments})
    assert "\n" not in str(error.value)


def test_parameters_stand_in_the_order_of_their_docstring():
    model = HierarchicalVAE(6, (4, 3, 2), (7, 5, 6), 1, likelihood="gaussian_learned")
    shapes = {name: value.shape for name, value in model.parameters.items() if name.endswith("W")}
    assert shapes == {
        "encoder.1.0.W": (6, 7), "posterior.1.W": (7, 8), "encoder.2.0.W": (4, 5), "posterior.2.W": (5, 6),
        "encoder.3.0.W": (3, 6), "posterior.3.W": (6, 4), "prior.2.0.W": (2, 6), "prior.2.W": (6, 6), "prior.1.0.W": (3, 5),
        "prior.1.W": (5, 8), "decoder.0.W": (4, 7), "likelihood.W": (7, 12),
    }  # fmt: skip
    assert list(shapes) == [name for name in model.parameters if name.endswith("W")]
    assert model.n_latent == 9
    assert repr(model) == (
        "HierarchicalVAE(6-7-(4)-5-(3)-6-(2), relu, gaussian_learned, float32, numba: "
        f"{model.theta.size:,} parameters)"
    )
    burda = HierarchicalVAE(784)
    assert burda.widths == "784-200-200-(100)-100-100-(50)"
    assert HierarchicalVAE(6, 3, 5).widths == "6-5-5-(3)"
    assert HierarchicalVAE(6, (4, 3), 5).parameters.shapes == HierarchicalVAE(6, (4, 3), (5, 5)).parameters.shapes
    assert "encoder.1.0.W" not in HierarchicalVAE(6, (4, 3), ()).parameters


def test_upper_latents_are_encoded_and_decoded_along_the_means():
    model, (x, _) = problem((3, 3, 3), 4)  # of one width, where a wrong order would not be seen by the shapes
    mu, _ = model.encode(x)
    np.testing.assert_allclose(model.reconstruct(x), model.decode(mu), rtol=1e-12)
    for t in (2, 3):
        output, _ = model.ops.mlp_forward(mu, model.encoders[t - 1])
        mu, logvar = model.encode(x, t)
        np.testing.assert_allclose(np.hstack([mu, logvar]), output, rtol=1e-12)
    z_2 = prior_of(model, mu, 2)[0]
    np.testing.assert_allclose(model.decode(mu, 3), model.decode(prior_of(model, z_2)[0]), rtol=1e-12)


# ---- training ----


def two_scales(n=256, seed=0):
    """Rows (n, 8) of zeros and ones: two halves, each mostly zeros or mostly ones, which agree in nine rows of ten."""
    rng = np.random.default_rng(seed)
    left = rng.random(n) < 0.5
    right = left ^ (rng.random(n) < 0.1)
    p = np.where(np.repeat(np.stack([left, right], axis=1), 4, axis=1), 0.9, 0.1)  # (n, 8)
    return (rng.random((n, 8)) < p).astype(np.float32)


def trainable(backend="numpy", **options):
    return HierarchicalVAE(8, **{"latent": (3, 2), "hidden": (8, 6), "depth": 1, "backend": backend, "seed": 4, **options})


@pytest.mark.parametrize("settings", [{"beta": Linear(100)}, {"objective": "iwae", "n_samples": 3}], ids=["warm-up", "iwae"])
def test_it_learns_what_the_rows_have_in_common(settings):
    x = two_scales()
    model = trainable("numba")
    npvae.fit(model, x, epochs=150, batch_size=64, optimizer=npvae.Adam(0.01), progress=False, **settings)
    ones = model.sample(2000, 0).reshape(2000, 2, 4).mean(axis=2) > 0.5  # the two halves
    assert 0.8 < np.mean(ones[:, 0] == ones[:, 1]) < 1
    for half in ones.T:
        assert 0.35 < half.mean() < 0.65
    assert model.log_likelihood(x, 50, 0).mean() > -8 * math.log(2) + 1


def test_resuming_goes_on_to_the_same_bits(tmp_path):
    x = two_scales(100)
    options = {"batch_size": 32, "progress": False, "seed": 3, "beta": Linear(10)}
    whole, parts = trainable(), trainable()
    history = npvae.fit(whole, x, x, epochs=4, **options)
    npvae.fit(parts, x, x, epochs=2, on_epoch=lambda state: checkpoint.save_progress(tmp_path, parts, state), **options)
    loaded, state = checkpoint.load_progress(tmp_path)
    assert type(loaded) is HierarchicalVAE
    resumed = npvae.fit(loaded, x, x, epochs=4, resume=state, **options)
    np.testing.assert_array_equal(whole.theta, loaded.theta)
    for name in ("epoch", "step", "train_loss", "train_kl_top", "val_kl"):
        np.testing.assert_array_equal(history[name], resumed[name])


def test_two_workers_share_a_batch():
    x, losses = two_scales(), []
    for workers in (1, 2):
        history = npvae.fit(trainable(), x, x, epochs=10, batch_size=64, optimizer=npvae.Adam(0.01), workers=workers,
                            progress=False)  # fmt: skip
        losses.append(history["val_loss"])
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.05)
    assert losses[1][-1] != losses[0][-1]
    assert losses[1][-1] < 0.95 * losses[1][0]


def test_the_output_bias_starts_at_the_mean_of_the_data():
    x = two_scales()
    model, twin = trainable(), npvae.VAE(8, 2, (8,), backend="numpy")
    model.set_output_bias(x)
    twin.set_output_bias(x)
    np.testing.assert_array_equal(model.parameters["likelihood.b"], twin.parameters["likelihood.b"])


def test_the_command_line_trains_it_and_uses_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", two_scales(60))
    options = "--latent 3 2 --hidden 6 5 --depth 1 --top-kl sampled --annealing-epochs 1 --epochs 2 --out run"
    assert cli.main(["train", "--model", "hierarchicalvae", "--data", "x.npy", *options.split()]) == 0
    assert {"samples.png", "reconstructions.png", "latent.png", "latent_2.png"} <= {p.name for p in Path("run").iterdir()}
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--samples", "5"]) == 0
    out = capsys.readouterr().out
    assert "HierarchicalVAE(8-6-(3)-5-(2)" in out
    assert "active units, latent 2" in out
    assert cli.main(["sample", "run", "--count", "4"]) == 0


def test_the_example_draws_from_each_latent_and_measures_both_forms_of_the_kl(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import hierarchical

    monkeypatch.setattr(hierarchical, "N_SAMPLES", 5)
    grey = np.random.default_rng(0).integers(0, 256, (100, 16), np.uint8)
    model = hierarchical.trained(2, True, grey, 1).copy(dtype="float64", backend="numpy")
    assert model.latent == hierarchical.LATENT[:2]
    x = (grey[:6] > 127).astype(float)
    images = hierarchical.from_each(model, x, 3, 0)
    assert images.shape == (2, 3, 6, 16)
    z, _ = model.infer(np.random.default_rng(0).standard_normal((3, 6, model.n_latent)), x)
    np.testing.assert_allclose(images[0, 1], model.decode(z[1, :, :40]), rtol=1e-12)
    spreads = {top_kl: hierarchical.spread(model, x[:1], top_kl, 500) for top_kl in TOP_KLS}
    eps = np.random.default_rng(0).standard_normal((500, 1, model.n_latent))
    for top_kl, found in spreads.items():
        rows = elbo_of_rows(model, np.repeat(x[:1], 500, axis=0), eps[:, 0], top_kl)
        assert found == pytest.approx(rows.std(ddof=1), rel=1e-9)
    log_p = model.log_likelihood(x, 5, 0).mean()
    assert f"{log_p:9.2f}" in hierarchical.line(model, x)
    figure = hierarchical.draw(x, images, np.zeros((49, 16)), (4, 4))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x", "from $z_1$", "from $z_2$"]
