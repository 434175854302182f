"""The ways to infer a task. Light, so that a command's help can name them."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["one_shot", "binary", "lowest_entropy", "nearest_statistics"]
METHODS: tuple[Method, ...] = get_args(Method)
