"""A Hugging Face checkpoint, from a folder or the Hub, loaded as the class its configuration names.

Nothing of the checkpoint is executed: weights are ``safetensors``, model code is the installed library's. The two flags
that change this are named in the errors. Weights that are not in the checkpoint would be drawn at random, and an
overlap of random weights means nothing, so that is an error too.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from commonweight.errors import UsageError
from commonweight.nn.identity import describe, hash_files, weight_files
from commonweight.nn.placement import pick_device, pick_dtype
from commonweight.nn.source import HUB_ID, LoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.nn.source import LoadOptions, Task

MOST_NAMED = 4
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def load_checkpoint(spec: str, options: LoadOptions) -> LoadedModel:
    """Load a checkpoint.

    Args:
        spec: A folder with a ``config.json``, or ``org/name@revision``.
        options: How to read it.

    Returns:
        The model, its tokenizer, its task and its identity.

    Raises:
        UsageError: If it cannot be found, would need code or pickles to be read, has no measurable task, or lacks
            weights.
    """
    is_local = Path(spec).expanduser().is_dir()
    if is_local:
        where, revision = str(Path(spec).expanduser()), None
        _refuse_remote_code(where, options)
        weight_files(Path(where), allow_pickle=options.allow_pickle)
    else:
        match = HUB_ID.fullmatch(spec)
        where, revision = (match["id"], match["revision"]) if match else (spec, None)
    common = {"trust_remote_code": options.trust_remote_code} | ({"revision": revision} if revision else {})
    with quiet_transformers():
        config = load_config(where, common)
        model_class = model_class_of(where, config, common, trusted=options.trust_remote_code)
        task = task_of(model_class.__name__, config)
        model, info = load_weights(model_class, where, config, common, options)
        tokenizer = load_tokenizer(options.tokenizer or where, common if options.tokenizer is None else {})
    missing = sorted(info["missing_keys"])
    if missing and not options.allow_missing_weights:
        raise UsageError(
            f"{spec} lacks weights of {model_class.__name__}: {_some(missing)}. They would be drawn at random, and an "
            "overlap of random weights means nothing. Give the fine-tuned checkpoint, or pass --allow-missing-weights"
        )
    notes = [f"{spec}: drawn at random, not in the checkpoint: {_some(missing)}"] if missing else []
    if info["unexpected_keys"]:
        notes.append(f"{spec}: in the checkpoint but not in the model: {_some(sorted(info['unexpected_keys']))}")
    model.to(pick_device(options.device)).eval()
    identity = {"name": spec, **origin(where, revision), "random_weights": missing}
    return LoadedModel(model, identity | describe(model), task, tokenizer, tuple(notes))


def task_of(class_name: str, config: Any) -> Task:
    """Tell what a Hugging Face model predicts.

    Args:
        class_name: Name of its class.
        config: Its configuration.

    Returns:
        The name of its per-example likelihood.

    Raises:
        UsageError: If it is neither a sequence classifier nor a causal language model.

    Example:
        >>> task_of("GPT2LMHeadModel", None)
        'causal_lm'
    """
    if class_name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal_lm"
    if class_name.endswith("ForSequenceClassification"):
        if config.problem_type == "multi_label_classification":
            return "multilabel"
        if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
            return "regression"
        return "classification"
    raise UsageError(
        f"the commands measure ...ForSequenceClassification and ...ForCausalLM models, got {class_name}. Give a "
        "fine-tuned checkpoint of such a class; for any other call commonweight.fisher(model, batches, loss=...) in "
        "Python"
    )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the loading messages of transformers: what matters of them is raised or noted by this module.

    Yields:
        Nothing; on leaving the former verbosity is back.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse_remote_code(folder: str, options: LoadOptions) -> None:
    try:
        config = json.loads((Path(folder) / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}/config.json cannot be read: {error}") from error
    if "auto_map" in config and not options.trust_remote_code:
        import transformers

        if all(not hasattr(transformers, name) for name in config.get("architectures") or [""]):
            raise UsageError(
                f"{folder} comes with model code of its own "
                f"({', '.join(sorted(map(str, config['auto_map'].values())))}); it was not run. Read it, and pass "
                "--trust-remote-code if you trust it"
            )


def load_config(where: str, common: dict[str, Any]) -> Any:
    """Read a configuration.

    Args:
        where: Folder or id.
        common: Revision and trust, as every ``from_pretrained`` takes them.

    Returns:
        The configuration.

    Raises:
        UsageError: If there is none, or it needs code of the checkpoint's own.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(where, **common)
    except (OSError, ValueError, KeyError) as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise UsageError(f"{where} comes with code of its own; pass --trust-remote-code if you trust it") from error
        raise UsageError(
            f"{where!r} is no local model folder, and as a Hugging Face id it could not be loaded: {_first_line(text)} "
            "Check the spelling, the revision and the network"
        ) from error


def model_class_of(where: str, config: Any, common: dict[str, Any], *, trusted: bool) -> Any:
    """Find the class a configuration names.

    Args:
        where: Folder or id.
        config: Its configuration.
        common: As for :func:`load_config`.
        trusted: Whether code of the checkpoint's own may be run.

    Returns:
        The class.

    Raises:
        UsageError: If none is named, or the library does not have it.
    """
    import transformers

    architectures = getattr(config, "architectures", None)
    if not architectures:
        raise UsageError(
            f"the config.json of {where} names no class under 'architectures'; save the model with save_pretrained, "
            "which writes it"
        )
    name = architectures[0]
    found = getattr(transformers, name, None)
    if found is not None:
        return found
    if trusted:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        for reference in (getattr(config, "auto_map", None) or {}).values():
            if str(reference).rpartition(".")[2] == name:
                return get_class_from_dynamic_module(reference, where, revision=common.get("revision"))
    raise UsageError(
        f"{where} is a {name}, which transformers {transformers.__version__} does not have. Upgrade transformers, or "
        "pass --trust-remote-code if the class comes with the checkpoint and you trust it"
    )


def load_weights(
    model_class: Any, where: str, config: Any, common: dict[str, Any], options: LoadOptions
) -> tuple[Any, dict[str, Any]]:
    """Load weights without executing anything of the checkpoint.

    Args:
        model_class: Class or auto class.
        where: Folder or id.
        config: Its configuration.
        common: As for :func:`load_config`.
        options: Precision, and whether pickles may be read.

    Returns:
        The model, and what ``from_pretrained`` says of missing and unexpected weights.

    Raises:
        UsageError: If the weights are absent, damaged, pickled, or do not fit.
    """
    from safetensors import SafetensorError

    dtype = pick_dtype(options.dtype)
    arguments = common | {"config": config, "dtype": "auto" if dtype is None else dtype}
    if not options.allow_pickle:
        arguments["use_safetensors"] = True
    try:
        model, info = model_class.from_pretrained(where, output_loading_info=True, **arguments)
    except OSError as error:
        remedy = "" if options.allow_pickle else " Pickled weights are read only with --allow-pickle."
        raise UsageError(f"the weights of {where} could not be loaded: {_first_line(str(error))}{remedy}") from error
    except (SafetensorError, UnpicklingError) as error:
        raise UsageError(
            f"the weights of {where} are damaged or no plain weights: {_first_line(str(error))}"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the weights of {where} do not fit {model_class.__name__}: {error}") from error
    return model, info


def load_tokenizer(where: str, common: dict[str, Any]) -> Any:
    """Load a tokenizer.

    Args:
        where: Folder or id.
        common: As for :func:`load_config`.

    Returns:
        The tokenizer.

    Raises:
        UsageError: If there is none that the installed libraries can read.
    """
    from transformers import AutoTokenizer

    remedy = "save it beside the model with tokenizer.save_pretrained, or name one with --tokenizer"
    # Without its files a tokenizer of the right class is made up, with an empty vocabulary.
    if Path(where).is_dir() and not any((Path(where) / name).is_file() for name in TOKENIZER_FILES):
        raise UsageError(f"no tokenizer in {where}; {remedy}")
    try:
        return AutoTokenizer.from_pretrained(where, **({"trust_remote_code": False} | common))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(f"no usable tokenizer in {where}: {_first_line(str(error))} {remedy.capitalize()}") from error


def origin(where: str, revision: str | None) -> dict[str, Any]:
    """Say where a checkpoint was read from, and hash its weight files.

    Args:
        where: Folder or id; an id must have been read already.
        revision: The revision asked for, if any.

    Returns:
        ``source``, ``commit`` (of the Hub; None for a folder), and ``weights``: SHA-256 by file name, or None if the
        files cannot be found in the Hugging Face cache.
    """
    if Path(where).is_dir():
        return {"source": "folder", "commit": None, "weights": _hashes(Path(where))}
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(where, "config.json", revision=revision or "main")
    if not isinstance(found, str):
        return {"source": "hub", "commit": None, "weights": None}
    return {"source": "hub", "commit": Path(found).parent.name, "weights": _hashes(Path(found).parent)}


def _hashes(folder: Path) -> dict[str, str]:
    # Whether a pickle may be read was decided before it was read.
    return hash_files(weight_files(folder, allow_pickle=True))


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown}, … ({len(names)} in all)"
