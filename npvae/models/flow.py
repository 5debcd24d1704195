"""A normalizing flow: `Flow.forward` and, in mirrored order, `Flow.backward`.

    x ─ standardize ─▶ coupling 0 ─▶ coupling 1 ─ ... ─▶ z ─ standard normal ─▶ base ──┐
             └────────────┴──── log-determinants ────────────▶ log_det ────────────────┴─▶ loss = base − log_det

The map from x to z is invertible, so log p(x) is exact: no bound, no noise (`npvae.ops.coupling` derives it). A coupling layer
keeps some columns; a network, the conditioner, reads them and says how the others are scaled and shifted.

Shapes: B batch, D data and latent (n_features), K columns that a layer keeps, M = D − K columns that it moves.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes, views_of
from npvae.models import common, evaluate, saved
from npvae.models.protocol import Example, Measure

ROWS_PER_PASS = 4096  # where nothing is trained: keeps memory flat


class Terms(NamedTuple):
    """The loss and its parts in nats, mean over the batch."""

    loss: float  # −log p(x) = base − log_det
    base: float  # −log N(z; 0, I)
    log_det: float  # log |det ∂z/∂x|


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the caches of its ops."""

    transform: list  # of the first layer and of each coupling layer
    base: np.ndarray


class Flow:
    """A flow of affine coupling layers with the base density N(0, I): RealNVP, Dinh, Sohl-Dickstein & Bengio 2017.

    n_features       D, width of the data, at least 2: a coupling layer keeps some columns and moves the others
    n_layers         coupling layers; an even number moves all columns equally often
    hidden           widths of the hidden layers of each conditioner; empty for linear ones
    activation       "relu", "tanh", "sigmoid", "softplus" or "silu", of every hidden layer
    backend          "numba" (compiled layers) or "numpy" (the ops as they read)
    dtype            "float32" to train, "float64" to check, "complex128" for the complex step
    seed             of the initial weights
    max_scale        c: no layer scales a column by more than e^c or less than e^−c
    initialization   of the weights: "glorot" (uniform), or "he" (normal), made for relu; the last layer of each conditioner
                     starts at 0, so that the flow starts as the identity

    `theta` is the flat vector of every parameter, `parameters` maps names to its views: shift and scale.log, (D,) each, of the
    first layer, then coupling.0.0.W (K, H), coupling.0.0.b, ... of conditioner 0, and so on. Raises ValueError for what cannot
    be: unknown names, sizes too small or of more than 2^31 parameters.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "nats per datum"
    data_kind = "real"
    defaults = {"data": "toy:moons", "max_gradient_norm": 1.0}  # of `npvae train --model flow`
    terms_help = {"loss": "−log p(x)", "base": "−log p(z)", "log_det": "log |det ∂z/∂x|"}
    options = (
        Option("layers", 16, "coupling layers", options.integer(1), "n_layers", metavar="N"),
        Option("hidden", [32, 32], "widths of the hidden layers of each layer's network", options.integer(1), metavar="H",
               many=True),
        common.ACTIVATION._replace(default="tanh"),
        Option("max_scale", 2.0, "bound of each layer's log-scale", options.positive, metavar="C"),
        common.INITIALIZATION,
        Option("standardize", True, "start the first layer at the data's mean and standard deviation", options.flag,
               "standardize", "start"),
    )  # fmt: skip

    def __init__(self, n_features, n_layers=16, hidden=(32, 32), activation="tanh", backend="numba", dtype="float32", seed=0,
                 max_scale=2.0, initialization="glorot"):  # fmt: skip
        self.n_features = checks.integer("n_features", n_features, 2)
        self.n_layers = checks.integer("n_layers", n_layers, 1)
        self.hidden = common.widths_of("hidden", hidden)
        self.max_scale = checks.number("max_scale", max_scale, 0, exclusive=True)
        shapes = self.shapes(self.n_features, self.n_layers, self.hidden)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)
        self.columns = [split_columns(self.n_features, i) for i in range(self.n_layers)]
        for i in range(self.n_layers):
            self.start_conditioner(i, np.random.default_rng([self.seed, i]))

    def start_conditioner(self, i, rng):
        """Initial weights of conditioner i: its last layer is 0, and its first layer's units are spread over the data.

        Each unit of the first layer has its middle, where its input is 0, at a random point c of N(0, 1.5² I), and a slope that
        is steep enough to tell parts of the data apart: W ~ N(0, 9/K), b = −c W. With zero biases all units would have their
        middle at 0, and few kept columns (one, for data in the plane) would then give almost the same function for each.
        """
        first, last = (f"coupling.{i}.{j}" for j in (0, len(self.hidden)))
        if self.hidden:
            K, H = self.parameters[f"{first}.W"].shape
            W, c = 3 / np.sqrt(K) * rng.standard_normal((K, H)), 1.5 * rng.standard_normal((K, H))
            self.parameters[f"{first}.W"], self.parameters[f"{first}.b"] = W, -(c * W).sum(axis=0)
        self.parameters[f"{last}.W"] = 0

    @staticmethod
    def shapes(n_features, n_layers=16, hidden=(32, 32), **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        shapes = {"shift": (n_features,), "scale.log": (n_features,)}
        for i in range(n_layers):
            kept, moved = split_columns(n_features, i)
            widths = [len(kept), *hidden, 2 * len(moved)]
            shapes |= dense_shapes({f"coupling.{i}.{j}": pair for j, pair in enumerate(pairwise(widths))})
        return shapes

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, noise=None, check=True):
        """Loss of a batch, the mean of −log p(x): x (B, D) -> Terms and the cache for `backward`.

        noise is None, as `draw` gives it: a flow has none. The cache refers to x and theta: call backward before they change.
        check=False skips the validation of x.
        """
        if check:
            (x,) = self.check(x)
        (z, log_det), transform_cache = self.transform_forward(x)  # (B, D) -> (B, D), (B,)
        base, base_cache = self.ops.standard_normal_nll_forward(z)  # (B, D) -> (B,)
        terms = Terms((base - log_det).mean().item(), base.mean().item(), log_det.mean().item())
        return terms, Cache(transform_cache, base_cache)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        grads = views_of(np.empty_like(self.theta) if out is None else out, self.parameters.shapes)
        n_rows = len(cache.base)
        dbase = np.full(n_rows, dloss / n_rows)  # 1/B enters here
        dlog_det = -dbase  # loss = base − log_det
        dz = self.ops.standard_normal_nll_backward(dbase, cache.base)  # (B,) -> (B, D)
        self.transform_backward(dz, dlog_det, cache.transform, grads)
        return grads

    def transform_forward(self, x):
        """x (B, D) -> z (B, D), log |det ∂z/∂x| (B,), and the caches: the log-determinants of all layers add up."""
        (z, log_det), cache = self.ops.standardize_forward(x, self.parameters["scale.log"], self.parameters["shift"])
        caches = [cache]
        for i in range(self.n_layers):
            (z, log_det_i), cache = self.layer_forward(z, i)  # (B, D) -> (B, D), (B,)
            log_det = log_det + log_det_i
            caches.append(cache)
        return (z, log_det), caches

    def transform_backward(self, dz, dlog_det, caches, grads):
        """Backward of `transform_forward`: dz (B, D), dlog_det (B,) -> dx (B, D); fills the dict grads."""
        for i in reversed(range(self.n_layers)):
            dz, layer_grads = self.layer_backward(dz, dlog_det, caches[i + 1])
            for j, (dW, db) in enumerate(layer_grads):
                grads[f"coupling.{i}.{j}.W"][...], grads[f"coupling.{i}.{j}.b"][...] = dW, db
        dx, grads["scale.log"][...], grads["shift"][...] = self.ops.standardize_backward(dz, dlog_det, caches[0])
        return dx

    def layer_forward(self, x, i):
        """Coupling layer i: x (B, D) -> y (B, D), its log-determinant (B,), and the cache."""
        kept, moved = self.columns[i]
        output, mlp_cache = self.ops.mlp_forward(x.take(kept, axis=1), self.conditioner(i))  # (B, K) -> (B, 2M)
        (y_moved, log_det), coupling_cache = self.ops.coupling_forward(x.take(moved, axis=1), output, self.max_scale)
        y = x.copy()
        y[:, moved] = y_moved
        return (y, log_det), (kept, moved, mlp_cache, coupling_cache)

    def layer_backward(self, dy, dlog_det, cache):
        """Backward of `layer_forward`: dy (B, D), dlog_det (B,) -> dx (B, D), and (dW, db) of each layer of the conditioner."""
        kept, moved, mlp_cache, coupling_cache = cache
        dx_moved, doutput = self.ops.coupling_backward(dy.take(moved, axis=1), dlog_det, coupling_cache)  # -> (B, M), (B, 2M)
        dx_kept, layer_grads = self.ops.mlp_backward(doutput, mlp_cache)  # (B, 2M) -> (B, K)
        dx = dy.copy()
        dx[:, moved] = dx_moved
        dx[:, kept] += dx_kept  # the kept columns go on as they are, and into the conditioner: two gradients
        return dx, layer_grads

    def layer_inverse(self, y, i):
        """The x of which layer i makes y, (B, D)."""
        kept, moved = self.columns[i]
        output, _ = self.ops.mlp_forward(y.take(kept, axis=1), self.conditioner(i))  # (B, K) -> (B, 2M)
        x = y.copy()
        x[:, moved] = self.ops.coupling_inverse(y.take(moved, axis=1), output, self.max_scale)
        return x

    def transform_inverse(self, z):
        """The x of which `transform_forward` makes z, (B, D)."""
        for i in reversed(range(self.n_layers)):
            z = self.layer_inverse(z, i)
        return self.ops.standardize_inverse(z, self.parameters["scale.log"], self.parameters["shift"])

    def conditioner(self, i):
        """The network of layer i, (W, b, activation) each, as `ops.mlp_forward` takes it."""
        names = [f"coupling.{i}.{j}" for j in range(len(self.hidden) + 1)]
        return common.dense_layers(self.parameters, names, self.activation)

    # ------------------------------------------------------------------------------------------------------- training

    def draw(self, rng, x, **_):
        """The noise of a step: none."""
        return None

    def standardize(self, x):
        """Start the first layer where rows x (n, D) leave it with mean 0 and variance 1 ("actnorm", Kingma & Dhariwal 2018).

        ValueError for a column without variance, whose density would be infinite.
        """
        (x,) = self.check(x)
        mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)  # (D,)
        if not std.all():
            raise ValueError(f"x must vary in every column; column {int(np.argmin(std))} is {x[0, np.argmin(std)]} in all rows")
        self.parameters["shift"], self.parameters["scale.log"] = mean, np.log(std)

    # ----------------------------------------------------------------------------------------- using a trained model

    def transform(self, x):
        """z and log |det ∂z/∂x| in nats: x (n, D) -> (n, D), (n,)."""
        parts = [self.transform_forward(part)[0] for part in in_passes(self.check(x)[0])]
        z, log_det = (np.concatenate(values) for values in zip(*parts))
        return z, log_det

    def inverse(self, z):
        """The x of which `transform` makes z: (n, D) -> (n, D)."""
        z = checks.converted("z", checks.real_array("z", z, n_columns=self.n_features), self.dtype)
        return np.concatenate([self.transform_inverse(part) for part in in_passes(z)])

    def encode(self, x):
        """z (n, D) of x (n, D)."""
        return self.transform(x)[0]

    decode = inverse

    def log_likelihood(self, x):
        """log p(x) of each datum, exact: x (n, D) -> (n,) in nats."""
        z, log_det = self.transform(x)
        return log_det - self.ops.standard_normal_nll_forward(z)[0]

    def sample(self, n, rng=None):
        """n draws of p(x), (n, D); rng is a Generator or a seed."""
        rng = np.random.default_rng(rng)
        return self.inverse(rng.standard_normal((checks.integer("n", n, 1), self.n_features)))

    def jacobian(self, x):
        """∂z/∂x of each datum: x (n, D) -> (n, D, D), [b, k, l] = ∂z_bk/∂x_bl. One backward pass for each k."""
        (z, log_det), caches = self.transform_forward(self.check(x)[0])
        unused = views_of(np.empty_like(self.theta), self.parameters.shapes)
        rows = []
        for k in range(self.n_features):
            dz = np.zeros_like(z)
            dz[:, k] = 1
            rows.append(self.transform_backward(dz, np.zeros_like(log_det), caches, unused))  # (n, D), row k of the matrix
        return np.stack(rows, axis=1)  # D of (n, D) -> (n, D, D)

    def measure(self, x, n_samples=None, seed=0, progress=False):
        """The log-likelihood of rows x (n, D), as Measures."""
        log_p = self.log_likelihood(x)
        mean, error = float(log_p.mean()), float(log_p.std() / np.sqrt(len(log_p)))
        return [
            Measure("log_likelihood", mean, "nats", f"log p(x), exact; ± {error:.3f}, the choice of the rows"),
            Measure("log_likelihood_standard_error", error),
            *evaluate.bits_measures(self, mean),
        ]

    def pictures(self, plots, x, dataset):
        """The pictures of a run: (file name, what it shows, function that makes the Figure) each."""

        def draws():
            drawn = dataset.in_own_units(self.sample(plots.N_SAMPLES, 0))
            return plots.samples(drawn, dataset.image_shape, plots.samples_title(self))

        yield "samples.png", "draws of the model", draws
        if self.n_features == 2:
            yield "density.png", "validation rows, the model's density, and draws", lambda: plots.density(self, x)

    @classmethod
    def examples(cls, backend):
        """Two to five columns, one to four layers, every activation, conditioners of depth 0 to 3, one and several rows."""
        rng = np.random.default_rng(3)
        for D, n_layers, hidden, activation, B in [
            (2, 1, (5,), "tanh", 1), (2, 4, (6, 4), "tanh", 4), (3, 4, (), "tanh", 4), (3, 4, (6,), "relu", 3),
            (4, 3, (5, 4), "sigmoid", 4), (5, 4, (5, 4), "softplus", 3), (5, 4, (5, 4, 3), "silu", 3),
        ]:  # fmt: skip
            model = cls(D, n_layers, hidden, activation, backend, "float64", seed=4)
            model.theta += 0.3 * rng.standard_normal(model.theta.size)  # a new flow has gradients of zero
            widths = "-".join(map(str, hidden)) or "linear"
            name = f"{backend} Flow {D} columns, {n_layers} layers, {widths} {activation}, B {B}"
            yield Example(name, model, (rng.standard_normal((2 * B, D)),), {})

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def __repr__(self):
        hidden = "-".join(map(str, self.hidden)) or "linear"
        return (
            f"Flow({self.n_features}, {self.n_layers} layers of {hidden}, {self.activation}, {self.dtype.name}, "
            f"{self.backend}: {self.theta.size:,} parameters)"
        )


def split_columns(n_features, i):
    """The columns that layer i keeps, and those that it moves.

    Layers 2j and 2j + 1 split the columns by one binary digit of their number, and exchange the halves. For two columns that
    alternates between them. The next pair of layers takes the next digit, so that any two columns are separated by some layer
    (Gao, Isaacson & Krause 2020, "i-flow"), which alternating columns alone would not do.
    """
    n_digits = (n_features - 1).bit_length()
    digit = np.arange(n_features) >> (i // 2 % n_digits) & 1
    return np.flatnonzero(digit == i % 2), np.flatnonzero(digit != i % 2)


def in_passes(x):
    """Views of at most ROWS_PER_PASS rows each."""
    return [x[start : start + ROWS_PER_PASS] for start in range(0, len(x), ROWS_PER_PASS)]
