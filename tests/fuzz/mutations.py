"""Damage as disks, transfers and hands do it: bits, bytes, pieces, and values of text."""

import random
import re

NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
WORDS = (b"null", b"[]", b"{}", b'""', b"-1", b"0.5", b"1e999", b"true", b"NaN", b"99999999999999999999", b'"\\u001b"')


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Damage a file in one way; now and then in several."""
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        content = draw.choice(WAYS)(content, draw)
    return content


def _place(content, draw):
    return draw.randrange(len(content)) if content else 0


def _flip(content, draw):
    changed = bytearray(content)
    if changed:
        changed[_place(content, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _byte(content, draw):
    changed = bytearray(content)
    if changed:
        changed[_place(content, draw)] = draw.choice((0, 10, 34, 44, 255, draw.randrange(256)))
    return bytes(changed)


def _cut(content, draw):
    return content[: _place(content, draw)]


def _without(content, draw):
    first = _place(content, draw)
    return content[:first] + content[first + draw.randrange(1, 40) :]


def _twice(content, draw):
    first = _place(content, draw)
    last = first + draw.randrange(1, 40)
    return content[:last] + content[first:]


def _zeros(content, draw):
    first, size = _place(content, draw), draw.randrange(1, 600)
    return content[:first] + bytes(min(size, len(content) - first)) + content[first + size :]


def _strange(content, draw):
    first = _place(content, draw)
    return content[:first] + draw.randbytes(draw.randrange(1, 12)) + content[first:]


def _number(content, draw):
    """Put another number, or something else, in the place of a number."""
    found = list(NUMBER.finditer(content[:20_000]))
    if not found:
        return _byte(content, draw)
    one = draw.choice(found)
    other = draw.choice((str(draw.randrange(-3, 300)).encode(), *WORDS))
    return content[: one.start()] + other + content[one.end() :]


def _lines(content, draw):
    lines = content.split(b"\n")
    if len(lines) > 2:
        i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
        lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


WAYS = (_flip, _flip, _byte, _cut, _without, _twice, _zeros, _strange, _number, _number, _lines)
