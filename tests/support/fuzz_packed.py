"""Damaged, truncated, foreign and forged files before `npvae.models.bits_back.decompress`, which must refuse every one of them
with one line, or give back the very array that was compressed.

    python tests/support/fuzz_packed.py 100000     so many inputs; prints how many were refused, for what, and the memory used

A third of the inputs are damaged as an accident would. Another third are sealed: their checksum is right for what they hold, as
if somebody had made them on purpose. The others have the right length and header too, so that the decoder has to notice.
"""

import re
import resource
import sys
from collections import Counter

import numpy as np

import npvae
from npvae.data import packed
from npvae.models import bits_back

SEALED_FROM = len(packed.MAGIC) + 1 + packed.DIGEST_BYTES  # where the part begins that the checksum is about


def examples():
    """(model, array, file) of small models of zeros and ones and of levels, and of one with two latents in both orders."""
    rng, found = np.random.default_rng(0), []
    for likelihood, n_symbols, posterior, dtype in [("bernoulli", 2, "full", "u1"), ("bernoulli", 2, "diagonal", "<f4"),
                                                    ("beta_binomial", 256, "diagonal", "u1")]:  # fmt: skip
        model = npvae.VAE(6, 2, (4,), likelihood=likelihood, posterior=posterior)
        x = rng.integers(0, n_symbols, (15, 2, 3)).astype(dtype)
        found.append((model, x, bits_back.compress(model, x, n_chains=2)[0]))
    model, x = npvae.models.HierarchicalVAE(6, (2, 1), (4,), 1), rng.integers(0, 2, (15, 6), dtype=np.uint8)
    return found + [(model, x, bits_back.compress(model, x, 2, order=order)[0]) for order in bits_back.ORDERS]


def damaged(rng, content, others):
    """The bytes with one to four changes, or bytes of another kind."""
    content = bytearray(content)
    if rng.integers(20) == 0:
        return rng.bytes(rng.integers(200))
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(max(len(content), 1)))
        kind = rng.integers(7)
        if kind == 0 and content:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at : at + 4] = rng.bytes(int(rng.integers(1, 5)))
        elif kind == 2:
            content[at : at + 8] = int(rng.choice([0, 1, 2**31, 2**32 - 1, 2**62])).to_bytes(8, "little")
        elif kind == 3:
            del content[at : at + int(rng.integers(1, 50))]
        elif kind == 4:
            content[at:at] = rng.bytes(int(rng.integers(1, 20)))
        elif kind == 5:
            del content[at:]
        else:  # a part of another file
            other = others[rng.integers(len(others))]
            content[at : at + 16] = other[at : at + 16]
    return bytes(content)


def sealed(content, version=bytes([packed.VERSION])):
    """The bytes with magic number, version and checksum put right."""
    rest = content[SEALED_FROM:]
    return packed.MAGIC + version + packed.digest(version, rest) + rest


def one_input(rng, model, x, content, others):
    """What became of one input: the line that refused it, or "restored"; AssertionError where neither is so."""
    kind = rng.integers(3)
    n_header = len(content) - 4 * sum(map(len, packed.from_bytes(content).chains)) if kind == 2 else 0
    found = damaged(rng, content[n_header:], others)
    if kind == 2:
        found = (content[:n_header] + found + content[n_header + len(found) :])[: len(content)]
    if kind > 0:
        found = sealed(found)
    try:
        array = bits_back.decompress(model, found, workers=1, name="x.npvae")
    except ValueError as error:
        line = str(error)
    else:
        assert (array.dtype, array.shape) == (x.dtype, x.shape)
        assert array.tobytes() == x.tobytes()
        return "restored"
    assert line.startswith("x.npvae"), line
    assert "\n" not in line, line
    return re.sub(r"version \d+, ", "another version, ", line).split(" (")[0].split(" than")[0]


def fuzz(n_inputs, seed=0):
    """How often each answer was given to n_inputs inputs."""
    rng, found, files = np.random.default_rng(seed), Counter(), examples()
    others = [content for _, _, content in files]
    for _ in range(n_inputs):
        model, x, content = files[rng.integers(len(files))]
        found[one_input(rng, model, x, content, others)] += 1
    return found


def peak_memory():
    """The most memory that the process has used, in bytes (Linux counts in kilobytes)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    fuzz(1000)  # what is compiled and loaded once
    before = peak_memory()
    for answer, count in fuzz(n, seed=1).most_common():
        print(f"{count:8,}  {answer}")
    print(f"{n:,} inputs; peak memory grew by {(peak_memory() - before) / 1e6:.0f} MB")
