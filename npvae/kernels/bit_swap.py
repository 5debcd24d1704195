"""`npvae.ops.bit_swap` compiled: a block of rows in one call that holds no lock, all of it from the same source."""

import npvae.kernels.bits_back  # noqa: F401  in place of the functions of npvae.ops
from npvae.kernels.compile import stand_in, strict_jit
from npvae.ops import bit_swap


def encode(coder, rows, message):
    """`npvae.ops.bit_swap.encode`."""
    rows, message, totals = bit_swap.prepared(coder, rows, message)
    encode_rows(coder, rows, message, totals)
    return message, totals


def decode(coder, n_rows, message):
    """`npvae.ops.bit_swap.decode`."""
    message, rows = bit_swap.room_for(coder, n_rows, message)
    decode_rows(coder, rows, message)
    return message, rows


for step in (
    *(bit_swap.new_latents, bit_swap.part, bit_swap.network, bit_swap.posterior_of, bit_swap.prior_of, bit_swap.pop_latent),
    *(bit_swap.push_latent, bit_swap.push_below, bit_swap.pop_below, bit_swap.pop_gaussian, bit_swap.push_gaussian),
    bit_swap.count_latent,
):
    stand_in(step)

encode_rows = strict_jit(bit_swap.encode_rows)
decode_rows = strict_jit(bit_swap.decode_rows)
