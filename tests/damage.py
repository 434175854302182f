"""Damage to files, for tests: a flipped bit, and records that were edited and sealed again."""

import json

from commonweight.base.records import SEAL, sealed


def content(path):
    """Read what a sealed record says."""
    record = json.loads(path.read_text(encoding="utf-8"))
    record.pop(SEAL, None)
    return record


def reseal(path, change):
    """Edit a sealed record as one who knows the seal would; ``change`` takes its content and gives another."""
    path.write_text(json.dumps(sealed(change(content(path)))), encoding="utf-8")


def flip_a_bit(path, place=-1):
    written = bytearray(path.read_bytes())
    written[place] ^= 1
    path.write_bytes(written)
