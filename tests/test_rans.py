"""The stack of bits of entropy coding: that pops undo pushes, what a push costs, start words, checks; compiled and not."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npvae.kernels.rans  # noqa: F401  in place of the functions of npvae.ops.rans
from npvae.kernels.compile import strict_jit
from npvae.ops import rans
from npvae.ops.rans import CHECK, COUNT, DRAWN, HEAD


@st.composite
def symbol(draw):
    """start, frequency, precision of any symbol: certain ones and those of a single slot among them."""
    precision = draw(st.integers(1, 31))
    frequency = draw(st.sampled_from([1, 2**precision - 1, 2**precision]) | st.integers(1, 2**precision))
    start = draw(st.sampled_from([0, 2**precision - frequency]) | st.integers(0, 2**precision - frequency))
    return start, frequency, precision


heads = st.sampled_from([2**31, 2**63 - 1, rans.start_head(3)]) | st.integers(2**31, 2**63 - 1)


def state(message):
    return message.registers[: DRAWN + 1].tolist(), message.words[: message.registers[COUNT]].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(symbol(), max_size=60), heads)
def test_pops_undo_pushes(symbols, head):
    message = rans.with_room(rans.new_message(words=[7, 2**32 - 1], head=head), len(symbols))
    before = [state(message)]
    for start, frequency, precision in symbols:
        rans.push(message, start, frequency, precision)
        assert 2**31 <= message.registers[HEAD] < 2**63
        before.append(state(message))
    for start, frequency, precision in reversed(symbols):
        assert state(message) == before.pop()
        assert start <= rans.slot(message, precision) < start + frequency
        rans.pop(message, start, frequency, precision)
    assert state(message) == before.pop()


@settings(max_examples=60, deadline=None)
@given(st.lists(symbol(), max_size=60), heads)
def test_pushes_undo_pops(symbols, head):
    """Of whatever symbol the slot happens to be in, past the end of the message: the start words come back."""
    message, popped = rans.with_room(rans.new_message(seed=3, head=head), len(symbols)), []
    for _, frequency, precision in symbols:
        slot = int(rans.slot(message, precision))
        start = slot // frequency * frequency
        frequency = min(frequency, 2**precision - start)
        rans.pop(message, start, frequency, precision)
        assert 2**31 <= message.registers[HEAD] < 2**63
        popped.append((start, frequency, precision))
    for start, frequency, precision in reversed(popped):
        rans.push(message, start, frequency, precision)
    assert message.registers[HEAD] == head
    assert message.registers[COUNT] == message.registers[DRAWN]
    assert rans.is_start(message) == (head == rans.start_head(3))


def test_stirring_is_undone_and_leaves_all_but_the_last_bits():
    for head in (2**31, 2**63 - 1, rans.start_head(3), 5**26):
        message = rans.new_message(words=[7], head=head)
        rans.stir(message)
        assert message.registers[HEAD] >> 24 == head >> 24
        assert message.registers[HEAD] != head or head % 2**24 == 0
        rans.unstir(message)
        assert state(message) == state(rans.new_message(words=[7], head=head))


@pytest.mark.parametrize("start", [0, 2**20, 2**24 - 2**16])
def test_stirring_spreads_an_interval_evenly_over_all_slots(start):
    message, found = rans.new_message(), []
    for last in range(start, start + 2**16, 2**6):
        message.registers[HEAD] = 2**40 + last
        rans.stir(message)
        found.append(rans.slot(message, 24))
    assert np.histogram(found, 16, (0, 2**24))[0].tolist() == pytest.approx([2**10 / 16] * 16, abs=6)


def test_a_pop_of_an_empty_message_draws_and_is_counted():
    message = rans.new_message(seed=5, head=2**31)
    rans.pop(message, 0, 1, 8)
    assert message.registers[[COUNT, DRAWN]].tolist() == [0, 1]
    assert message.registers[HEAD] == (2**23 << 32) + rans.start_word(5, 0)
    assert math.log2(message.registers[HEAD]) - 32 == pytest.approx(31 - 8, abs=1e-6)
    rans.pop(message, 0, 1, 31)
    assert message.registers[DRAWN] == 2


def many_symbols(n, precision=24):
    """n symbols of a distribution over 100, as frequent as their slots say: starts, frequencies, and which they are."""
    frequencies = 1 + np.floor(0.9 ** np.arange(100) / 10 * (2**precision - 100)).astype(np.int64)
    frequencies[0] += 2**precision - frequencies.sum()
    starts = np.cumsum(frequencies) - frequencies
    rng = np.random.default_rng(0)
    return starts, frequencies, np.searchsorted(starts, rng.integers(0, 2**precision, n), side="right") - 1


@strict_jit
def push_and_pop(message, starts, frequencies, symbols, precision, middle):
    """Push all symbols; words, head and check then go to `middle`, and all are popped. Returns how many came back wrong."""
    for s in symbols:
        rans.push(message, starts[s], frequencies[s], precision)
    middle[:] = message.registers
    wrong = 0
    for i in range(len(symbols) - 1, -1, -1):
        slot, s = rans.slot(message, precision), 0
        while s + 1 < len(starts) and starts[s + 1] <= slot:
            s += 1
        wrong += s != symbols[i]
        rans.pop(message, starts[s], frequencies[s], precision)
    return wrong


@strict_jit
def push_some_and_pop_some(message, starts, frequencies, symbols):
    for i in range(len(symbols)):
        if i % 3 == 2:
            rans.pop(message, rans.slot(message, 24), 1, 24)
        else:
            rans.push(message, starts[symbols[i]], frequencies[symbols[i]], 24)


def test_a_million_symbols_at_the_price_of_their_entropy():
    """Compiled: −log2 of the probability within 1e-5 bits a symbol, and all of them come back. (Measured: below 1e-6.)"""
    n = 1_000_000 if hasattr(push_and_pop, "signatures") else 5000
    starts, frequencies, symbols = many_symbols(n)
    message, middle = rans.with_room(rans.new_message(), n), np.zeros(6, np.int64)
    assert push_and_pop(message, starts, frequencies, symbols, 24, middle) == 0
    assert state(message) == ([rans.start_head(0), 0, 0], [])
    cost = 32 * int(middle[COUNT]) + math.log2(middle[HEAD] / rans.start_head(0))
    entropy = -np.log2(frequencies[symbols] / 2**24).sum()
    assert abs(cost - entropy) <= 1e-5 * n


def test_compiled_and_not_they_give_the_same_words():
    """Pops of single slots among the pushes: the message is short, and draws start words now and then."""
    starts, frequencies, symbols = many_symbols(1000)
    messages = [rans.with_room(rans.new_message(seed=9), 1000) for _ in range(2)]
    for message, table in zip(messages, (push_some_and_pop_some, getattr(push_some_and_pop_some, "py_func", None))):
        (table or push_some_and_pop_some)(message, starts, frequencies, symbols)
    assert messages[0].registers[DRAWN] > 10
    assert messages[0].registers.tolist() == messages[1].registers.tolist()
    np.testing.assert_array_equal(rans.written(messages[0]), rans.written(messages[1]))


def test_written_and_read():
    message = rans.with_room(rans.new_message(), 20)
    for start in range(20):
        rans.push(message, start, 1, 20)
    words = rans.written(message)
    assert words.dtype == np.uint32
    assert len(words) == message.registers[COUNT] + 2
    again = rans.read(words, seed=4)
    assert state(again) == state(message)
    assert again.registers[rans.SEED] == 4
    np.testing.assert_array_equal(rans.written(again), words)


@pytest.mark.parametrize("words", [[], [5], [0, 0], [2**31 - 1, 0], [0, 2**31], [1, 2, 2**32 - 1, 2**32 - 1]])
def test_words_that_are_no_message_are_refused(words):
    with pytest.raises(ValueError, match="no message"):
        rans.read(np.array(words, np.uint32))
    assert state(rans.read(np.array([0, 1], np.uint32))) == ([2**32, 0, 0], [])
    assert state(rans.read(np.array([2**31, 0], np.uint32))) == ([2**31, 0, 0], [])


def test_room_is_made_and_kept():
    message = rans.new_message(words=[1, 2, 3])
    larger = rans.with_room(message, 10)
    assert len(larger.words) >= 13
    assert state(larger) == state(message)
    assert rans.with_room(larger, 5) is larger
    assert rans.with_room(message, 0) is message


def test_what_is_a_start():
    assert rans.is_start(rans.new_message())
    words = [rans.start_word(6, i) for i in range(3)][::-1]
    assert rans.is_start(rans.new_message(6, words))
    assert not rans.is_start(rans.new_message(7, words))
    assert not rans.is_start(rans.new_message(6, words[1:] + words[:1]))
    assert not rans.is_start(rans.new_message(6, words, head=rans.start_head(6) + 1))
    assert len({rans.start_head(seed) for seed in range(1000)}) == 1000
    assert all(2**31 <= rans.start_head(seed) < 2**32 for seed in range(1000))


def test_the_check_knows_every_slot_and_no_order():
    moves = [(0, 5, 20), (3, 1, 8), (2**20, 2**21, 24), (77, 2**23, 24)]

    def check(moves, way=rans.push):
        message = rans.with_room(rans.new_message(), len(moves))
        for move in moves:
            way(message, *move)
        return int(message.registers[CHECK])

    whole = check(moves)
    assert whole == check(moves[::-1]) == check(moves, rans.pop)
    others = [check(moves[:3])]
    for i, (start, frequency, precision) in enumerate(moves):
        others.append(check([*moves[:i], (start + 1, frequency, precision), *moves[i + 1 :]]))
        others.append(check([*moves[:i], (start, frequency + 1, precision), *moves[i + 1 :]]))
    shifted = [(0, 6, 20), (3, 1, 8), (2**20, 2**21 - 1, 24), (77, 2**23, 24)]  # what a plain sum would not see
    others.append(check(shifted))
    assert len({whole, *others}) == len(others) + 1
    assert 0 <= whole < 2**62


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**62 - 1), symbol())
def test_the_check_stays_in_its_range(check, move):
    """Without an overflow, which NumPy would warn of."""
    assert 0 <= rans.mixed(np.int64(check), np.int64(move[0]), np.int64(move[1])) < 2**62


def test_start_words_are_uniform_and_differ_with_each_bit():
    words = np.array([rans.start_word(seed, i) for seed in (0, 1, 2**32 - 1) for i in range(2000)])
    assert len(set(words.tolist())) > 5995
    bits = (words[:, None] >> np.arange(32)) & 1  # (6000, 32)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(6000)
    correlation = np.corrcoef(np.vstack([bits[1:2000].T, bits[:1999].T]))  # of neighbouring words
    assert np.abs(correlation - np.eye(64)).max() < 6 / math.sqrt(1999)
