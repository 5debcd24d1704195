"""`npvae.ops.bits_back` compiled: a block of rows in one call that holds no lock, so that messages can be made side by side.

The steps of a row are the same source, but for some loops over vectors: the twins with an underscore, which run where a kernel
names the function of `npvae.ops.bits_back`.
"""

import numpy as np

import npvae.kernels.codes  # noqa: F401  in place of the functions of npvae.ops
from npvae.kernels.compile import stand_ins, strict_jit
from npvae.ops import bits_back
from npvae.ops.bits_back import LARGEST_OUTPUT, LOGVAR_MAX, LOGVAR_MIN, NLL, NLL_CODED
from npvae.ops.codes import N_SLOTS, PRECISION
from npvae.ops.reproducible import LOG2_E, exp, log, softplus


def encode(coder, rows, message):
    """`npvae.ops.bits_back.encode`."""
    rows, message, totals = bits_back.prepared(coder, rows, message)
    encode_rows(coder, rows, message, totals)
    return message, totals


def decode(coder, n_rows, message):
    """`npvae.ops.bits_back.decode`."""
    message, rows = bits_back.room_for(coder, n_rows, message)
    decode_rows(coder, rows, message)
    return message, rows


def _looked_up(values, numbers):
    x = np.empty(numbers.size)
    for k in range(numbers.size):
        x[k] = values[numbers[k]]
    return x


def _bounded(output):
    for k in range(output.size):
        output[k] = output[k] if -LARGEST_OUTPUT < output[k] < LARGEST_OUTPUT else 0.0
    return output


def _spread_of(posterior, n_latent):
    logvar, sigma = np.empty(n_latent), np.empty(n_latent)
    for l in range(n_latent):
        raw = posterior[n_latent + l]
        logvar[l] = (raw if raw < LOGVAR_MAX else LOGVAR_MAX) if raw > LOGVAR_MIN else LOGVAR_MIN
        sigma[l] = exp(0.5 * logvar[l])
    return logvar, sigma


def _count_bernoulli(logits, table, x, totals):
    for d in range(x.size):
        totals[NLL] += softplus(-logits[d] if x[d] > 0 else logits[d]) * LOG2_E
    for d in range(x.size):
        totals[NLL_CODED] += PRECISION - log(1.0 * (table[d] if x[d] > 0 else N_SLOTS - table[d])) * LOG2_E


stand_ins(bits_back, globals())
encode_rows = strict_jit(bits_back.encode_rows)
decode_rows = strict_jit(bits_back.decode_rows)
