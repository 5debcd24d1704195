"""Asymmetric numeral systems, range variant (rANS): a stack of bits on which a symbol costs −log2 of its probability.

Duda 2009 (arXiv:0902.0271) and 2013 (arXiv:1311.2540). A message is one huge whole number s. A symbol with `frequency` of
2^precision equal slots, [start, start + frequency), is put on it by

    s  ->  (s // frequency) 2^precision + start + s % frequency,

which multiplies s by about 2^precision/frequency: log2 s grows by −log2 of the symbol's probability. The last `precision`
bits of the new s are one of the symbol's own slots. So whoever takes a symbol off looks at them, sees whose slot it is, and
inverts the line above. What was put on last comes off first. And where symbols come off a message that never had them on, they
are random ones with just these probabilities: that is what bits-back coding draws its latent variables with.

Only the `head` of s is a number, the rest of it words of 32 bits. Before a push a head that would leave [2^31, 2^63) gives up a
word; after a pop one that is below takes a word back. With a head below 2^63 all arithmetic fits in signed 64-bit integers,
those of Python, NumPy and Numba alike. For the two moves to mirror each other exactly, 2^31 must be a multiple of
2^precision: precision is at most 31. One move is at most one word, since precision is less than 32.

The price: s // frequency is rounded down, so that s grows by a little more or less than the factor 2^precision/frequency, by a
share of at most 2^precision/s. Over symbols that are as frequent as their slots say, that cancels in the first order; what
remains is of the order of the square of this share, with s ≥ 2^31. Measured on five distributions of 2 to 16384 symbols:
below 1e-6 bits a push at 24 bits, 5e-5 at 28, 8e-4 at 30. `npvae.kernels.rans` is this file compiled.
"""

from typing import NamedTuple

import numpy as np

HEAD, COUNT, DRAWN, SEED, CHECK, FAULTS = range(6)  # the registers of a message
SMALLEST_HEAD, HEAD_BITS, WORD_BITS = 1 << 31, 63, 32
WORD_MASK, CHECK_MASK = (1 << 32) - 1, (1 << 62) - 1
STIRRED_BITS, STIR = 24, 0x9E3779  # odd, and about 2^24 times the golden section
UNSTIR = pow(STIR, -1, 1 << STIRRED_BITS)


class Message(NamedTuple):
    """A stack of bits, changed in place by `push` and `pop`."""

    registers: np.ndarray  # int64, (6,): the head, how many words there are, how many start words were drawn, the seed of
    #                        these, the check of all slots that were used, how many frequencies were 0
    words: np.ndarray  # uint32: the bottom of the stack first, then room for more


def new_message(seed=0, words=(), head=None):
    """A Message of these words (n,) and this head in [2^31, 2^63), or an empty one; seed, 0 to 2^32 − 1, of its start words."""
    registers = np.zeros(6, np.int64)
    registers[[HEAD, COUNT, SEED]] = start_head(seed) if head is None else head, len(words), seed
    return Message(registers, np.array(words, np.uint32))


def with_room(message, n_pushes):
    """The message with room for n_pushes pushes. It may be another one, in a larger array: use the old one no more."""
    count = int(message.registers[COUNT])
    if count + n_pushes <= len(message.words):
        return message
    words = np.empty(2 * count + n_pushes, np.uint32)
    words[:count] = message.words[:count]
    return message._replace(words=words)


def written(message):
    """All of the message as words, (COUNT + 2,) uint32: those of the stack, then the head in two."""
    head = int(message.registers[HEAD])
    return np.append(message.words[: message.registers[COUNT]], np.array([head & WORD_MASK, head >> WORD_BITS], np.uint32))


def read(words, seed=0):
    """The message that was `written`. ValueError if no message gives such words."""
    head = (int(words[-1]) << WORD_BITS | int(words[-2])) if len(words) > 1 else 0
    if not SMALLEST_HEAD <= head < 1 << HEAD_BITS:
        raise ValueError("these words are no message: the head, their last two, must be from 2^31 up to 2^63")
    return new_message(seed, words[:-2], head)


def is_start(message):
    """Whether nothing is on this message but start words that were drawn, in their order: all that an encoder did is undone."""
    count = message.registers[COUNT]
    seed = int(message.registers[SEED])
    start = [start_word(seed, i) for i in range(count)]
    return bool(message.registers[HEAD] == start_head(seed) and np.array_equal(message.words[:count][::-1], start))


def push(message, start, frequency, precision):
    """Put a symbol on: its slots are [start, start + frequency) of 2^precision, 1 ≤ frequency ≤ 2^precision, precision ≤ 31."""
    registers, words = message.registers, message.words
    head = registers[HEAD]
    if head >> (HEAD_BITS - precision) >= frequency:  # head 2^precision/frequency would be 2^63 or more
        words[registers[COUNT]] = head & WORD_MASK
        registers[COUNT] += 1
        head >>= WORD_BITS
    registers[HEAD] = (head // frequency << precision) + start + head % frequency
    registers[CHECK] = mixed(registers[CHECK], start, frequency)


def slot(message, precision):
    """The slot, 0 to 2^precision − 1, that tells which symbol is to come off."""
    return message.registers[HEAD] & ((1 << precision) - 1)


def pop(message, start, frequency, precision):
    """Take off the symbol in whose slots, [start, start + frequency), `slot` lies. An empty message draws a start word."""
    registers, words = message.registers, message.words
    head = registers[HEAD]
    head = frequency * (head >> precision) + (head & ((1 << precision) - 1)) - start
    if head < SMALLEST_HEAD:
        if registers[COUNT] > 0:
            registers[COUNT] -= 1
            word = np.int64(words[registers[COUNT]])
        else:
            word = start_word(registers[SEED], registers[DRAWN])
            registers[DRAWN] += 1
        head = head << WORD_BITS | word
    registers[HEAD] = head
    registers[CHECK] = mixed(registers[CHECK], start, frequency)


def stir(message):
    """Multiply the last 24 bits by an odd number modulo 2^24: the same numbers in another order.

    They are a slot of the symbol that was pushed last, somewhere in its interval. A symbol that is popped now would be one that
    has slots in that interval: not drawn from its distribution, but a function of what was pushed. The same holds for the next
    pop and the symbol pushed before. Multiples of the golden section are spread evenly over all slots, wherever it is.
    """
    _multiply(message, STIR)


def unstir(message):
    """Undo `stir`."""
    _multiply(message, UNSTIR)


def _multiply(message, factor):
    last = slot(message, STIRRED_BITS)
    message.registers[HEAD] += (last * factor & ((1 << STIRRED_BITS) - 1)) - last


def start_word(seed, i):
    """The i-th of the random words below the bottom of a message, a hash of seed and i.

    Shifts and products in turn, modulo 2^32, as in the finalizers of MurmurHash3 (Appleby 2011): each bit of the result depends
    on each of the argument's. Products stay below 2^63 because the factors are below 2^31.
    """
    word = (seed * 0x3C6EF373 + i * 0x1E3779B9 + 0x2545F491) & WORD_MASK
    for factor in (0x7FEB352D, 0x45D9F3B5, 0x2C1B3C6D):
        word = ((word ^ (word >> 16)) * factor) & WORD_MASK
    return word ^ (word >> 15)


def start_head(seed):
    """The head of an empty message, in [2^31, 2^32): its last 31 bits are random ones, too."""
    return SMALLEST_HEAD | start_word(seed, WORD_MASK)


def mixed(check, start, frequency):
    """The check, a sum modulo 2^62 over all pushes and pops of a mix of start and frequency, with one more.

    Encoder and decoder do the same moves in opposite order, which the sum does not see. It differs where any start or frequency
    does, but for a chance of about 10^-18.
    """
    term = start * 0x5851F42D + frequency * 0x2545F491  # below 2^63
    term = (term ^ (term >> 29)) & 0x3FFFFFFF
    return (check + term * (0x4C957F2D + start) + frequency) & CHECK_MASK
