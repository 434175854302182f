"""Footprints: where a network keeps one piece of knowledge, one tensor per parameter, and their files."""

from commonweight.footprints.copies import CopiesWarning, RowCounts
from commonweight.footprints.folds import FoldSorted, fold_of
from commonweight.footprints.footprint import Fold, Spread

__all__ = ["CopiesWarning", "Fold", "FoldSorted", "RowCounts", "Spread", "fold_of"]
