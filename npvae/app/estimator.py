"""`npvae.VAEEstimator`: a VAE as a scikit-learn estimator, for pipelines, grid searches and cross-validation.

It needs scikit-learn (`pip install 'npvae[sklearn]'`). Shapes: n rows, D columns of the data, L latent dimensions.
"""

import zlib

import numpy as np

from npvae.core import checks
from npvae.core.randomness import generator
from npvae.data.rows import Rows
from npvae.models import evaluate
from npvae.models.likelihoods import SMALLEST_SIGMA
from npvae.models.vae import VAE
from npvae.training.fit import fit as train
from npvae.training.optim import Adam

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("npvae.VAEEstimator needs scikit-learn 1.6 or later: pip install 'npvae[sklearn]'") from error

DTYPES = (np.float64, np.float32, np.uint8)  # of X; anything else becomes the first
BINARIZATION, IMPORTANCE = 10, 11  # streams of random numbers, beside those of `npvae.core.randomness`


class VAEEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder whose latent means are features, and whose log p(x) is a score. `npvae.VAE`, `npvae.fit`.

    n_latent         L, the features that `transform` returns
    hidden           widths of the encoder's hidden layers, which the decoder mirrors; may be empty
    activation       "relu", "tanh", "sigmoid", "softplus" or "silu", of every hidden layer
    likelihood       p(x|z). For any real data: "gaussian_global" (one learned variance), "gaussian_learned" (a learned variance
                     for each column, which depends on z) or "gaussian" (the fixed standard deviation sigma). For data in
                     [0, 1]: "bernoulli", where values between 0 and 1 are probabilities of a one, as whose draws it sees them.
                     For grey levels level/255: "beta_binomial" or "categorical"
    standardize      real data: learn columns of mean 0 and standard deviation 1, made inside. What comes out is in the units of
                     X all the same. Where columns have the same unit, as pixels have, False may serve better. Zeros and ones,
                     and grey levels, are always taken as they are
    sigma            of the likelihood "gaussian"; min_sigma: the smallest standard deviation that the other two may learn. Both
                     in standard deviations of a column, with standardize=False in the units of X
    posterior        q(z|x): "diagonal" covariance, or "full"
    epochs           passes over the data; batch_size: rows per step; learning_rate: of Adam, a number or a function of the step
                     (`npvae.schedules`)
    beta             weight of the KL in the loss, a number or a function of the step; 1 is the ELBO
    n_samples        draws of z behind each value of `score_samples`
    backend          "numba" (compiled) or "numpy"
    workers          threads that share each batch; None leaves it to `npvae.fit`, and the results to the machine's cores
    random_state     of weights, order of rows and noise: a whole number for results that can be repeated
    verbose          show a progress bar and a line per epoch

    After `fit`: model_ (the VAE, whose data are the standardised columns), history_ (`npvae.History`: one row per epoch),
    mean_ and scale_ (D,), by which columns are standardised (0 and 1 where they are not), seed_ (drawn from random_state),
    n_features_in_, and feature_names_in_ where X had names.

    X (n, D) holds finite numbers. float32 and bytes (uint8) are computed in float32, anything else in float64. Bytes are
    grey levels level/255 where the likelihood is "bernoulli", "beta_binomial" or "categorical", as in `npvae.fit`, and plain
    numbers where it is real. ValueError for what cannot be used comes from `fit`: the constructor checks nothing, as
    scikit-learn demands.
    """

    def __init__(self, n_latent=2, *, hidden=(128,), activation="relu", likelihood="gaussian_global", standardize=True,
                 sigma=0.1, min_sigma=SMALLEST_SIGMA, posterior="diagonal", epochs=100, batch_size=128, learning_rate=1e-3,
                 beta=1.0, n_samples=100, backend="numba", workers=1, random_state=None, verbose=False):  # fmt: skip
        self.n_latent = n_latent
        self.hidden = hidden
        self.activation = activation
        self.likelihood = likelihood
        self.standardize = standardize
        self.sigma = sigma
        self.min_sigma = min_sigma
        self.posterior = posterior
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.beta = beta
        self.n_samples = n_samples
        self.backend = backend
        self.workers = workers
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------------------------------------------- training

    def fit(self, X, y=None):
        """Train a new VAE on X (n, D); y is not used. Returns the estimator."""
        X = validate_data(self, X, dtype=DTYPES)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        dtype = "float64" if X.dtype == np.float64 else "float32"
        self.model_ = VAE(X.shape[1], self.n_latent, self.hidden, self.activation, self.likelihood, self.backend, dtype,
                          self.seed_, sigma=self.sigma, min_sigma=self.min_sigma, posterior=self.posterior)  # fmt: skip
        self.mean_, self.scale_ = np.zeros(X.shape[1]), np.ones(X.shape[1])
        if self.standardize and self.model_.data_kind == "real":
            self.mean_, self.scale_ = mean_and_scale(X)
        rows = Rows.of(self.model_, self._standardized(X), "X")
        self.model_.set_output_bias(rows.arrays[0])
        self.history_ = train(self.model_, rows, epochs=self.epochs, batch_size=self.batch_size, beta=self.beta,
                              optimizer=Adam(self.learning_rate), seed=self.seed_, workers=self.workers,
                              progress=bool(self.verbose))  # fmt: skip
        return self

    def _standardized(self, X):
        """X (n, D) as the model sees it: (X − mean_) / scale_ for real data, other data as they are."""
        if self.model_.data_kind != "real":
            return X
        return X / self.scale_ - self.mean_ / self.scale_  # in this order the largest float64 do not overflow

    def _checked(self, X):
        """X (n, D) as a fitted estimator's model sees it, of the model's dtype."""
        check_is_fitted(self)
        (x,) = self.model_.check(self._standardized(validate_data(self, X, dtype=DTYPES, reset=False)), "X")
        return x

    def _in_units_of_X(self, x):
        """What the model says of its data, (n, D), in the units of X."""
        return (x * self.scale_ + self.mean_).astype(self.model_.dtype)

    # -------------------------------------------------------------------------------------------- X to latents and back

    def transform(self, X):
        """The latent means mu(x) of X (n, D): (n, L)."""
        x = self._checked(X)
        mu, _ = self.model_.encode(x)
        return mu

    def inverse_transform(self, X):
        """E[x|z] in the units of the data, (n, D); X (n, L) are the latents z, called X as everywhere in scikit-learn."""
        check_is_fitted(self)
        return self._in_units_of_X(self.model_.decode(check_array(X, dtype=DTYPES)))

    @property
    def _n_features_out(self):
        return self.model_.n_latent  # what `get_feature_names_out` asks for

    # ---------------------------------------------------------------------------------------------------- as a density

    def score_samples(self, X):
        """log p(x) of X (n, D), (n,) in nats: the importance-weighted estimate `npvae.evaluate.log_likelihood`.

        Of real data it is a density in the units of X: log p(x) = log p((x − mean_) / scale_) − Σ log scale_. Values between 0
        and 1 under the likelihood "bernoulli" are binarised first. The noise of a row follows from the seed and the row alone:
        its value does not depend on the rows beside it, and the errors of different rows average out in `score`.
        """
        x, model = self._checked(X), self.model_
        rows, log_p = Rows.of(model, x, "X", decides=False), np.empty(len(x))
        for i in range(len(rows)):
            own = zlib.crc32(x[i])
            (row,) = rows.batch(np.array([i]), generator(self.seed_, BINARIZATION, own))  # (1, D)
            log_p[i] = evaluate.log_likelihood(model, row, self.n_samples, generator(self.seed_, IMPORTANCE, own))[0]
        return log_p - np.log(self.scale_).sum()

    def score(self, X, y=None):
        """The mean of `score_samples`, nats per row; y is not used."""
        return float(self.score_samples(X).mean())

    def sample(self, n=1, random_state=None):
        """n draws x ~ p(x), (n, D) in the units of X: z ~ N(0, I), then x ~ p(x|z). random_state: None for the constructor's.

        The means E[x|z], without the noise of p(x|z), are `inverse_transform` of draws of z.
        """
        check_is_fitted(self)
        random_state = self.random_state if random_state is None else random_state
        rng = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))
        z = rng.standard_normal((checks.integer("n", n, 1), self.model_.n_latent))
        return self._in_units_of_X(self.model_.draw_data(z, rng))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def mean_and_scale(X):
    """Mean and standard deviation of the columns of X (n, D), (D,) each in float64; 1 in place of a deviation that is 0.

    Columns are divided by their largest value first: the squares of the largest float64 would overflow.
    """
    largest = np.abs(X).max(axis=0).astype(np.float64)
    largest[largest == 0] = 1
    columns = X / largest
    scale = columns.std(axis=0) * largest
    scale[X.min(axis=0) == X.max(axis=0)] = 1
    return columns.mean(axis=0) * largest, np.maximum(scale, np.finfo(np.float64).tiny)
