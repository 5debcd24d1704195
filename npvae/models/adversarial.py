"""A generative adversarial network: a generator of samples, and a critic that learns to tell them from data.

    critic's step      z ─ generator ─▶ x⁻,  f(x), f(x⁻) ─▶ loss of the critic, + λ (‖∂f/∂x‖ − 1)² between x and x⁻
    generator's step   z ─ generator ─▶ x⁻ ─ critic ─▶ f(x⁻) ─▶ loss of the generator

Both are multilayer perceptrons (Goodfellow et al. 2014). In the critic's step the samples are noise, as those of a sampler are:
`draw` makes them, and nothing flows back into the generator. In the generator's step the gradient passes through the critic.

There is no density, and so no likelihood. The losses do not tell how good a model is: each player's is good where the other is
bad, and neither falls to zero. Where samples and data are alike the critic can but guess, and its loss is log 4 (in the
Wasserstein form 0). How far samples are from data, `npvae.models.transport` measures.

`npvae.ops.adversarial` has the formulas, `npvae.training.turns` the optimiser.
Shapes: B batch, D data, L noise.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.numerics import accumulator
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes, size_of
from npvae.models import common, saved, transport
from npvae.models.protocol import Example, Player
from npvae.ops import adversarial, energy

ACTIVATIONS = tuple(name for name in energy.DERIVATIVES if name != "identity")  # smooth ones: f is differentiated twice
OBJECTIVES = ("wasserstein_penalty", "wasserstein", "non_saturating", "minimax")
PLAYERS = ("critic", "generator")


class Terms(NamedTuple):
    """The loss of the player whose step it is; and what either would minimise, mean over the batch."""

    loss: float  # the critic's with the penalty, or the generator's: over an epoch the mean of both kinds of steps
    critic: float  # its loss without the penalty
    generator: float
    penalty: float  # 0 in the generator's steps


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the caches of its ops, None for those of the other player's step."""

    objective: str
    loss: tuple
    samples: tuple  # of the critic on the samples
    data: tuple | None = None  # of the critic on the data
    penalty: tuple | None = None  # of the critic's slope, and of the penalty
    generator: tuple | None = None
    n_rows: int = 1


class GAN:
    """A generative adversarial network for real data with mean about 0 and standard deviation about 1.

    n_features           D, width of the data
    n_noise              L, width of the noise z ~ N(0, I) that the generator makes a sample of
    hidden, activation   of both networks; "tanh", "sigmoid", "softplus" or "silu", which have two derivatives
    n_critic             steps of the critic for each step of the generator
    weight_limit         of the objective "wasserstein": largest size of the critic's parameters after each of its steps
    backend, dtype, seed, initialization   as those of `npvae.Flow`

    Parameters: generator.0.W, generator.0.b, ..., generator.W, generator.b, then critic.0.W, ..., critic.W, critic.b. Raises
    ValueError for what cannot be.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "per datum"
    data_kind = "real"
    adam = {"beta1": 0.5, "beta2": 0.9}  # Gulrajani et al. 2017: the other player moves, so that old gradients mislead
    defaults = {"data": "toy:ring", "learning_rate": 5e-4, "batch_size": 256}  # of `npvae train --model gan`
    terms_help = {"loss": "of the player whose step it is", "critic": "without the penalty", "generator": "of the generator",
                  "penalty": "on the critic's slope"}  # fmt: skip
    options = (
        Option("noise", 2, "width of the noise z that samples are made of", options.integer(1), "n_noise", metavar="L"),
        Option("hidden", [128, 128], "widths of both networks' layers", options.integer(1), metavar="H", many=True),
        Option("activation", "silu", "of the hidden layers: " + ", ".join(ACTIVATIONS), options.one_of(*ACTIVATIONS),
               metavar="A", choices=ACTIVATIONS),
        Option("critic_steps", 5, "of the critic for each step of the generator", options.integer(1), "n_critic", metavar="N"),
        Option("weight_limit", 0.1, "largest size of the critic's parameters, of the objective wasserstein", options.positive,
               metavar="C"),
        common.INITIALIZATION,
        Option("objective", "wasserstein_penalty", "wasserstein_penalty: with a penalty on the critic's slope; wasserstein: "
               "with clipped weights; non_saturating; minimax", options.one_of(*OBJECTIVES), use="training", metavar="O",
               choices=OBJECTIVES),
        Option("penalty", 0.1, "λ of the penalty λ (‖∂f/∂x‖ − 1)², of the objective wasserstein_penalty", options.not_negative,
               use="training", metavar="P"),
    )  # fmt: skip

    def __init__(self, n_features, n_noise=2, hidden=(128, 128), activation="silu", n_critic=5, weight_limit=0.1,
                 backend="numba", dtype="float32", seed=0, initialization="glorot"):  # fmt: skip
        checks.choice("activation", activation, ACTIVATIONS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_noise = checks.integer("n_noise", n_noise, 1)
        self.hidden = common.widths_of("hidden", hidden)
        self.n_critic = checks.integer("n_critic", n_critic, 1)
        self.weight_limit = checks.number("weight_limit", weight_limit, 0, exclusive=True)
        shapes = self.shapes(self.n_features, self.n_noise, self.hidden)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)

    @staticmethod
    def shapes(n_features, n_noise=2, hidden=(128, 128), **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden, shapes = common.widths_of("hidden", hidden), {}
        for part, n_in, n_out in [("generator", n_noise, n_features), ("critic", n_features, 1)]:
            names = [*(f"{part}.{i}" for i in range(len(hidden))), part]
            shapes |= dense_shapes(dict(zip(names, pairwise([n_in, *hidden, n_out]))))
        return shapes

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, noise, player="critic", objective="wasserstein_penalty", penalty=0.1, check=True):
        """Loss of a player on a batch x (B, D) -> Terms and the cache for `backward`.

        noise is what `draw` gives: (samples (B, D), u (B,)) for the critic, z (B, L) for the generator, whose step uses x for
        the Terms alone. The cache refers to x, noise and theta: call backward before they change.
        """
        if check:
            self.check_settings(player=player, objective=objective, penalty=penalty)
            (x,), noise = self.check(x), self.checked_noise(noise, len(x), player)
        if player == "generator":
            return self.generator_forward(x, noise, objective)
        return self.critic_forward(x, *noise, objective, penalty if objective == "wasserstein_penalty" else 0.0)

    def critic_forward(self, x, samples, u, objective, weight):
        """The critic's step: x, samples (B, D), u (B,) -> Terms, Cache."""
        (loss_forward, _), (of_generator, _) = adversarial.CRITICS[objective], adversarial.GENERATORS[objective]
        of_data, data_cache = self.ops.mlp_forward(x, self.critic_layers)  # (B, D) -> (B, 1)
        of_samples, samples_cache = self.ops.mlp_forward(samples, self.critic_layers)
        loss, loss_cache = loss_forward(of_data[:, 0], of_samples[:, 0])  # (B,), (B,) -> (B,)
        penalty, penalty_cache = np.zeros_like(loss), None
        if weight:
            points = adversarial.between(x, samples, u)  # (B, D)
            (_, score), score_cache = self.ops.score_forward(points, self.critic_layers, 0.0)  # −∂f/∂x (B, D)
            penalty, slope_cache = adversarial.slope_penalty_forward(score, weight)  # (B,)
            penalty_cache = score_cache, slope_cache
        generator = mean_of(of_generator(of_samples[:, 0])[0])
        terms = Terms(mean_of(loss) + mean_of(penalty), mean_of(loss), generator, mean_of(penalty))
        return terms, Cache(objective, loss_cache, samples_cache, data_cache, penalty_cache, n_rows=len(x))

    def generator_forward(self, x, z, objective):
        """The generator's step: x (B, D), z (B, L) -> Terms, Cache."""
        (of_critic, _), (loss_forward, _) = adversarial.CRITICS[objective], adversarial.GENERATORS[objective]
        samples, generator_cache = self.ops.mlp_forward(z, self.generator_layers)  # (B, L) -> (B, D)
        of_samples, samples_cache = self.ops.mlp_forward(samples, self.critic_layers)  # (B, D) -> (B, 1)
        loss, loss_cache = loss_forward(of_samples[:, 0])  # (B,) -> (B,)
        of_data, _ = self.ops.mlp_forward(x, self.critic_layers)
        terms = Terms(mean_of(loss), mean_of(of_critic(of_data[:, 0], of_samples[:, 0])[0]), mean_of(loss), 0.0)
        return terms, Cache(objective, loss_cache, samples_cache, generator=generator_cache, n_rows=len(x))

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter, the other player's too: a dict of their names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        dmean = np.full(cache.n_rows, dloss / cache.n_rows, self.dtype)  # 1/B enters here
        if cache.generator is None:
            nothing = [(0, 0)] * len(self.generator_layers)  # the samples are noise
            return common.laid_out(self, [*nothing, *self.critic_backward(dmean, cache)], out)
        _, loss_backward = adversarial.GENERATORS[cache.objective]
        dof_samples = loss_backward(dmean, cache.loss)  # (B,)
        dsamples, critic = self.ops.mlp_backward(dof_samples[:, None], cache.samples)  # (B, 1) -> (B, D)
        _, generator = self.ops.mlp_backward(dsamples, cache.generator, False)
        return common.laid_out(self, [*generator, *critic], out)

    def critic_backward(self, dmean, cache):
        """(dW, db) of each layer of the critic in its own step: dmean (B,)."""
        _, loss_backward = adversarial.CRITICS[cache.objective]
        dof_data, dof_samples = loss_backward(dmean, cache.loss)  # (B,), (B,)
        _, grads = self.ops.mlp_backward(dof_data[:, None], cache.data, False)
        _, of_samples = self.ops.mlp_backward(dof_samples[:, None], cache.samples, False)
        grads = [(dW + dW_, db + db_) for (dW, db), (dW_, db_) in zip(grads, of_samples)]  # data and samples: two gradients
        if cache.penalty is not None:
            score_cache, slope_cache = cache.penalty
            dscore = adversarial.slope_penalty_backward(dmean, slope_cache)  # (B,) -> (B, D)
            _, of_slope = self.ops.score_backward(np.zeros_like(dmean), dscore, score_cache)
            grads = [(dW + dW_, db + db_) for (dW, db), (dW_, db_) in zip(grads, of_slope)]  # and the slope between: a third
        return grads

    # The layers of both networks, (W, b, activation) each, as `ops.mlp_forward` takes them.
    generator_layers = property(lambda self: common.layers_called(self, "generator", self.hidden, "generator"))
    critic_layers = property(lambda self: common.layers_called(self, "critic", self.hidden, "critic"))

    # ------------------------------------------------------------------------------------------- training and using

    def players(self, objective="wasserstein_penalty", **_):
        """name -> Player of the two, for `npvae.training.turns`."""
        n = size_of({name: shape for name, shape in self.parameters.shapes.items() if name.startswith("generator.")})
        limit = self.weight_limit if objective == "wasserstein" else None
        return {"critic": Player(slice(n, None), self.n_critic, limit), "generator": Player(slice(n), 1)}

    def draw(self, rng, x, player="critic", **_):
        """The noise of a step: z (B, L) for the generator; for the critic samples (B, D), and uniform u (B,) that says where
        between them and the data the slope is penalised."""
        z = rng.standard_normal((len(x), self.n_noise), self.theta.real.dtype)
        return z if player == "generator" else (self.generate(z), rng.random(len(x), z.dtype))

    def generate(self, z):
        """The generator's samples of noise z, unchecked: (n, L) -> (n, D)."""
        return self.ops.mlp_forward(z, self.generator_layers)[0]

    def sample(self, n, rng=None):
        """n samples of the generator, (n, D). rng is a Generator or a seed."""
        n, rng = checks.integer("n", n, 1), np.random.default_rng(rng)
        return self.generate(rng.standard_normal((n, self.n_noise), self.theta.real.dtype))

    def criticise(self, x):
        """f(x) of each datum, a logit for the objectives minimax and non_saturating: x (n, D) -> (n,)."""
        return self.ops.mlp_forward(*self.check(x), self.critic_layers)[0][:, 0]

    @staticmethod
    def check_settings(player="critic", objective="wasserstein_penalty", penalty=0.1):
        """ValueError for settings that cannot be."""
        checks.choice("player", player, PLAYERS)
        checks.choice("objective", objective, OBJECTIVES)
        checks.number("penalty", penalty, 0)

    @staticmethod
    def validation_settings(player="critic", **settings):
        """Validation rows are measured by the critic's loss, whosever step the last one was."""
        return settings

    def measure(self, x, n_samples=None, seed=0, progress=False):
        """How far samples are from rows x (n, D), as Measures."""
        return transport.measures(x, self.sample(len(x), seed), seed)

    def pictures(self, plots, x, dataset):
        """The pictures of a run: (file name, what it shows, function that makes the Figure) each."""

        def draws():
            drawn = dataset.in_own_units(self.sample(plots.N_SAMPLES, 0))
            return plots.samples(drawn, dataset.image_shape, plots.samples_title(self))

        yield "samples.png", "samples of the generator", draws

    @classmethod
    def examples(cls, backend):
        """Both players, every objective and activation, depth 0 to 3, several rows and columns and one."""
        rng = np.random.default_rng(3)
        for D, hidden, activation, player, objective, penalty, B in [
            (2, (5, 4), "silu", "critic", "wasserstein_penalty", 2.0, 4),
            (3, (5, 4, 3), "tanh", "critic", "wasserstein_penalty", 0.3, 3),
            (2, (), "tanh", "critic", "wasserstein_penalty", 1.0, 3),
            (1, (6,), "sigmoid", "critic", "wasserstein_penalty", 1.0, 1),
            (2, (5,), "softplus", "critic", "wasserstein", 1.0, 3),
            (3, (5, 4), "silu", "critic", "non_saturating", 1.0, 4),
            (2, (6,), "tanh", "generator", "non_saturating", 1.0, 4),
            (3, (5, 4), "silu", "generator", "minimax", 1.0, 3),
            (2, (5,), "softplus", "generator", "wasserstein_penalty", 1.0, 3),
            (1, (4,), "sigmoid", "generator", "minimax", 1.0, 1),
        ]:  # fmt: skip
            model = cls(D, 2, hidden, activation, 3, 0.1, backend, "float64", seed=4)
            settings = {"player": player, "objective": objective, "penalty": penalty}
            widths = "-".join(map(str, hidden)) or "linear"
            name = f"{backend} GAN {D} columns, {widths} {activation}, {player}, {objective}, {penalty:g}, B {B}"
            yield Example(name, model, (rng.standard_normal((2 * B, D)),), settings)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def checked_noise(self, noise, n_rows, player):
        """noise as arrays of the model's dtype: z (B, L) of the generator, (samples (B, D), u (B,)) of the critic; ValueError
        for what cannot be."""
        if player == "critic" and not (isinstance(noise, tuple) and len(noise) == 2):
            raise ValueError(f"noise of the critic's step must be (samples, u); got {type(noise).__name__}")
        parts, arrays = [("noise", noise, (2,), self.n_noise)], []
        if player == "critic":
            parts = [("samples", noise[0], (2,), self.n_features), ("u", noise[1], (1,), None)]
        for name, value, ndims, n_columns in parts:
            arrays.append(checks.converted(name, checks.real_array(name, value, ndims, n_columns), self.dtype))
            if len(value) != n_rows:
                raise ValueError(f"{name} must have a row for each of x, {n_rows}; got shape {np.shape(value)}")
        return tuple(arrays) if player == "critic" else arrays[0]

    def __repr__(self):
        widths = "-".join(map(str, self.hidden)) or "linear"
        return (
            f"GAN({self.n_features}, noise {self.n_noise}, {widths}, {self.activation}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )


def mean_of(values):
    """The mean of values (n,) as one of Python's numbers."""
    return values.mean(dtype=accumulator(values)).item()
