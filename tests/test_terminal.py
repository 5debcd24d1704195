"""stdout and stderr of the commands: encodings that lack a character, no streams at all, a disk that is full."""

import io
import os
import sys
from pathlib import Path

import pytest

from npvae.app import cli, terminal
from npvae.app.report import measure_lines
from npvae.models.protocol import Measure

ENCODINGS = ["ascii", "cp1252", "cp437", "latin-1", "utf-16", "utf-8", "ascii:surrogateescape"]


def said(encoding, text, errors="strict"):
    """The bytes that a stream of this encoding gets of a text."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors)
    before, sys.stdout = sys.stdout, stream
    try:
        with terminal.usable():
            print(text, end="")
    finally:
        sys.stdout = before
    assert stream.errors == errors
    stream.flush()
    return raw.getvalue()


def test_what_an_encoding_lacks_is_written_in_ascii():
    text = "−ELBO ± 0.1, 16 × 16, KL(q ‖ p), x², σ, ½, é, 漢, █"
    assert said("ascii", text) == b"-ELBO +/- 0.1, 16 x 16, KL(q || p), x2, sigma, 12, e, ?, #"
    assert said("cp1252", text) == "-ELBO ± 0.1, 16 × 16, KL(q || p), x², sigma, ½, é, ?, #".encode("cp1252")
    assert said("utf-8", text) == text.encode()


def test_an_error_handler_that_the_user_chose_stays():
    assert said("ascii", "−", "xmlcharrefreplace") == b"&#8722;"


def test_bytes_of_a_file_name_that_are_no_characters_stay_as_they_are():
    for encoding in ("utf-8", "ascii"):
        assert said(encoding, os.fsdecode(b"caf\xe9")) == b"caf\xe9"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "gradcheck"])
def test_every_help_text_can_be_printed(encoding, command, monkeypatch):
    name, _, errors = encoding.partition(":")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, name, errors or "strict"))
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert raw.getvalue().decode(name).startswith("usage: npvae")


def test_bars_of_a_measure_are_seen_in_every_encoding():
    lines = "\n".join(measure_lines(Measure("kl", [0.5, 2.0], "nats")))
    assert said("ascii", lines).count(b"#") == 50


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_evaluate_prints_what_it_has_computed(run, capsys, monkeypatch, encoding):
    assert cli.main(["evaluate", str(run), "--samples", "1"]) == 0
    full = capsys.readouterr().out.splitlines()
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    assert cli.main(["evaluate", str(run), "--samples", "1"]) == 0
    plain = raw.getvalue().decode(encoding).splitlines()
    assert len(plain) == len(full) > 10
    assert [line[:12] for line in plain] == [line[:12] for line in full]


@pytest.mark.usefixtures("few_cases")
def test_gradcheck_prints_what_it_has_found(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    assert cli.main(["gradcheck"]) == 0
    assert b": all passed" in raw.getvalue()


@pytest.mark.parametrize("argv", [["--help"], ["train", "--epochs", "0"], ["evaluate", "nothing"], ["gradcheck"]])
@pytest.mark.usefixtures("few_cases")
def test_a_program_without_a_console_ends_with_its_status(argv, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    try:
        status = cli.main(argv)
    except SystemExit as ended:
        status = ended.code
    assert status == {"--help": 0, "train": 2, "evaluate": 1, "gradcheck": 0}[argv[0]]
    assert (sys.stdout, sys.stderr) == (None, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_under_stdout_is_one_line_and_a_status(run, capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["evaluate", str(run), "--samples", "1", "--json"]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == "npvae: error: [Errno 28] No space left on device\n"
