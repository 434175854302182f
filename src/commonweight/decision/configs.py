"""The preflight on configurations: one class, one head, one vocabulary, and nothing else that changes what is computed.

Two models may have weights of equal shapes and still compute different things with them: another number of attention
heads, another activation, labels in another order. Averaging those is silent nonsense, so it is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commonweight.data.columns import NAMELESS
from commonweight.decision.differences import by_value, differ, first_of, quoted, some
from commonweight.errors import NotComparableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    Keys that start with an underscore, dropout rates and :data:`HARMLESS` ones may differ.

    Args:
        configs: What ``config.json`` says, by name of the model.

    Returns:
        Sentences worth hearing: keys that only some configurations state, labels without names.

    Raises:
        UsageError: If weights are quantised.
        NotComparableError: If class, head, vocabulary or anything else that matters differs; the differences are named.

    Example:
        >>> check_configs({"a": {"id2label": {"0": "bad"}}, "b": {"id2label": {"0": "good"}}})
        Traceback (most recent call last):
        ...
        commonweight.errors.NotComparableError: the heads of 'a' and 'b' do not mean the same, 1 difference: id2label is
        {'0': 'bad'} in 'a', {'0': 'good'} in 'b'. Row k of a head must stand for one label in all models: train them
        with the same labels in the same order
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
    if found := _differences(configs, LABELS):
        raise NotComparableError(
            f"the heads of {names} do not mean the same, {first_of(found)}. Row k of a head must stand for one label "
            "in all models: train them with the same labels in the same order"
        )
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
        [f"only some of the configurations state {some(partly)}, which was therefore not compared"] if partly else []
    )
    return notes + beware_of_nameless(configs)


def beware_of_nameless(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warn of classifiers whose labels have no names of their own: nothing tells whether they mean the same.

    Args:
        configs: What ``config.json`` says, by name of the model.

    Returns:
        One sentence, or none.

    Example:
        >>> unnamed = {"architectures": ["BertForSequenceClassification"]}
        >>> print(*beware_of_nameless({"a": unnamed, "b": unnamed}))
        The labels of 'a' and 'b' have no names (LABEL_0, LABEL_1): check that row k of the head means the same label in
        all, and name them in the configuration (id2label)
    """
    nameless = {
        name: labels for name, config in configs.items() if (labels := _labels(config)) and _are_nameless(labels)
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


def _are_nameless(labels: list[str]) -> bool:
    return len(labels) > 1 and all(NAMELESS.fullmatch(str(label)) for label in labels)


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
    """Tell whether a setting changes what is computed, as far as its name tells.

    Args:
        key: Its name, or the path to it.

    Returns:
        False for names that start with an underscore, dropout rates and :data:`HARMLESS` ones.
    """
    last = key.rpartition(".")[2]
    return not (last.startswith("_") or last in HARMLESS or "drop" in last)
