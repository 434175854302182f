"""Which rows or columns of which parameter belong to a head, a neuron, an expert: a table of architectures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from commonweight.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from commonweight.base.choices import Structure


class Piece(NamedTuple):
    """A part of a parameter that belongs to a structure.

    Example:
        >>> piece = Piece("layer.0.attention.head.3", "query_weight", axis=0, start=192, stop=256)
        >>> f"{piece.structure}.{piece.part}"
        'layer.0.attention.head.3.query_weight'
    """

    structure: str
    """Path of the structure, such as ``layer.0.attention.head.3``; pieces of one path are its layer in a table."""

    part: str
    """What it is of the structure, without a dot, such as ``query_weight``."""

    axis: int
    """0: rows, or entries of a vector; 1: columns."""

    start: int
    """First row or column."""

    stop: int
    """One behind the last."""


class Where(NamedTuple):
    """Parameters by the end of their names, and how they are cut."""

    owner: str
    """Expression for the last parts of the path of the module that has the structures."""

    part: str
    """Expression for the rest of the name."""

    axis: int
    """Which dimension is cut; -1 is the last."""

    by: Literal["heads", "key_value_heads", "each", "name"]
    """Into how many: as the configuration says, every row or column, or none, as ``index`` in the name tells."""

    fused: int = 1
    """Matrices that lie behind one another along this dimension."""


_SELF_ATTENTION = (
    Where("self_attn", r"q_proj\.(?:weight|bias)", 0, "heads"),
    Where("self_attn", r"[kv]_proj\.(?:weight|bias)", 0, "key_value_heads"),
    Where("self_attn", r"o_proj\.weight", 1, "heads"),
)
_DENSE = (
    Where(r"layer\.\d+", r"intermediate\.dense\.(?:weight|bias)", 0, "each"),
    Where(r"layer\.\d+", r"output\.dense\.weight", 1, "each"),
)
_BERT: dict[Structure, tuple[Where, ...]] = {
    "head": (
        Where("attention", r"self\.(?:query|key|value)\.(?:weight|bias)", 0, "heads"),
        Where("attention", r"output\.dense\.weight", 1, "heads"),
    ),
    "neuron": _DENSE,
}
_LLAMA: dict[Structure, tuple[Where, ...]] = {
    "head": _SELF_ATTENTION,
    "neuron": (
        Where("mlp", r"(?:gate|up)_proj\.weight", 0, "each"),
        Where("mlp", r"down_proj\.weight", 1, "each"),
    ),
}
ARCHITECTURES: dict[str, dict[Structure, tuple[Where, ...]]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": {
        "head": (
            Where("attention", r"[qkv]_lin\.(?:weight|bias)", 0, "heads"),
            Where("attention", r"out_lin\.weight", 1, "heads"),
        ),
        "neuron": (
            Where("ffn", r"lin1\.(?:weight|bias)", 0, "each"),
            Where("ffn", r"lin2\.weight", 1, "each"),
        ),
    },
    "gpt2": {  # its matrices stand the other way round: inputs are rows
        "head": (
            Where("attn", r"c_attn\.(?:weight|bias)", -1, "heads", fused=3),
            Where("attn", r"c_proj\.weight", 0, "heads"),
        ),
        "qkv": (Where("attn", r"c_attn\.(?:weight|bias)", -1, "name", fused=3),),
        "neuron": (
            Where("mlp", r"c_fc\.(?:weight|bias)", -1, "each"),
            Where("mlp", r"c_proj\.weight", 0, "each"),
        ),
    },
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": {
        "head": _SELF_ATTENTION,
        "expert": (
            Where("mlp|block_sparse_moe", r"gate\.weight", 0, "each"),
            Where("mlp", r"experts\.(?:gate_up_proj|down_proj)", 0, "each"),
            Where("block_sparse_moe", r"experts\.(?P<index>\d+)\.w[123]\.weight", 0, "name"),
        ),
    },
    "vit": {
        "head": (
            Where("attention", r"(?:attention\.(?:query|key|value)|[qkv]_proj)\.(?:weight|bias)", 0, "heads"),
            Where("attention", r"(?:output\.dense|o_proj)\.weight", 1, "heads"),
        ),
        "neuron": (
            *_DENSE,
            Where("mlp", r"fc1\.(?:weight|bias)", 0, "each"),
            Where("mlp", r"fc2\.weight", 1, "each"),
        ),
    },
}
"""``model_type`` of a configuration -> its structures, in the names of transformers 4.56 to 5."""

HEADS = ("num_attention_heads", "n_heads", "n_head")


def architecture_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take from a Hugging Face configuration what tells structures; None where it says nothing of heads."""
    heads = next((config[name] for name in HEADS if name in config), None)
    if heads is None:
        return None
    groups = config.get("num_key_value_heads") or heads
    return {"model_type": config.get("model_type"), "heads": heads, "key_value_heads": groups}


def architecture_of_model(model: Any) -> dict[str, Any] | None:
    """Take what tells structures from the configuration of a module; None where it has none."""
    config = getattr(getattr(model, "config", None), "to_dict", None)
    found = config() if callable(config) else None
    return architecture_of(found) if isinstance(found, dict) else None


def pieces_of(architecture: Mapping[str, Any], structure: Structure, name: str, shape: tuple[int, ...]) -> list[Piece]:
    """Cut a parameter into the structures of an architecture; empty where it has no part in them."""
    for where in ARCHITECTURES[architecture["model_type"]][structure]:
        if found := re.fullmatch(rf"(?P<owner>(?:.*\.)?(?:{where.owner}))\.(?P<part>{where.part})", name):
            return _cut(where, structure, found, architecture, shape)
    return []


def _cut(
    where: Where, structure: Structure, found: re.Match[str], architecture: Mapping[str, Any], shape: tuple[int, ...]
) -> list[Piece]:
    owner, part, axis = found["owner"], found["part"].replace(".", "_"), where.axis % len(shape)
    of_each = shape[axis] // where.fused
    if where.by == "name":
        names = [f"{owner}.{each}" for each in "qkv"] if structure == "qkv" else [f"{owner}.expert.{found['index']}"]
        return [Piece(each, part, axis, i * of_each, (i + 1) * of_each) for i, each in enumerate(names)]
    count = of_each if where.by == "each" else architecture[where.by]
    if of_each % count:
        raise UsageError(
            f"{found[0]} of shape {list(shape)} does not part into {count} equal {structure}s; give a rule of your own "
            "as {structure}",
            structure=None,
        )
    is_shared = where.by == "key_value_heads" and count != architecture["heads"]
    word, size = "key_value_head" if is_shared else structure, of_each // count
    return [
        Piece(
            f"{owner}.{word}.{i}",
            f"{part}_{'qkv'[block]}" if where.fused > 1 else part,
            axis,
            block * of_each + i * size,
            block * of_each + (i + 1) * size,
        )
        for block in range(where.fused)
        for i in range(count)
    ]
