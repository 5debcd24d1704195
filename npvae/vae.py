"""The variational autoencoder: `VAE.forward` and `VAE.backward` are mirror images, line for line.

Shapes: B batch, D data (n_features), H hidden, L latent (n_latent), S samples per datum.
"""

from typing import NamedTuple

import numpy as np

from npvae import bounds, checkpoint, checks
from npvae.backend import BACKENDS, load_ops
from npvae.latent import clip_logvar_forward, split_posterior
from npvae.layers import ACTIVATIONS
from npvae.likelihood import accumulator, bernoulli_mean
from npvae.parameters import INITIALIZATIONS, check_dtype, shapes_of, size_of, views_of, zeros

LIKELIHOODS = ("bernoulli", "gaussian")
MAX_PARAMETERS = 2**31  # 8 GB of float32: beyond this a size is a slip of the keyboard


class Terms(NamedTuple):
    """The loss and its parts in nats, summed over dimensions, mean over the batch (and over samples)."""

    loss: float  # nll + beta * kl, −ELBO for beta = 1; of the objective "iwae" its bound, which is at most that
    nll: float
    kl: float  # in closed form; of "iwae" the mean over its samples
    n_clipped: int  # log-variances of this batch that were clipped


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the caches of the ops."""

    objective: str
    encoder: list
    latent: tuple
    decoder: list
    nll: tuple
    bound: tuple


class VAE:
    """A variational autoencoder with diagonal Gaussian posterior and prior N(0, I). Kingma & Welling 2013.

    n_features       D, width of the data
    n_latent         L, width of z
    hidden           widths of the encoder's hidden layers; may be empty
    activation       "relu", "tanh", "sigmoid", "softplus" or "silu", of every hidden layer
    likelihood       "bernoulli" (x in [0, 1], logits) or "gaussian" (mean, with fixed standard deviation sigma)
    backend          "numba" (compiled ops) or "numpy" (the ops as they read)
    dtype            "float32" to train, "float64" to check, "complex128" for the complex step
    seed             of the initial weights
    decoder_hidden   widths of the decoder's hidden layers; the encoder's in reverse if None
    sigma            standard deviation of the Gaussian likelihood, in units of x
    initialization   of the weights: "glorot" (uniform, Glorot & Bengio 2010) or "he" (normal, He et al. 2015); biases are zero

    `theta` is the flat vector of every parameter, `parameters` maps names to its views. Raises ValueError for what cannot
    be: unknown names, sizes below 1 or of more than 2^31 parameters.
    """

    def __init__(self, n_features, n_latent=2, hidden=(400,), activation="relu", likelihood="bernoulli", backend="numba",
                 dtype="float32", seed=0, decoder_hidden=None, sigma=0.1, initialization="glorot"):  # fmt: skip
        checks.choice("activation", activation, [name for name in ACTIVATIONS if name != "identity"])
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        checks.choice("backend", backend, BACKENDS)
        checks.choice("initialization", initialization, list(INITIALIZATIONS))
        self.dtype = check_dtype(dtype)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_latent = checks.integer("n_latent", n_latent, 1)
        self.hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
        decoder_hidden = self.hidden[::-1] if decoder_hidden is None else decoder_hidden
        self.decoder_hidden = tuple(checks.integer("decoder_hidden", width, 1) for width in decoder_hidden)
        self.activation, self.likelihood, self.backend = activation, likelihood, backend
        self.sigma = checks.number("sigma", sigma, 0, exclusive=True)
        self.seed, self.initialization = checks.integer("seed", seed, 0), initialization
        self.ops = load_ops(backend)
        self.encoder_layers = [*((f"encoder.{i}", activation) for i in range(len(self.hidden))), ("posterior", "identity")]
        self.decoder_layers = [
            *((f"decoder.{i}", activation) for i in range(len(self.decoder_hidden))),
            ("likelihood", "identity"),
        ]
        self.shapes = shapes_of(self.n_features, self.hidden, self.n_latent, self.decoder_hidden)
        n_parameters = size_of(self.shapes)
        if n_parameters > MAX_PARAMETERS:
            raise ValueError(f"n_features, n_latent and hidden ask for {n_parameters:,} parameters; at most {MAX_PARAMETERS:,}")
        self._theta = zeros((n_parameters,), self.dtype)
        self.parameters = views_of(self._theta, self.shapes)
        INITIALIZATIONS[initialization](self.parameters, np.random.default_rng(self.seed))

    @property
    def theta(self):
        """Every parameter, 1-D. Assignment copies into it, so that the views in `parameters` stay."""
        return self._theta

    @theta.setter
    def theta(self, values):
        self._theta[:] = values

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, eps, beta=1.0, objective="elbo", check=True, batch_size=None):
        """Loss of a batch: mean over the batch of nll + beta kl, or another bound on −log p(x).

        x (B, D); eps (B, L) standard normal noise, or (S, B, L) for S samples per datum;
        beta the weight of the KL (Higgins et al. 2017; 1 gives −ELBO), a number or one for each latent dimension, (L,);
        objective "elbo", with nll averaged over the samples (`bounds.elbo_forward`), or "iwae", the importance-weighted bound
        (`bounds.iwae_forward`). Returns Terms and the cache for `backward`, which refers to x, eps and theta: call backward
        before they change. check=False skips the validation of x and eps, for arrays of the model's dtype that were checked
        before. Where x is one shard of a batch of `batch_size` rows, terms and gradients are the shard's shares: over the
        shards they add up to those of the batch.
        """
        if check:
            x, eps = self.check_data(x), self.check_noise(eps, len(x))
            checks.choice("objective", objective, bounds.OBJECTIVES)
        eps = eps[None] if objective == "iwae" and eps.ndim == 2 else eps
        posterior, encoder_cache = self._layers_forward(x, self.encoder_layers)  # (B, D) -> (B, 2L)
        if objective == "elbo":
            (z, kl, n_clipped), latent_cache = self.ops.latent_forward(posterior, eps)  # -> (S, B, L), (B, L)
        else:
            (z, kl, n_clipped), latent_cache = self.ops.latent_sampled_forward(posterior, eps)  # -> (S, B, L), (S, B, L)
        z = z.reshape(-1, self.n_latent)  # -> (S B, L)
        output, decoder_cache = self._layers_forward(z, self.decoder_layers)  # (S B, L) -> (S B, D)
        output = output.reshape(*eps.shape[:-1], self.n_features)  # -> (S, B, D)
        nll, nll_cache = self.nll_forward(output, x)  # (S, B, D), (B, D) -> (S, B)
        n_rows = len(x) if batch_size is None else batch_size
        bound_forward = bounds.elbo_forward if objective == "elbo" else bounds.iwae_forward
        loss, bound_cache = bound_forward(nll, kl, beta, n_rows)

        mean_nll, mean_kl = nll.mean(), kl.sum(axis=-1, dtype=accumulator(kl)).mean()
        share = len(x) / n_rows
        terms = Terms(loss.item(), share * mean_nll.item(), share * mean_kl.item(), int(n_clipped))
        return terms, Cache(objective, encoder_cache, latent_cache, decoder_cache, nll_cache, bound_cache)

    def backward(self, cache, out=None):
        """Gradient of forward's loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        grads = views_of(np.empty_like(self.theta) if out is None else out, self.shapes)
        bound_backward = bounds.elbo_backward if cache.objective == "elbo" else bounds.iwae_backward
        dnll, dkl = bound_backward(1.0, cache.bound)  # -> (S, B), (B, L) or (S, B, L)
        doutput = self.nll_backward(dnll, cache.nll)  # (S, B) -> (S, B, D)
        doutput = doutput.reshape(-1, self.n_features)  # -> (S B, D)
        dz = self._layers_backward(doutput, self.decoder_layers, cache.decoder, grads)  # (S B, D) -> (S B, L)
        dz = dz.reshape(*dnll.shape, self.n_latent)  # -> (S, B, L)
        if cache.objective == "elbo":
            dposterior = self.ops.latent_backward(dz, dkl, cache.latent)  # (S, B, L), (B, L) -> (B, 2L)
        else:
            dposterior = self.ops.latent_sampled_backward(dz, dkl, cache.latent)  # (S, B, L), (S, B, L) -> (B, 2L)
        self._layers_backward(dposterior, self.encoder_layers, cache.encoder, grads, need_dx=False)
        return grads

    def gradient(self, x, eps, beta=1.0, objective="elbo", out=None, batch_size=None, workspace=None):
        """`forward`, then `backward`, in one call that need not keep what is between them: what a training step uses.

        x (B, D), eps, beta and objective as in forward, not checked; out (P,) gets the gradient; workspace: a `workspace` to
        be used again. Returns Terms and a number that no square of an entry of the gradient exceeds.
        """
        out = np.empty_like(self.theta) if out is None else out
        batch_size = len(x) if batch_size is None else batch_size
        if self.ops.gradient is None or self.dtype.kind == "c":
            with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
                terms, cache = self.forward(x, eps, beta, objective, check=False, batch_size=batch_size)
                self.backward(cache, out)
                return terms, np.dot(out, out)
        workspace = self.workspace(*eps.shape[-2::-1]) if workspace is None else workspace
        *terms, bound = self.ops.gradient(self, x, eps, beta, objective, batch_size, out, workspace)
        return Terms(*terms), bound

    def workspace(self, n_rows, n_samples=1):
        """Buffers for `gradient` of at most n_rows rows with n_samples samples each; None where the back end has none."""
        return None if self.ops.workspace is None else self.ops.workspace(self, n_rows, n_samples)

    def _layers_forward(self, h, layers):
        """A stack of dense layers, a list of (name, activation): h (B, n_in) -> (B, n_out), caches in order."""
        caches = []
        for name, activation in layers:
            W, b = self.parameters[f"{name}.W"], self.parameters[f"{name}.b"]
            h, cache = self.ops.dense_forward(h, W, b, activation)
            caches.append(cache)
        return h, caches

    def _layers_backward(self, dh, layers, caches, grads, need_dx=True):
        """The same stack in reverse: dh (B, n_out) -> (B, n_in), writing every dW and db into grads."""
        for i in reversed(range(len(layers))):
            dW, db = grads[f"{layers[i][0]}.W"], grads[f"{layers[i][0]}.b"]
            dh, _, _ = self.ops.dense_backward(dh, caches[i], dW, db, need_dx or i > 0)
        return dh

    def nll_forward(self, output, x):
        """−log p(x|z) of output (..., B, D) against x (B, D), unchecked: (..., B) in nats, and the cache."""
        if self.likelihood == "bernoulli":
            return self.ops.bernoulli_nll_forward(output, x)
        return self.ops.gaussian_nll_forward(output, x, self.sigma**2)

    def nll_backward(self, dnll, cache):
        """Backward of nll_forward: dnll (..., B) -> doutput (..., B, D)."""
        if self.likelihood == "bernoulli":
            return self.ops.bernoulli_nll_backward(dnll, cache)
        return self.ops.gaussian_nll_backward(dnll, cache)

    # ----------------------------------------------------------------------------------------- using a trained model

    def encode(self, x):
        """Parameters of q(z|x): x (B, D) -> mu (B, L), logvar (B, L), the latter clipped to [−30, 20]."""
        posterior, _ = self._layers_forward(self.check_data(x), self.encoder_layers)  # (B, D) -> (B, 2L)
        mu, raw = split_posterior(posterior)
        logvar, _ = clip_logvar_forward(raw)
        return mu.copy(), logvar

    def decode(self, z):
        """E[x|z]: z (B, L) -> (B, D); for the Bernoulli likelihood the probability of a one."""
        z = checks.real_array("z", z, n_columns=self.n_latent)
        output = self.decoder_output(self._convert("z", z))  # (B, L) -> (B, D)
        return bernoulli_mean(output) if self.likelihood == "bernoulli" else output

    def reconstruct(self, x):
        """E[x|z] at the posterior mean z = mu(x): (B, D) -> (B, D)."""
        mu, _ = self.encode(x)
        return self.decode(mu)

    def sample(self, n, rng=None):
        """E[x|z] for n draws of z ~ N(0, I), (n, D); rng is a Generator or a seed."""
        rng = np.random.default_rng(rng)
        return self.decode(rng.standard_normal((checks.integer("n", n, 1), self.n_latent)))

    def decoder_output(self, z):
        """The likelihood's parameters at z (B, L) of the model's dtype, unchecked: logits or means, (B, D)."""
        return self._layers_forward(z, self.decoder_layers)[0]

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    @property
    def config(self):
        """The constructor's arguments, as plain values: VAE(**model.config) has the same architecture."""
        return {
            "n_features": self.n_features,
            "n_latent": self.n_latent,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "likelihood": self.likelihood,
            "backend": self.backend,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "decoder_hidden": list(self.decoder_hidden),
            "sigma": self.sigma,
            "initialization": self.initialization,
        }

    def copy(self, **changes):
        """A model with the same theta; keywords change the constructor's, e.g. dtype="float64" or backend="numpy"."""
        twin = VAE(**{**self.config, **changes})
        twin.theta = self.theta
        return twin

    def save(self, path):
        """Write the model to one npz file, replacing it atomically; OSError where that fails."""
        checkpoint.write(path, {"theta": self.theta}, {"model": self.config})

    @classmethod
    def load(cls, path):
        """The model of a file written by `save` or of a run's checkpoint; ValueError if it is not one."""
        arrays, metadata = checkpoint.read(path)
        return cls.from_checkpoint(arrays, metadata, path)

    @classmethod
    def from_checkpoint(cls, arrays, metadata, path):
        """The model of what `checkpoint.read` returned; `path` is for the error message."""
        try:
            config, theta = metadata["model"], arrays["theta"]
            hidden = tuple(config["hidden"])
            decoder_hidden = hidden[::-1] if config.get("decoder_hidden") is None else tuple(config["decoder_hidden"])
            n_parameters = size_of(shapes_of(config["n_features"], hidden, config["n_latent"], decoder_hidden))
            if theta.size != n_parameters:  # no memory is set aside for a model that the file does not hold
                raise ValueError(f"theta of shape {theta.shape} for {n_parameters} parameters")
            model = cls(**config)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path}: not a saved npvae model ({error})") from None
        if theta.shape != model.theta.shape or theta.dtype != model.dtype:
            raise ValueError(f"{path}: theta must be {model.dtype} {model.theta.shape}; got {theta.dtype} {theta.shape}")
        checks.finite(f"{path}: theta", theta)
        model.theta = theta
        return model

    def check_data(self, x, name="x"):
        """x (B, D) as a C-contiguous array of the model's (real) dtype, or ValueError."""
        x = self._convert(name, checks.real_array(name, x, n_columns=self.n_features))
        if self.likelihood == "bernoulli":
            checks.unit_interval(name, x)
        return x

    def check_noise(self, eps, n_rows):
        """eps (B, L) or (S, B, L) as a C-contiguous array of the model's (real) dtype, or ValueError."""
        eps = self._convert("eps", checks.real_array("eps", eps, ndims=(2, 3), n_columns=self.n_latent))
        if eps.shape[-2] != n_rows:
            raise ValueError(f"eps must have one row for each of the {n_rows} rows of x; got shape {eps.shape}")
        return eps

    def _convert(self, name, array):
        """Convert to the model's dtype, for the complex step to its real one, and check that the result is finite."""
        with np.errstate(over="ignore"):  # a value beyond float32 becomes inf, which is refused below
            array = np.ascontiguousarray(array, np.float64 if self.dtype == np.complex128 else self.dtype)
        checks.finite(name, array)
        return array

    @property
    def widths(self):
        """The widths of all layers, as in "784-400-20-400-784"."""
        widths = [self.n_features, *self.hidden, self.n_latent, *self.decoder_hidden, self.n_features]
        return "-".join(map(str, widths))

    def __repr__(self):
        return (
            f"VAE({self.widths}, {self.activation}, {self.likelihood}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )
