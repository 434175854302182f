"""What is asked of a model that is loaded, and what comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from commonweight.base.settings import setting

if TYPE_CHECKING:
    from torch import nn

Task = Literal["classification", "regression", "multilabel", "causal_lm"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]

FUNCTION = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")

HUB_ID = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>\S+))?")


@dataclass(frozen=True)
class LoadOptions:
    """How a model is read."""

    checkpoint: str | None = setting(None, "A .safetensors file for a MODEL given as module:function.", metavar="FILE")
    tokenizer: str | None = setting(None, "Tokenizer's id or folder; default: the model's own.", metavar="ID")
    device: str = setting("auto", "Device: auto, cpu, cuda, cuda:N or mps.")
    dtype: Dtype = setting("float32", "Precision of the weights; auto is as stored.")
    merge_adapters: bool = setting(False, "Merge an adapter into its base; measure the weights that this changes.")
    allow_missing_weights: bool = setting(False, "Accept that missing weights are drawn at random.")
    allow_pickle: bool = setting(False, "Read weights from pickle files.", dangerous=True)
    trust_remote_code: bool = setting(False, "Run code that comes with the model.", dangerous=True)


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

    source: tuple[str, LoadOptions] | None = None
    """What it was loaded from, by which other processes load it too."""
