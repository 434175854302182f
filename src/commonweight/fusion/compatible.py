"""The preflight on tensors: the same names, shapes and types in every model, equal whole numbers and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, NotComparableError, UsageError
from commonweight.base.names import by_value, differ, first_of, quoted, some
from commonweight.base.records import json_file
from commonweight.data.columns import NAMELESS
from commonweight.fusion.tensors import are_equal
from commonweight.models.identity import hash_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from commonweight.fusion.tensors import Tensors


def check_same(models: Sequence[Tensors]) -> None:
    """Check that weight k of one model is weight k of the others, as far as names, shapes and types tell."""
    missing, shapes, dtypes = [], [], []
    for key in dict.fromkeys(key for model in models for key in model.facts):
        holders = {model.name: model.facts[key] for model in models if key in model.facts}
        if len(holders) < len(models):
            missing.append(f"{key} (only in {quoted(holders)})")
        elif differ({name: facts.shape for name, facts in holders.items()}):
            shapes.append(f"{key} (shape {by_value({name: list(facts.shape) for name, facts in holders.items()})})")
        elif differ({name: facts.dtype for name, facts in holders.items()}):
            dtypes.append(f"{key} ({by_value({name: _short(facts.dtype) for name, facts in holders.items()})})")
    names = quoted(model.name for model in models)
    if missing or shapes:
        remedy = "Fuse fine-tuned copies of one checkpoint, with heads of one size"
        if missing and not shapes:
            remedy = "Fuse models of one class, head included, saved by one release of the library"
        raise NotComparableError(f"{names} do not have the same weights, {first_of(missing + shapes)}. {remedy}")
    if dtypes:
        raise NotComparableError(
            f"{names} are stored in different types, {first_of(dtypes)}. Save them in one type first, such as "
            "model.to(torch.bfloat16).save_pretrained(folder)"
        )


def check_whole_numbers(models: Sequence[Tensors]) -> list[str]:
    """Check that tensors of whole numbers and bits are equal; a single number (a count of batches) may differ."""
    counters = []
    for key, facts in models[0].facts.items():
        if facts.is_floating:
            continue
        first = models[0].read(key)
        for model in models[1:]:
            if torch.equal(first, model.read(key).to(first.device)):
                continue
            if first.numel() > 1:
                raise NotComparableError(
                    f"{key} holds {_short(facts.dtype)} and differs between {models[0].name!r} and {model.name!r}: "
                    "only floating weights can be averaged. Fuse models that have it equal, and quantised ones before "
                    "they are quantised"
                )
            counters.append(key)
            break
    return counters


def check_masks(models: Sequence[Tensors]) -> None:
    """Check that floating masks are equal: an average of two would be none."""
    # A mask is a buffer, or a tensor called ``..._mask``, in which all models have no more than the same two values: 0
    # and 1, or any two that every model has both of.
    wrong = []
    for key, facts in models[0].facts.items():
        if not facts.is_floating or not (facts.is_buffer or key.endswith("_mask")):
            continue
        if are_equal(models, key):
            continue
        values = [set(model.read(key).unique().tolist()) for model in models]
        every = set().union(*values)
        if every <= {0.0, 1.0} or (len(every) == 2 and all(len(one) == 2 for one in values)):
            wrong.append(key)
    if wrong:
        raise NotComparableError(
            f"{quoted(model.name for model in models)} have different masks, {first_of(wrong)}: an average of masks is "
            "none. Fuse models with equal masks, or write the masks into the weights first "
            "(torch.nn.utils.prune.remove)"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


CLASS = ("architectures", "model_type")

LABELS = ("num_labels", "id2label", "label2id", "problem_type")

VOCABULARY = ("vocab_size",)

HARMLESS = frozenset({
    "attn_implementation",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "initializer_factor",
    "initializer_range",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "unsloth_version",
    "use_cache",
})
"""Keys that say where a model came from, or matter in training only; types are compared tensor by tensor."""


def check_configs(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Check that models compute the same function of their weights, as far as their configurations tell.

    Returns:
        Sentences worth hearing: keys that only some configurations state, labels without names.

    Raises:
        UsageError: If weights are quantised.
        NotComparableError: If class, head, vocabulary or anything else that matters differs.
    """
    for name, config in configs.items():
        if config.get("quantization_config"):
            raise UsageError(
                f"the weights of {name!r} are quantised, and codes cannot be averaged; give the checkpoint as it was "
                "before it was quantised"
            )
    names = quoted(configs)
    configs = {name: _flat(config) for name, config in configs.items()}
    if found := _differences(configs, CLASS):
        raise NotComparableError(
            f"{names} are not of one class, {first_of(found)}. Fuse models of one class, head included"
        )
    check_heads(configs)
    if found := _differences(configs, VOCABULARY):
        raise NotComparableError(
            f"the vocabularies of {names} differ in size, {first_of(found)}. Row k of the embeddings must be one token "
            "in all models: add the same tokens to all before training"
        )
    every = [key for config in configs.values() for key in config]
    others = [key for key in dict.fromkeys(every) if key not in (*CLASS, *LABELS, *VOCABULARY) and matters(key)]
    if found := _differences(configs, others):
        raise NotComparableError(
            f"{names} do not compute the same, {first_of(found)}. Fuse copies of one checkpoint; where a difference "
            "is harmless, make it equal in the config.json"
        )
    stated = {key: {config.get(key) is not None for config in configs.values()} for key in ("id2label", *others)}
    partly = [key for key, found_in in stated.items() if len(found_in) > 1]
    notes = (
        [f"Only some of the configurations state {some(partly)}, which was therefore not compared."] if partly else []
    )
    return notes + beware_of_nameless(configs)


def check_heads(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the heads of models mean the same, as far as their configurations tell."""
    if found := _differences(configs, LABELS):
        raise NotComparableError(
            f"the heads of {quoted(configs)} do not mean the same, {first_of(found)}. Row k of a head must stand for "
            "one label in all models: train them with the same labels in the same order"
        )


def beware_of_nameless(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warn of classifiers whose labels have no names of their own: nothing tells whether they mean the same."""
    nameless = {
        name: labels
        for name, config in configs.items()
        if len(labels := _labels(config)) > 1 and all(NAMELESS.fullmatch(str(label)) for label in labels)
    }
    if len(nameless) < 2:
        return []
    return [
        f"The labels of {quoted(nameless)} have no names ({some(next(iter(nameless.values())))}): check that row k of "
        "the head means the same label in all, and name them in the configuration (id2label)"
    ]


def _differences(configs: Mapping[str, Mapping[str, Any]], keys: tuple[str, ...] | list[str]) -> list[str]:
    found = []
    for key in keys:
        stated = {name: config[key] for name, config in configs.items() if config.get(key) is not None}
        if stated and differ(stated):
            found.append(f"{key} is {by_value(stated)}")
    return found


def _labels(config: Mapping[str, Any]) -> list[str]:
    """Names of the classes of a classifier, as the library fills them in; none for other models."""
    is_classifier = "Classification" in str((config.get("architectures") or [""])[0])
    if not is_classifier or config.get("problem_type") == "regression":
        return []
    # Default names are not written to config.json, and two labels are the default.
    return list((config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).values())


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Join the keys of configurations within the configuration; labels stay whole."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key not in LABELS:
            flat.update({f"{key}.{inner}": held for inner, held in _flat(value).items()})
        else:
            flat[key] = value
    return flat


def matters(key: str) -> bool:
    """Tell whether a setting changes what is computed, as far as its name tells."""
    last = key.rpartition(".")[2]
    return not (last.startswith("_") or last in HARMLESS or "drop" in last)


BINARY = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""SentencePiece models: compared as files where there is no ``tokenizer.json``."""


def check_vocabularies(folders: Mapping[str, Path]) -> list[str]:
    """Check that the tokenizers of several checkpoints number the same tokens in the same way."""
    found = {name: vocabulary(folder) for name, folder in folders.items()}
    known = {name: tokens for name, tokens in found.items() if tokens is not None}
    if known:
        first, expected = next(iter(known.items()))
        for name, tokens in known.items():
            if tokens != expected:
                others = differing({first: expected, name: tokens}, "not there")
                raise NotComparableError(
                    f"the vocabularies of {first!r} and {name!r} differ, "
                    f"{first_of([f'{token!r} is {numbers}' for token, numbers in others.items()])}. Row k of the "
                    "embeddings must be one token in all models: fuse models made with one tokenizer, to which the "
                    "same tokens were added in the same order"
                )
    unknown = {name: folders[name] for name in folders if name not in known}
    binaries = {
        name: hash_files(folder / file for file in BINARY if (folder / file).is_file())
        for name, folder in unknown.items()
    }
    if not known and len(unknown) > 1 and all(binaries.values()):
        if differ(binaries):
            raise NotComparableError(
                f"the tokenizers of {quoted(binaries)} are different files; expected one and the same: fuse models "
                "made with one tokenizer"
            )
        return []
    if known and unknown:
        return [
            f"Vocabularies could not be compared for {some(list(map(repr, unknown)))}: no readable tokenizer there."
        ]
    return []


MOST_OF_A_TOKENIZER = 2**28
"""Bytes; the largest vocabularies take a tenth."""


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Read the vocabulary of a tokenizer, added tokens included, without any library of tokenizers."""
    try:
        if (folder / "tokenizer.json").is_file():
            whole = _json(folder / "tokenizer.json")
            listed = whole["model"]["vocab"]
            tokens = listed if isinstance(listed, dict) else {entry[0]: number for number, entry in enumerate(listed)}
            return {**tokens, **{added["content"]: added["id"] for added in whole.get("added_tokens") or []}}
        if (folder / "vocab.json").is_file():
            tokens = _json(folder / "vocab.json")
        elif (folder / "vocab.txt").is_file():
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            tokens = {line: number for number, line in enumerate(lines)}
        else:
            return None
        added_tokens = folder / "added_tokens.json"
        return {**tokens, **(_json(added_tokens) if added_tokens.is_file() else {})}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise IntegrityError(
            f"the tokenizer in {folder} cannot be read ({error!r}); save it again with save_pretrained"
        ) from error


def differing(held: Mapping[str, Mapping[str, Any]], absent: str) -> dict[str, str]:
    """List what differs between several mappings, and who has which value."""
    found = {}
    for key in dict.fromkeys(key for values in held.values() for key in values):
        values = {name: one.get(key) for name, one in held.items()}
        if differ(values):
            found[key] = by_value(values, absent)
    return found


def _json(path: Path) -> Any:
    return json_file(path, "save it again with save_pretrained", MOST_OF_A_TOKENIZER)
