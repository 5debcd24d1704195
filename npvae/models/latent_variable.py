"""What models with a Gaussian latent variable share beside their passes: noise, the posterior, samples of z and their nll.

Such a model has encoder_output(x, ...) -> posterior (B, 2L), decoder_output(z, ...) -> output (..., columns D), and a
likelihood p_x_given_z (`npvae.models.likelihoods`). What stands for "..." is the condition (B, C) of a conditional model, or
nothing.

Shapes: B batch, D data, L latent, S samples per datum.
"""

import numpy as np

from npvae import ops
from npvae.core import checks
from npvae.models.objectives import latent_ops


def draw(model, rng, x, *condition, n_samples=1, **_):
    """The noise of a step, standard normal eps (S, B, L)."""
    return rng.standard_normal((n_samples, len(x), model.n_latent), model.theta.real.dtype)


def checked_noise(model, eps, n_rows):
    """eps (B, L) or (S, B, L) as a C-contiguous array of the model's (real) dtype, or ValueError."""
    eps = checks.real_array("eps", eps, ndims=(2, 3), n_columns=model.n_latent)
    if eps.shape[-2] != n_rows:
        raise ValueError(f"eps must have one row for each of the {n_rows} rows of x; got shape {eps.shape}")
    return checks.converted("eps", eps, model.dtype)


def checked_latent(model, z):
    """z (B, L) as an array of the model's (real) dtype, or ValueError."""
    return checks.converted("z", checks.real_array("z", z, n_columns=model.n_latent), model.dtype)


def encode(model, *batch):
    """Parameters of q(z|x): x (B, D) -> mu (B, L), logvar (B, L), the latter clipped to [−30, 20]. Of a full posterior it is
    the log-variance of each z_l on its own."""
    posterior = model.encoder_output(*model.check(*batch))  # (B, D) -> (B, 2L)
    if getattr(model, "posterior", "diagonal") == "full":
        (mu, factor), _ = ops.full_posterior_forward(posterior)
        return mu.copy(), ops.marginal_logvar(factor)
    (mu, logvar), _ = ops.posterior_forward(posterior)
    return mu.copy(), logvar


def infer(model, eps, *batch, objective="iwae"):
    """z ~ q(z|x) from the noise eps (S, B, L), and log q(z|x)/p(z) in parts, both (S, B, L) in float64, the batch unchecked;
    with the objective "elbo" the parts are those of KL(q(z|x) ‖ p(z)) in closed form, (B, L)."""
    latent_forward, _ = latent_ops(ops, objective, model.posterior)
    return latent_forward(model.encoder_output(*batch).astype(np.float64), eps)[0]


def nll_of(model, z, x, *condition):
    """−log p(x|z) of samples z (S, B, L) for x (B, D), unchecked: (S, B) in nats."""
    output = model.decoder_output(z.reshape(-1, z.shape[-1]).astype(model.dtype), *condition)  # (S, B, L) -> (S B, D)
    return model.nll_forward(output.reshape(*z.shape[:-1], -1), x)[0]  # (S B, D) -> (S, B)
