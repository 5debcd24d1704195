"""Checks of option values: what they take from the command line and from config.json, and what they say otherwise."""

from pathlib import Path

import pytest

from npvae.core import options


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert Path(options.path("~/x.npy")) == Path("/home/me/x.npy")
    for path in ("x.npy", "a/~/x.npy", "x~", "~nobody-of-this-name/x.npy", "ising"):
        assert options.path(path) == path
    with pytest.raises(ValueError, match="must be text; got 3"):
        options.path(3)


def test_a_word_or_a_number():
    check = options.word_or("none", options.integer(1))
    assert [check(value) for value in ("none", "3", 3)] == ["none", 3, 3]
    for value in ("nothing", 0, None, True):
        with pytest.raises(ValueError, match=f"must be none, or an integer of at least 1; got {value!r}"):
            check(value)
