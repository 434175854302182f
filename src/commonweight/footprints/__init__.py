"""Footprints: where a network keeps one piece of knowledge, one tensor per parameter, and their files."""

from commonweight.footprints.copies import CopiesWarning, RowCounts
from commonweight.footprints.folds import FoldSorted, fold_of
from commonweight.footprints.footprint import Fold, Spread
from commonweight.footprints.structures import by_structure
from commonweight.models.architectures import Piece

__all__ = ["CopiesWarning", "Fold", "FoldSorted", "Piece", "RowCounts", "Spread", "by_structure", "fold_of"]
