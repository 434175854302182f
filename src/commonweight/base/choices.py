"""Words to choose from that rooms and the command line share. Light, so that a command's help can name them."""

from __future__ import annotations

from typing import Literal, get_args

FisherType = Literal["empirical", "exact", "mc"]
"""Whose labels the expectation is over: the given ones, all that the model may give, or draws from these."""

FISHER_TYPES: tuple[FisherType, ...] = get_args(FisherType)

Method = Literal["one_shot", "binary", "lowest_entropy", "nearest_statistics"]
"""The ways to infer a task."""

METHODS: tuple[Method, ...] = get_args(Method)
