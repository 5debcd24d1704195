"""stdout and stderr that take whatever a command prints.

The encoding of a pipe or a terminal may lack a character (cp1252 and ASCII have no minus sign), and a program without a console
has no stdout at all. Nothing that was computed is lost for that.
"""

import codecs
import contextlib
import os
import sys
import unicodedata

REPLACED = ("strict", "surrogateescape", "backslashreplace")  # the usual handlers of errors; one that the user chose stays
IN_ASCII = {"−": "-", "–": "-", "—": "-", "±": "+/-", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≠": "!=", "→": "->",
            "‖": "||", "∞": "inf", "√": "sqrt", "∂": "d", "█": "#", "…": "..."}  # fmt: skip


@contextlib.contextmanager
def usable():
    """Within the block stdout and stderr exist, and write a character that their encoding lacks in ASCII: "−" as "-".

    What they still hold at the end is written; where that fails, it is dropped.
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
                stack.callback(setattr, sys, name, None)
                continue
            if getattr(stream, "errors", None) in REPLACED and hasattr(stream, "reconfigure"):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="npvae.in_ascii")
            stack.callback(flush_or_drop, stream)
        yield


def flush_or_drop(stream):
    """Write what a stream holds; where its reader has gone or the disk is full, that is dropped."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def in_ascii(error):
    """What stands for a character that an encoding lacks (an error handler for `codecs`): ASCII that looks or reads like it,
    "?" if there is none. A byte of a file name that is no character stays that byte."""
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # how Python holds such bytes
        return bytes([ord(character) - 0xDC00]), error.start + 1
    written = IN_ASCII.get(character)
    if written is None:
        name = unicodedata.name(character, "").split()
        greek = name[-1].lower() if name[:1] == ["GREEK"] else ""
        written = greek or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
    return written, error.start + 1


codecs.register_error("npvae.in_ascii", in_ascii)
