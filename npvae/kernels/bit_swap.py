"""`npvae.ops.bit_swap` compiled: a block of rows in one call that holds no lock, all of it from the same source."""

import npvae.kernels.bits_back  # noqa: F401  in place of the functions of npvae.ops
from npvae.kernels.compile import stand_ins, strict_jit
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


stand_ins(bit_swap, {})
encode_rows = strict_jit(bit_swap.encode_rows)
decode_rows = strict_jit(bit_swap.decode_rows)
