"""The VAE of images: convolutions in encoder and decoder, and otherwise `npvae.models.VAE`, whose methods these are.

    image ─ convolutions ─ dense layers ─▶ posterior ─(+eps) latent ─▶ z ─ dense layers ─ transposed convolutions ─▶ output

A convolution has the same few weights at every place of the image, so that what is learned in one place is known in all of
them. Each makes the image smaller by its stride, and has more channels; the decoder mirrors the encoder. LeCun et al. 1989;
in a VAE, Salimans, Kingma & Welling 2015, section 5.

Shapes: B batch, D data (n_features), L latent (n_latent), K kernel, I and O channels of input and output.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.core.parameters import Theta
from npvae.models import common, evaluate, latent_variable, objectives, saved
from npvae.models.likelihoods import SMALLEST_SIGMA, likelihood_called
from npvae.models.protocol import Example
from npvae.models.vae import POSTERIORS, VAE, Terms
from npvae.ops.convolution import EDGES, Window, made_size
from npvae.ops.full_posterior import full_posterior_width

LIKELIHOODS = ("bernoulli", "gaussian", "gaussian_global")  # with one number for each pixel
OWN = ("latent", "hidden", "likelihood", "min_sigma", "activation")  # options of the VAE that are others here


class Layer(NamedTuple):
    """The shapes of one layer."""

    W: tuple  # (n_in, n_out), or of a convolution (K, K, I, O), or of a transposed one (I, K, K, O)
    n_biases: int
    window: Window | None = None  # None of a dense layer


class ConvolutionalVAE:
    """A VAE whose encoder begins, and whose decoder ends, with convolutions.

    n_features       D, pixels of an image
    channels         of each convolution of the encoder, which the decoder mirrors; at least one
    kernel, stride   K, width of every kernel, and the pixels from one of its places to the next: each convolution makes n rows
                     and columns n/stride, rounded up, with padding as that takes
    edges            what lies beyond the edges: "zeros", or "periodic", the opposite edge, for lattices that have none
    hidden           widths of the dense layers between convolutions and latent; may be empty
    image_rows       rows of an image, a divisor of D; or "square"
    activation       silu: MNIST is learned faster than with relu (benchmarks/README.md)
    likelihood       "bernoulli", "gaussian" or "gaussian_global"
    The others are those of `npvae.VAE`. Parameters: encoder.0.W (K, K, 1, O), encoder.0.b (O,) ... the dense layers' ...
    posterior.b, decoder.0.W (L, H) ... the transposed convolutions' (I, K, K, O) ... likelihood.W (I, K, K, 1), likelihood.b
    (D,), a bias for each pixel.
    """

    theta, ops = Theta(), common.ops
    Terms, units, terms_help = Terms, VAE.units, VAE.terms_help
    options = (
        Option("latent", 32, "dimensions of the latent z", options.integer(1), "n_latent", metavar="L"),
        Option("channels", [32, 64], "of each convolution of the encoder, which the decoder mirrors", options.integer(1),
               metavar="C", many=True),
        Option("kernel", 4, "pixels along a side of every convolution's kernel, at least the stride", options.integer(1),
               metavar="K"),
        Option("stride", 2, "pixels from one place of a kernel to the next: each convolution makes images smaller by this "
               "factor", options.integer(1), metavar="N"),
        Option("edges", "zeros", "what lies beyond the edges of an image: zeros, or periodic, the opposite edge, for lattices",
               options.one_of(*EDGES), metavar="E", choices=EDGES),
        Option("image_rows", "square", "rows of an image; square: as many as it has columns",
               options.word_or("square", options.integer(1)), metavar="N"),
        Option("hidden", [256], "widths of the dense layers between convolutions and latent; none for no such layer",
               options.integer(1), metavar="H", many=True),
        Option("likelihood", "bernoulli", "bernoulli, for data in [0, 1] (grey levels are binarised afresh for every "
               "minibatch); gaussian, with fixed --sigma; gaussian_global, with one learned variance",
               options.one_of(*LIKELIHOODS), metavar="K", choices=LIKELIHOODS),
        Option("min_sigma", SMALLEST_SIGMA, "smallest standard deviation that gaussian_global may learn, in units of the data",
               options.positive, metavar="S"),
        common.ACTIVATION._replace(default="silu"),
        *(option for option in VAE.options if option.name not in OWN),
    )  # fmt: skip

    def __init__(self, n_features, n_latent=32, channels=(32, 64), kernel=4, stride=2, hidden=(256,), activation="silu",
                 likelihood="bernoulli", backend="numba", dtype="float32", seed=0, edges="zeros", image_rows="square",
                 sigma=0.1, initialization="glorot", min_sigma=SMALLEST_SIGMA, posterior="diagonal"):  # fmt: skip
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        checks.choice("posterior", posterior, POSTERIORS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_latent = checks.integer("n_latent", n_latent, 1)
        self.channels, self.hidden = common.widths_of("channels", channels), common.widths_of("hidden", hidden)
        self.kernel, self.stride = checks.integer("kernel", kernel, 1), checks.integer("stride", stride, 1)
        self.edges, self.image_rows, self.likelihood, self.posterior = edges, image_rows, likelihood, posterior
        self.sigma = checks.number("sigma", sigma, 0, exclusive=True)
        self.min_sigma = checks.number("min_sigma", min_sigma, 0, exclusive=True)
        self.p_x_given_z = likelihood_called(likelihood, self.sigma, self.min_sigma)
        sizes = self.n_features, self.n_latent, self.channels, self.kernel, self.stride, self.hidden
        self.layers = layers_of(*sizes, edges, image_rows, posterior)
        shapes = self.shapes(*sizes, likelihood, edges, image_rows, posterior)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)
        initialize_filters(self.parameters, self.layers, self.stride, initialization, np.random.default_rng((self.seed, 1)))

    @staticmethod
    def shapes(n_features, n_latent=32, channels=(32, 64), kernel=4, stride=2, hidden=(256,), likelihood="bernoulli",
               edges="zeros", image_rows="square", posterior="diagonal", **_):  # fmt: skip
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        layers = layers_of(n_features, n_latent, channels, kernel, stride, hidden, edges, image_rows, posterior)
        shapes = {}
        for name, layer in layers.items():
            shapes[f"{name}.W"], shapes[f"{name}.b"] = layer.W, (layer.n_biases,)
        return shapes | likelihood_called(likelihood).shapes

    # ---------------------------------------------------------------------------------------------- forward, backward

    forward, backward, gradient = VAE.forward, VAE.backward, VAE.gradient
    nll_forward, nll_backward = common.nll_forward, common.nll_backward

    def workspace(self, n_rows, n_samples=1, n_shards=1, **_):
        """None: `gradient` is forward, then backward."""
        return None

    @property
    def encoder(self):
        """The encoder's layers, (W, b, activation) or (W, b, activation, window), as `ops.mlp_forward` takes them."""
        return self.layers_up_to("encoder", "posterior")

    @property
    def decoder(self):
        """The decoder's layers."""
        return self.layers_up_to("decoder", "likelihood")

    def layers_up_to(self, part, last):
        """The layers part.0, part.1, ... and `last`, which has no activation."""
        found = []
        for name, layer in self.layers.items():
            if name == last or name.startswith(part):
                activation = "identity" if name == last else self.activation
                window = () if layer.window is None else (layer.window,)
                found.append((self.parameters[f"{name}.W"], self.parameters[f"{name}.b"], activation, *window))
        return found

    # ------------------------------------------------------------------------------------------------------- training

    draw, check = latent_variable.draw, VAE.check
    check_settings = staticmethod(objectives.check_settings)
    validation_settings = staticmethod(objectives.validation_settings)
    couples_rows, join = staticmethod(objectives.couples_rows), staticmethod(objectives.join)
    data_kind, set_output_bias = VAE.data_kind, VAE.set_output_bias

    # ----------------------------------------------------------------------------------------- using a trained model

    encode, decode, draw_data = latent_variable.encode, VAE.decode, VAE.draw_data
    reconstruct, sample, log_likelihood, measure = VAE.reconstruct, VAE.sample, VAE.log_likelihood, VAE.measure
    encoder_output, decoder_output = VAE.encoder_output, VAE.decoder_output
    infer, nll = latent_variable.infer, latent_variable.nll_of

    def pictures(self, plots, x, dataset):
        """The pictures of a run: those of a VAE, and the kernels at both ends."""
        yield from plots.latent_variable_pictures(self, x, dataset, evaluate.kl_per_dimension(self, x))
        yield from self.pictures_of_kernels(plots)

    def pictures_of_kernels(self, plots):
        """The kernels of the first layer and of the last, each over its largest entry, as `pictures` yields them."""

        def kernels(name, channels, pixels):
            def draw():
                drawn = np.moveaxis(self.parameters[name], (channels, pixels), (0, 3))[: plots.N_SAMPLES]  # (n, K, K, 1)
                drawn = drawn / np.abs(drawn).max(axis=(1, 2, 3), keepdims=True)
                return plots.samples(drawn.reshape(len(drawn), -1), drawn.shape[1:3], f"{name}, each over its largest entry")

            return draw

        yield "filters.png", "kernels of the first convolution: what it looks for", kernels("encoder.0.W", 3, 2)
        yield "strokes.png", "kernels of the last, transposed one: what images are painted with", kernels("likelihood.W", 0, 3)

    @classmethod
    def examples(cls, backend):
        """One convolution and two, with and without dense layers, both kinds of edges, strides 1 to 3, oblong images."""
        rng = np.random.default_rng(3)

        def example(image, channels, kernel, stride, hidden, activation, likelihood="bernoulli", edges="zeros", **settings):
            rows, columns = image
            convolutions = channels, kernel, stride, hidden, activation
            model = cls(rows * columns, 2, *convolutions, likelihood, backend, "float64", 4, edges, rows, sigma=0.5)
            x = rng.standard_normal((6, rows * columns))
            x = (x > 0).astype(float) if likelihood == "bernoulli" else x
            name = f"{backend} ConvolutionalVAE {model.widths} {activation} {likelihood} {edges}, K {kernel}, stride {stride}"
            return Example(name, model, (x,), settings)

        yield example((4, 4), (3,), 4, 2, (), "tanh")
        yield example((4, 8), (2, 3), 3, 2, (5,), "relu", edges="periodic")
        yield example((6, 3), (2,), 5, 3, (4,), "silu", "gaussian", n_samples=2, beta=0.5)
        yield example((3, 3), (2,), 3, 1, (), "softplus", "gaussian_global", "periodic", objective="iwae", n_samples=2)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    @property
    def widths(self):
        """The sizes of all layers of the encoder, as in "28×28-14×14×32-7×7×64-256-32"; the decoder mirrors them."""
        windows = [layer.window for layer in self.layers.values() if layer.window and not layer.window.is_transposed]
        sizes = [made_size(window, self.kernel) for window in windows]
        images = [f"{rows}×{columns}×{n}" for (rows, columns), n in zip(sizes, self.channels)]
        return "-".join([f"{windows[0].rows}×{windows[0].columns}", *images, *map(str, self.hidden), str(self.n_latent)])

    def __repr__(self):
        return (
            f"ConvolutionalVAE({self.widths}, {self.activation}, {self.likelihood}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )


def layers_of(n_features, n_latent, channels, kernel, stride, hidden, edges, image_rows, posterior):
    """name -> Layer, in the order of theta; ValueError where the sizes do not fit."""
    channels, hidden = common.widths_of("channels", channels), common.widths_of("hidden", hidden)
    checks.choice("edges", edges, EDGES)
    if not channels:
        raise ValueError("channels must be at least one number: without convolutions the model is npvae.VAE")
    if kernel < stride:
        raise ValueError(f"kernel must be at least the stride, or pixels are left out; got {kernel} and {stride}")
    layers, windows, image = {}, [], image_of(n_features, image_rows)
    for i, (n_in, n_out) in enumerate(pairwise([1, *channels])):
        windows.append(Window(*image, stride, padding_of(image, kernel, stride), edges))
        layers[f"encoder.{i}"] = Layer((kernel, kernel, n_in, n_out), n_out, windows[-1])
        image = made_size(windows[-1], kernel)
    n_small = math.prod(image) * channels[-1]
    of_posterior = full_posterior_width(n_latent) if posterior == "full" else 2 * n_latent
    names = [*(f"encoder.{len(channels) + i}" for i in range(len(hidden))), "posterior"]
    layers |= {name: Layer(widths, widths[1]) for name, widths in zip(names, pairwise([n_small, *hidden, of_posterior]))}
    names = [f"decoder.{i}" for i in range(len(hidden) + len(channels))] + ["likelihood"]
    dense = list(pairwise([n_latent, *hidden[::-1], n_small]))
    layers |= {name: Layer(widths, widths[1]) for name, widths in zip(names, dense)}
    for name, window, (n_in, n_out) in zip(names[len(dense) :], windows[::-1], pairwise([*channels[::-1], 1])):
        n_biases = n_features if name == "likelihood" else n_out
        rows, columns = made_size(window, kernel)  # which it makes the window's own images of
        mirrored = window._replace(rows=rows, columns=columns, is_transposed=True)
        layers[name] = Layer((n_in, kernel, kernel, n_out), n_biases, mirrored)
    return layers


def padding_of(image, kernel, stride):
    """Pixels before and after, such that an image of n rows becomes one of n/stride rows, rounded up."""
    n = image[0]
    total = (-(-n // stride) - 1) * stride + kernel - n
    return total // 2, -(-total // 2)


def image_of(n_features, image_rows):
    """Rows and columns of an image of so many pixels; ValueError where they cannot be."""
    is_square = isinstance(image_rows, str) and image_rows == "square"
    rows = math.isqrt(n_features) if is_square else checks.integer("image_rows", image_rows, 1)
    if n_features % rows or (is_square and rows * rows != n_features):
        raise ValueError(f"image_rows must divide the {n_features} pixels of an image, and is needed where images are not "
                         f"square; got {image_rows}")  # fmt: skip
    return rows, n_features // rows


def initialize_filters(parameters, layers, stride, initialization, rng):
    """Set W of each convolution as `npvae.core.parameters` does of dense layers, "glorot" or "he": n_in counts the numbers that
    an output is the sum of, n_out the outputs that an input has a part in."""
    for name, layer in layers.items():
        if layer.window is not None:
            is_transposed, K = layer.window.is_transposed, layer.W[1]
            n_in, n_out = layer.W[0 if is_transposed else 2] * K**2, layer.W[3] * K**2
            n_in, n_out = (n_in / stride**2, n_out) if is_transposed else (n_in, n_out / stride**2)
            if initialization == "glorot":
                bound = math.sqrt(6 / (n_in + n_out))
                parameters[f"{name}.W"] = rng.uniform(-bound, bound, layer.W)
            else:
                parameters[f"{name}.W"] = math.sqrt(2 / n_in) * rng.standard_normal(layer.W)
