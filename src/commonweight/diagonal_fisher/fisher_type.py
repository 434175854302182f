"""The three Fisher types: whose labels the expectation is over. Light, so that a command's help can name them."""

from __future__ import annotations

from typing import Literal, get_args

FisherType = Literal["empirical", "exact", "mc"]
FISHER_TYPES: tuple[FisherType, ...] = get_args(FisherType)
