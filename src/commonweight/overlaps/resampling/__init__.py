"""Noise ceilings, corrected overlaps, nulls and intervals from folds."""
