"""Damage to files of every kind; a package, so that ``benchmarks/fuzz.py`` does not hide it."""
