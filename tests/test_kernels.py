"""Each compiled composite equals its NumPy twin, in float64 to 1e-13 and in float32 to 2e-6 of the largest value."""

import inspect
import itertools

import numpy as np
import pytest

import npvae
from npvae import kernels, ops
from npvae.kernels import diffusion, sparse, vae
from npvae.models import Diffusion, HierarchicalVAE
from npvae.models.backend import load_ops
from npvae.ops import ACTIVATIONS, bounds

DTYPES = {"float64": 1e-13, "float32": 2e-6}


def assert_twins(ours, theirs, dtype):
    """The same shapes, dtypes and values."""
    for a, b in zip(ours, theirs, strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=DTYPES[dtype] * np.abs(b).max())


OPS = [name for name, op in vars(ops).items() if callable(op) and not name.startswith("_")]


def test_the_table_of_kernels_has_every_op_with_its_signature():
    assert {"dense_forward", "mlp_backward", "latent_forward", "clipped_share", "binarize", "adam_step"} <= set(OPS)
    for name in OPS:
        ours, theirs = (inspect.signature(getattr(table, name)).parameters for table in (kernels, ops))
        assert list(ours) == list(theirs), name
        # the default of these parameters is the table's own layer
        swapped = {"dense_forward", "dense_backward", "filter_forward", "filter_backward", "derivatives"}
        assert all(ours[p].default == theirs[p].default for p in ours if p not in swapped), name


def test_compiled_ops_are_in_the_place_of_the_others():
    compiled = {name for name in OPS if getattr(kernels, name) is not getattr(ops, name)}
    pairs = ["dense", "filter", "mlp", "latent", "latent_sampled", "full_latent", "full_latent_sampled", "prior_latent",
             "prior_latent_sampled", "bernoulli_nll", "gaussian_nll", "gaussian_learned_nll", "gaussian_global_nll",
             "categorical_nll", "beta_binomial_nll", "pixel_mixture", "binary_free_energy",
             "gaussian_free_energy"]  # fmt: skip
    passes = {f"{name}_{way}" for name in pairs for way in ("forward", "backward")}
    updates = {f"{name}_step" for name in ("sgd", "momentum", "adagrad", "rmsprop", "adam")}
    assert compiled == passes | updates | {"clipped_share", "binarize", "gibbs", "anneal", "enumerated_log_partition",
                                           "score_forward", "energy_chain"}  # fmt: skip
    assert load_ops("numba") is kernels
    assert load_ops("numpy") is ops


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("need_dx", [True, False])
def test_mlp(need_dx, dtype):
    x, dh = normal(5, 30, dtype=dtype), normal(5, 4, dtype=dtype, seed=1)
    layers = [(normal(30, 110, dtype=dtype, scale=0.2), normal(110, dtype=dtype), "tanh"),
              (normal(110, 4, dtype=dtype, scale=0.2), normal(4, dtype=dtype), "identity")]  # fmt: skip
    h, caches = kernels.mlp_forward(x, layers)
    h_numpy, caches_numpy = ops.mlp_forward(x, layers)
    assert_twins([h], [h_numpy], dtype)
    dx, grads = kernels.mlp_backward(dh, caches, need_dx)
    dx_numpy, grads_numpy = ops.mlp_backward(dh, caches_numpy, need_dx)
    assert (dx is None) is (dx_numpy is None) is (not need_dx)
    assert_twins([dx] * need_dx + [*grads[0], *grads[1]], [dx_numpy] * need_dx + [*grads_numpy[0], *grads_numpy[1]], dtype)
    assert len(caches[0]) == 6  # of the compiled layer


def normal(*shape, dtype, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("B", "n_in", "n_out"), [(1, 3, 5), (7, 5, 1), (9, 20, 33)])
def test_dense(B, n_in, n_out, activation, dtype):
    x, W, b = normal(B, n_in, dtype=dtype), normal(n_in, n_out, dtype=dtype, scale=0.3), normal(n_out, dtype=dtype)
    b[0] = 25.0  # saturated
    h, cache = kernels.dense_forward(x, W, b, activation)
    h_numpy, cache_numpy = ops.dense_forward(x, W, b, activation)
    assert_twins([h], [h_numpy], dtype)
    dh = normal(B, n_out, dtype=dtype, seed=1)
    assert_twins(kernels.dense_backward(dh, cache), ops.dense_backward(dh, cache_numpy), dtype)
    dx, dW, db = kernels.dense_backward(dh, cache, need_dx=False)
    assert dx is None
    assert_twins([dW, db], ops.dense_backward(dh, cache_numpy)[1:], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_dense_over_few_nonzeros(activation, dtype):
    x = normal(9, 20, dtype=dtype) * (np.random.default_rng(1).random((9, 20)) < 0.2)
    W, b, dh = normal(20, 110, dtype=dtype, scale=0.3), normal(110, dtype=dtype), normal(9, 110, dtype=dtype, seed=1)
    kept = dh.copy()
    h, cache = kernels.dense_forward(x, W, b, activation)
    assert cache[1] is not None
    h_numpy, cache_numpy = ops.dense_forward(x, W, b, activation)
    assert_twins([h], [h_numpy], dtype)
    expected = ops.dense_backward(dh, cache_numpy)
    assert_twins(kernels.dense_backward(dh, cache), expected, dtype)
    dx, dW, db = kernels.dense_backward(dh, cache, need_dx=False)
    assert dx is None
    assert_twins([dW, db], expected[1:], dtype)
    np.testing.assert_array_equal(dh, kept)
    if dtype == "float64":
        complex_step = kernels.dense_forward(x, W + 1e-20j, b, activation)[0].imag
        expected = ops.dense_forward(x, W + 1e-20j, b, activation)[0].imag
        np.testing.assert_allclose(complex_step, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_far_beyond_the_range_of_exp_and_at_zero(activation, dtype):
    x, W, b = np.zeros((2, 1), dtype), np.zeros((1, 5), dtype), np.array([1e3, -1e3, 0, 30, -30], dtype)
    h, cache = kernels.dense_forward(x, W, b, activation)
    h_numpy, cache_numpy = ops.dense_forward(x, W, b, activation)
    np.testing.assert_allclose(h, h_numpy, rtol=DTYPES[dtype])
    dh = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], dtype)
    db, db_numpy = kernels.dense_backward(dh, cache)[2], ops.dense_backward(dh, cache_numpy)[2]
    np.testing.assert_allclose(db, db_numpy, rtol=DTYPES[dtype])


def test_relu_at_its_kink_is_flat_for_the_complex_step_too():
    h, _ = kernels.dense_forward(np.zeros((1, 1)), np.zeros((1, 1)), np.array([1e-20j]), "relu")
    assert h[0, 0] == 0


def test_latent_passes_the_gradient_on_the_bounds_and_counts_only_beyond_them():
    posterior, eps = np.array([[0.1, 0.2, 0.3, -30, 20, 20.5]]), np.ones((1, 3))
    _, cache = kernels.latent_forward(posterior, eps)
    assert kernels.clipped_share(posterior) == 1 / 3
    gradient = kernels.latent_backward(np.ones((1, 3)), np.ones((1, 3)), cache)
    assert gradient[0, 3] != 0
    assert gradient[0, 4] != 0
    assert gradient[0, 5] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 3), (1, 1, 2), (5, 7, 3)])
def test_latent(shape, dtype):
    B, L = shape[-2:]
    posterior, eps = normal(B, 2 * L, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    posterior[0, L:] = [-40, 19, 30][:L]
    (z, kl), cache = kernels.latent_forward(posterior, eps)
    (z_numpy, kl_numpy), cache_numpy = ops.latent_forward(posterior, eps)
    assert kernels.clipped_share(posterior) == ops.clipped_share(posterior) > 0
    assert_twins([z], [z_numpy], dtype)
    np.testing.assert_allclose(kl, kl_numpy, rtol=10 * DTYPES[dtype])
    dz, dkl = normal(*shape, dtype=dtype, seed=2), normal(B, L, dtype=dtype, seed=3)
    assert_twins([kernels.latent_backward(dz, dkl, cache)], [ops.latent_backward(dz, dkl, cache_numpy)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 63), (3, 5, 17)])
def test_bernoulli_nll(shape, dtype):
    logits, x = normal(*shape, dtype=dtype, scale=10), np.random.default_rng(1).random(shape[-2:]).astype(dtype)
    x.flat[0] = 1
    nll, cache = kernels.bernoulli_nll_forward(logits, x)
    nll_numpy, cache_numpy = ops.bernoulli_nll_forward(logits, x)
    assert nll.dtype == nll_numpy.dtype == np.float64
    np.testing.assert_allclose(nll, nll_numpy, rtol=DTYPES[dtype])
    dnll = normal(*shape[:-1], dtype=np.float64, seed=2)
    ours, theirs = kernels.bernoulli_nll_backward(dnll, cache), ops.bernoulli_nll_backward(dnll, cache_numpy)
    assert_twins([ours], [theirs], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bernoulli_nll_of_saturated_logits(dtype):
    """Far beyond the range of e^l: 7000 is −log p of the target 0.3 at the logit 10⁴."""
    logits, x = np.array([[1e4], [-1e4], [1e4], [-1e4]], dtype), np.array([[0.3], [0.3], [1], [0]], dtype)
    nll, cache = kernels.bernoulli_nll_forward(logits, x)
    np.testing.assert_allclose(nll, [7000, 3000, 0, 0], rtol=1e-6)
    gradient = kernels.bernoulli_nll_backward(np.ones(4), cache)
    np.testing.assert_allclose(gradient[:, 0], [0.7, -0.3, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("op", ["bernoulli_nll_forward", "dense_forward", "latent_forward"])
def test_nan_propagates(op):
    a = np.full((2, 4), np.nan)
    if op == "dense_forward":
        for activation in ACTIVATIONS:
            assert np.isnan(kernels.dense_forward(a, np.ones((4, 3)), np.ones(3), activation)[0]).all()
    elif op == "latent_forward":
        z, kl = kernels.latent_forward(a, np.ones((2, 2)))[0]
        assert np.isnan(z).all()
        assert np.isnan(kl).all()
    else:
        assert np.isnan(kernels.bernoulli_nll_forward(a, np.ones((2, 4)))[0]).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_binarisation_draws_each_grey_level_with_its_probability(dtype, backend):
    grey = np.arange(0, 256, 17, dtype=np.uint8) if dtype == np.uint8 else np.linspace(0, 1, 16, dtype=np.float32)
    scale = 1 / 255 if grey.dtype == np.uint8 else 1.0
    table = np.tile(grey, (3, 1))
    noise = np.tile(np.arange(2**16, dtype=np.uint16)[:, None], (1, 16))  # every value once: the probability itself
    x = np.full(noise.shape, np.nan, np.float32)
    assert load_ops(backend).binarize(table, np.arange(2**16) % 3, noise, scale, x) is x
    assert set(np.unique(x)) == {0, 1}
    p = x.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(p, grey * scale, atol=2**-16)
    assert p[0] == 0
    assert p[-1] == 1


def test_binarisation_takes_the_rows_asked_for():
    grey = np.array([[0, 255], [255, 0], [255, 255]], np.uint8)
    noise = np.full((2, 2), 1000, np.uint16)
    for backend in (ops, kernels):
        x = backend.binarize(grey, np.array([1, 0]), noise, 1 / 255, np.empty((2, 2)))
        np.testing.assert_array_equal(x, [[1, 0], [0, 1]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (4, 9), (7, 40)])
def test_the_list_of_nonzeros_gives_the_matrix_back_and_its_transposed(shape, density, dtype):
    x = normal(*shape, dtype=dtype) * (np.random.default_rng(1).random(shape) < density)
    x.flat[-1] = 0
    n = np.count_nonzero(x)
    assert sparse.count_nonzeros(x) == n
    starts, columns, values = np.full(shape[0] + 1, -1, np.int32), np.full(n + 1, -1, np.int32), np.full(n + 1, np.nan, dtype)
    sparse.find(x, starts, columns, values)
    assert (starts[0], starts[-1]) == (0, n)
    rebuilt = np.zeros_like(x)
    for r in range(shape[0]):
        assert list(columns[starts[r] : starts[r + 1]]) == list(np.flatnonzero(x[r]))
        rebuilt[r, columns[starts[r] : starts[r + 1]]] = values[starts[r] : starts[r + 1]]
    np.testing.assert_array_equal(rebuilt, x)
    column_starts, rows, column_values = sparse.transposed((starts, columns, values), shape[1])
    for c in range(shape[1]):
        assert list(rows[column_starts[c] : column_starts[c + 1]]) == list(np.flatnonzero(x[:, c]))
        np.testing.assert_array_equal(column_values[column_starts[c] : column_starts[c + 1]], x[x[:, c] != 0, c])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_nonzeros", [0, 1, 7, 8, 9, 16, 21])
def test_combining_rows_is_the_product(n_nonzeros, dtype):
    x, dense = np.zeros((3, 30), dtype), normal(30, 11, dtype=dtype)
    x[0, :n_nonzeros], x[2, 30 - n_nonzeros :] = normal(2, n_nonzeros, dtype=dtype, seed=1)
    starts, columns, values = np.empty(4, np.int32), np.empty(100, np.int32), np.empty(100, dtype)
    sparse.find(x, starts, columns, values)
    out = np.full((3, 11), np.nan, dtype)
    sparse.combine_rows(starts, columns, values, dense, out)
    np.testing.assert_allclose(out, x @ dense, rtol=0, atol=20 * DTYPES[dtype])


def test_products_over_nonzeros_are_for_few_of_them_and_wide_results():
    x = np.zeros((10, 100))
    x[:, : int(100 * sparse.SPARSE)] = 1
    assert sparse.nonzeros_of(x, sparse.WIDE) is not None
    assert sparse.nonzeros_of(x, sparse.WIDE - 1) is None
    x[0, -1] = 1
    assert sparse.nonzeros_of(x, sparse.WIDE) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (4, 2, 3)])
def test_latent_sampled(shape, dtype):
    B, L = shape[1:]
    posterior, eps = normal(B, 2 * L, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    posterior.flat[-1] = 25  # beyond the upper bound
    if B > 1:
        posterior[:2, L] = -31, 20  # beyond the lower one, and on the upper
        posterior[-1, L + 1] = -30 if B > 2 else 1
    (z, kl), cache = kernels.latent_sampled_forward(posterior, eps)
    (z_numpy, kl_numpy), cache_numpy = ops.latent_sampled_forward(posterior, eps)
    assert kernels.clipped_share(posterior) == ops.clipped_share(posterior) > 0
    assert_twins([z, kl], [z_numpy, kl_numpy], dtype)
    dz, dkl = normal(*shape, dtype=dtype, seed=2), normal(*shape, dtype=dtype, seed=3)
    ours, theirs = kernels.latent_sampled_backward(dz, dkl, cache), ops.latent_sampled_backward(dz, dkl, cache_numpy)
    assert_twins(list(ours.T), list(theirs.T), dtype)


@pytest.mark.parametrize("beta", [np.ones(3), np.array([0.5, 1.0, 2.0])])
@pytest.mark.parametrize("dloss", [1.0, 0.4])
def test_bounds(beta, dloss):
    nll, kl = 3 * normal(5, 4, dtype="float64"), normal(5, 4, 3, dtype="float64", seed=1)
    dnll, dkl = np.full_like(nll, np.nan), np.full_like(kl, np.nan)
    loss = vae.iwae_weights(nll, kl, beta, dloss, dnll, dkl)
    expected, cache = bounds.iwae_forward(nll, kl, beta)
    assert loss == pytest.approx(expected, rel=1e-13)
    assert_twins([dnll, dkl], bounds.iwae_backward(dloss, cache), "float64")
    loss = vae.elbo_rows(nll, kl[:1], beta, dloss, dkl[:1])
    expected, cache = bounds.elbo_forward(nll, kl[0], beta)
    assert loss == pytest.approx(expected, rel=1e-13)
    assert_twins([dkl[0]], bounds.elbo_backward(dloss, cache)[1:], "float64")


# float32 with one likelihood: what is compiled of an objective does not depend on the likelihood, and takes seconds.
@pytest.mark.parametrize("objective", bounds.OBJECTIVES)
@pytest.mark.parametrize(("likelihood", "dtype"), [("bernoulli", "float64"), ("bernoulli", "float32"), ("gaussian", "float64")])
def test_the_gradient_in_one_call_of_every_objective_and_weight_of_the_kl(objective, likelihood, dtype):
    rng, tolerance = np.random.default_rng(0), DTYPES[dtype]
    model = npvae.VAE(30, 2, (7,), "tanh", likelihood, dtype=dtype, seed=1)
    composed, x = model.copy(backend="numpy"), (rng.random((4, 30)) < 0.5).astype(dtype)
    for S, beta in itertools.product([1, 5], [0.7, np.array([0.0, 1.5])]):
        eps = rng.standard_normal((S, 4, 2)).astype(dtype)
        ours, theirs = np.full_like(model.theta, np.nan), np.full_like(model.theta, np.nan)
        terms, bound = model.gradient(x, eps, beta, objective, dloss=0.4, out=ours)
        terms_numpy, square = composed.gradient(x, eps, beta, objective, dloss=0.4, out=theirs)
        np.testing.assert_allclose(terms, terms_numpy, rtol=10 * tolerance)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=10 * tolerance * np.abs(theirs).max())
        assert square <= bound * (1 + 1e-6)


# Each activation with one likelihood: what is compiled of one does not depend on the other.
KINDS = [*((name, "bernoulli") for name in ACTIVATIONS if name != "identity"), ("relu", "gaussian")]
HIDDEN = [((5,), 1), ((110,), 3), ((105, 4, 102), 2)]
FUSED = [("tanh", "bernoulli", (), None), *((*kind, *layers) for kind in KINDS for layers in HIDDEN)]


@pytest.mark.parametrize(("activation", "likelihood", "hidden", "S"), FUSED)
def test_the_model_s_gradient_in_one_call_is_forward_then_backward(activation, likelihood, hidden, S):
    rng = np.random.default_rng(0)
    for dtype, tolerance in DTYPES.items():
        model = npvae.VAE(30, 2, hidden, activation, likelihood, dtype=dtype, seed=1)
        model.theta += (0.1 * rng.standard_normal(model.theta.size)).astype(dtype)
        composed = model.copy(backend="numpy")
        space = model.workspace(5, S or 1)
        for B, p in [(5, 0.5), (4, 0.1), (1, 0.1), (5, 0.1)]:  # in one workspace: dense and sparse, fewer rows than it is for
            x = (rng.random((B, 30)) < p) * (1 if likelihood == "bernoulli" else rng.standard_normal((B, 30)))
            x = x.astype(dtype)
            eps = rng.standard_normal((B, 2) if S is None else (S, B, 2)).astype(dtype)
            ours, theirs = np.full_like(model.theta, np.nan), np.full_like(model.theta, np.nan)
            terms, bound = model.gradient(x, eps, 0.7, dloss=0.4, out=ours, workspace=space)
            terms_numpy, square = composed.gradient(x, eps, 0.7, dloss=0.4, out=theirs)
            np.testing.assert_allclose(terms, terms_numpy, rtol=tolerance)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=5 * tolerance * np.abs(theirs).max())
            assert square <= bound * (1 + 1e-6)
            first, width = space.layers[0], len(hidden) and hidden[0]
            assert space.integers[first["is_sparse"]] == (width >= sparse.WIDE and p < sparse.SPARSE)


def assert_one_call_is_forward_then_backward(model, batch, tolerance, workspace, n=None, **settings):
    """`gradient` in this workspace, for a batch with its noise; the terms to the tolerance of the largest. For one sample of
    one row, n = 1, the bound on the sum of squares is that sum."""
    ours, theirs = np.full_like(model.theta, np.nan), np.full_like(model.theta, np.nan)
    terms, bound = model.gradient(*batch, **settings, dloss=0.4, out=ours, workspace=workspace)
    composed = model.copy(backend="numpy")
    terms_numpy, cache = composed.forward(*batch, **settings)
    composed.backward(cache, dloss=0.4, out=theirs)
    np.testing.assert_allclose(terms, terms_numpy, rtol=0, atol=tolerance * np.abs(terms_numpy).max())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
    assert type(terms) is model.Terms
    assert np.dot(theirs, theirs) <= bound * (1 + 1e-6) < np.inf
    if n == 1:
        assert bound == pytest.approx(np.dot(theirs, theirs), rel=10 * tolerance)


# One activation of each dtype: length, samples, objective and form of the topmost KL are arguments of one compiled version.
@pytest.mark.parametrize(("dtype", "activation"), [("float64", "tanh"), ("float32", "relu")])
@pytest.mark.parametrize(("latent", "hidden", "S"), [((3,), (), 1), ((3,), (4,), 2), ((3, 2), (4, 5), 1), ((2, 1, 3), (4,), 3)])
def test_the_gradient_of_a_chain_in_one_call_is_forward_then_backward(latent, hidden, S, dtype, activation):
    rng = np.random.default_rng(0)
    model = HierarchicalVAE(7, latent, hidden, 2, activation, dtype=dtype, seed=1)
    model.theta += (0.1 * rng.standard_normal(model.theta.size)).astype(dtype)
    model.parameters["posterior.1.b"][-1] = -35  # clipped
    if len(latent) > 1:
        model.parameters["prior.1.b"][-1] = 25
    workspace, betas = model.workspace(5, S), rng.random(sum(latent))
    for B, beta, settings in [(5, 0.7, {}), (1, betas, {}), (4, betas, {"top_kl": "sampled"}), (5, 0.7, {"objective": "iwae"}),
                              (5, betas, {"objective": "iwae", "top_kl": "sampled"}), (5, 1.0, {"free_bits_total": 0.3}),
                              (5, 1.0, {})]:  # fmt: skip
        x = (rng.random((B, 7)) < 0.5).astype(dtype)
        eps = rng.standard_normal((S, B, sum(latent))).astype(dtype)
        settings["beta"] = beta
        assert_one_call_is_forward_then_backward(model, (x, eps), 5 * DTYPES[dtype], workspace, S * B, **settings)


def test_a_chain_has_no_workspace_where_there_is_no_such_call():
    assert HierarchicalVAE(7).workspace(5).floats.size
    assert HierarchicalVAE(7, backend="numpy").workspace(5) is None
    assert HierarchicalVAE(7, likelihood="gaussian_global").workspace(5) is None


def test_the_network_for_the_top_of_a_chain_says_zeros():
    """N(0, I): what stands in the place of p's output is zero, and no other array lies there."""
    workspace = HierarchicalVAE(7, (3, 2), (4,)).workspace(5, 2)
    top = workspace.latents[-1]
    assert not workspace.floats[top["prior"] : top["prior"] + 5 * 2 * 2 * top["width"]].any()
    assert top["dprior"] == top["prior"] + -(-5 * 2 * 2 * top["width"] // 16) * 16  # its cache lines
    assert top["down"] == top["down_end"]


@pytest.mark.parametrize(("dtype", "activation"), [("float64", "tanh"), ("float32", "silu")])
@pytest.mark.parametrize(("likelihood", "schedule", "predicts", "hidden"), [
    ("gaussian", "linear", "noise", (5, 4)), ("gaussian", "cosine", "score", ()), ("levels", "linear", "data", (5,)),
])  # fmt: skip
def test_the_gradient_of_a_diffusion_in_one_call_is_that(likelihood, schedule, predicts, hidden, dtype, activation):
    rng = np.random.default_rng(0)
    model = Diffusion(6, 50, schedule, -7.0, 2.0, predicts, "fourier", 2, hidden, activation, likelihood, dtype=dtype)
    model.theta += (0.3 * rng.standard_normal(model.theta.size)).astype(dtype)
    workspace = model.workspace(5)
    for B in (5, 1, 4):
        x = rng.standard_normal((B, 6)) if likelihood == "gaussian" else rng.choice([0, 1, 254, 255, 100], (B, 6)) / 255
        t = np.array([1.5 / 49, 0, 0.9999, 3 / 7, 0.5])[:B]  # 1/49 * 49 is less than 1
        noise = t.astype(dtype), rng.standard_normal((2, B, 6)).astype(dtype)
        assert_one_call_is_forward_then_backward(model, (x.astype(dtype), noise), 5 * DTYPES[dtype], workspace, B)


def test_a_diffusion_in_one_call_is_of_denoising_terms_with_a_fixed_schedule():
    model = Diffusion(2, 8, hidden=(5,), dtype="float64")
    assert model.workspace(5).steps.shape == (7, 4 + 1 + 2 * 4)
    for changes in ({"schedule": "learned"}, {"time": "steps"}, {"backend": "numpy"}):
        assert Diffusion(**{**model.config, **changes}).workspace(5) is None
    assert Diffusion(2, 8, predicts="mixture", likelihood="levels").workspace(5) is None
    assert model.workspace(5, objective="continuous") is model.workspace(5, objective="consistency") is None
    x = np.random.default_rng(0).standard_normal((5, 2))
    for objective in ("continuous", "consistency"):  # as a setting that changes during training would have it
        noise = model.draw(np.random.default_rng(1), x)
        assert_one_call_is_forward_then_backward(model, (x, noise), 1e-13, model.workspace(5), objective=objective)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [-13.0, -9.0, -4.0, 0.0])
def test_the_nll_of_grey_levels(gamma, dtype):
    """From nothing but the level itself in reach to all of them, at both ends of the scale."""
    rng = np.random.default_rng(0)
    x, eps = rng.choice([0, 1, 100, 253, 255], (3, 40)) / 255, rng.standard_normal((3, 40))
    eps[0, :2] = 7, -7
    expected, _ = ops.diffusion.levels_nll_forward(2 * x - 1, eps, np.full(3, gamma))
    ours = diffusion.levels_nll(x.astype(dtype), eps.astype(dtype), np.exp(gamma / 2))
    np.testing.assert_allclose(ours, expected.sum(), rtol=0, atol=20 * DTYPES[dtype] * max(1, expected.sum()))


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_the_bound_of_a_gradient_that_is_not_finite_is_not_finite(backend):
    model = npvae.VAE(6, 2, (4,), backend=backend)
    x, eps, fine = np.ones((3, 6), np.float32), np.ones((3, 2), np.float32), model.theta.copy()
    for name in ("encoder.0.b", "likelihood.W"):
        model.theta = fine
        model.parameters[name].flat[-1] = np.nan
        terms, bound = model.gradient(x, eps)
        assert not np.isfinite(bound)
        assert not np.isfinite(terms.loss)


def test_saturated_logits_and_a_logit_of_zero_in_one_row():
    """At the logit 0 the value is ln 2 whatever the target, and the gradient ½ − x."""
    logits, x = np.array([[0.0, 0.0, -0.0, 50.0]]), np.array([[0, 1, 0.3, 1]])
    nll, cache = kernels.bernoulli_nll_forward(logits, x)
    np.testing.assert_allclose(nll, [3 * np.log(2)], rtol=1e-15)
    gradient = kernels.bernoulli_nll_backward(np.ones(1), cache)
    np.testing.assert_allclose(gradient[0, :3], [0.5, -0.5, 0.2], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 63), (3, 5, 17)])
def test_gaussian_nll(shape, dtype):
    mean, x = normal(*shape, dtype=dtype), normal(*shape[-2:], dtype=dtype, seed=1)
    nll, cache = kernels.gaussian_nll_forward(mean, x, 0.3)
    nll_numpy, cache_numpy = ops.gaussian_nll_forward(mean, x, 0.3)
    assert nll.dtype == nll_numpy.dtype == np.float64
    np.testing.assert_allclose(nll, nll_numpy, rtol=DTYPES[dtype])
    dnll = normal(*shape[:-1], dtype=np.float64, seed=2)
    ours, theirs = kernels.gaussian_nll_backward(dnll, cache), ops.gaussian_nll_backward(dnll, cache_numpy)
    assert_twins([ours], [theirs], dtype)


@pytest.mark.parametrize(("hidden", "n_rows", "n_samples", "n_shards"), [((), 1, 1, 1), ((5,), 4, 3, 2), ((110, 7), 7, 5, 3)])
def test_the_arrays_of_a_workspace_do_not_overlap_and_fill_it(hidden, n_rows, n_samples, n_shards):
    model = npvae.VAE(30, 2, hidden)
    workspace = model.workspace(n_rows, n_samples, n_shards)
    activation, layers, n_encoder, _, floats, integers, _ = workspace
    assert activation == ("relu" if hidden else "identity")
    assert floats.dtype == model.dtype
    assert n_encoder == len(hidden) + 1
    assert list(layers["need_dx"]) == [0] + [1] * (len(layers) - 1)
    in_floats, in_integers, in_theta = [], [], []
    for i, layer in enumerate(layers):
        most_rows = -(-n_rows // n_shards) * (n_samples if i >= n_encoder else 1)
        rows, n_in, n_out = n_shards * most_rows, layer["n_in"], layer["n_out"]
        n_nonzeros = int(sparse.SPARSE * most_rows * n_in) + 1
        assert (layer["most_rows"], layer["most_nonzeros"]) == (most_rows, n_nonzeros)
        in_floats += [(layer[name], rows * n) for name, n in [("pre", n_out), ("dpre", n_out), ("dx", n_in)]]
        in_floats += [(layer[name], n_shards * n_nonzeros) for name in ("values", "column_values")]
        in_floats += [(layer["db"], n_shards * n_out)]
        in_integers += [(layer[name], n_shards * n_nonzeros) for name in ("columns", "rows")]
        in_integers += [(layer["is_sparse"], n_shards)]
        in_integers += [(layer["starts"], n_shards * (most_rows + 1)), (layer["column_starts"], n_shards * (n_in + 1))]
        in_theta += [(layer["W"], n_in * n_out), (layer["b"], n_out)]
        if i in (0, n_encoder):
            in_floats += [(layer["x"], rows * n_in)]
        else:
            assert layer["x"] == layers[i - 1]["h"]
        if i in (n_encoder - 1, len(layers) - 1):
            assert not layer["activated"]
            assert layer["h"] == layer["pre"]
        else:
            assert layer["activated"]
            in_floats += [(layer["h"], rows * n_out)]
    sizes = (in_floats, floats.size, 16), (in_integers, integers.size, 16), (in_theta, model.theta.size, 1)
    for places, size, multiple in sizes:  # numbers of a cache line, but in theta
        places = sorted((int(start), int(start + -(-length // multiple) * multiple)) for start, length in places)
        assert places[0][0] == 0
        assert places[-1][1] == size
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(places))


def test_a_workspace_is_for_one_activation():
    def layer(activation):
        return np.zeros((2, 2)), np.zeros(2), activation

    with pytest.raises(ValueError, match=r"^encoder and decoder must have one activation, got relu, tanh$"):
        kernels.vae_workspace([layer("relu"), layer("identity")], [layer("tanh"), layer("identity")], 1, 1)
