"""What is asked of a model that is loaded, and what comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn


Task = Literal["classification", "regression", "multilabel", "causal_lm"]


FUNCTION = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


HUB_ID = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>\S+))?")


@dataclass(frozen=True)
class LoadOptions:
    """How a model is read."""

    checkpoint: str | None = None
    """A ``.safetensors`` file for ``module:function``."""

    tokenizer: str | None = None
    """A tokenizer's id or folder; None takes the model's own."""

    device: str = "auto"
    dtype: str = "float32"
    allow_pickle: bool = False
    """Read weights from pickle files, restricted to plain tensors."""

    trust_remote_code: bool = False
    """Run the model code that comes with the checkpoint."""

    allow_missing_weights: bool = False
    """Accept weights that the checkpoint lacks and that are therefore drawn at random."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be measured."""

    model: nn.Module
    identity: dict[str, Any]
    """Where the model comes from and which weights it has: plain JSON values, equal exactly if the models are."""

    task: Task | None = None
    """What a Hugging Face model predicts; None for a plain torch module, which takes ``(inputs, targets)``."""

    tokenizer: Any = None
    notes: tuple[str, ...] = field(default=())
    """Things the user should hear about, one sentence each."""
