"""A Hugging Face checkpoint, from a folder or the Hub, loaded as the class its configuration names.

Nothing of the checkpoint is executed: weights are ``safetensors``, model code is the installed library's. The two flags
that change this are named in the errors. Weights that are not in the checkpoint would be drawn at random, and an
overlap of random weights means nothing, so that is an error too.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.names import some
from commonweight.models.config import AGAIN, read_config, refuse_quantised
from commonweight.models.identity import code_hashes, describe, first_line, origin, weight_files
from commonweight.models.options import HUB_ID, LoadedModel
from commonweight.models.placement import DRAW_SEED, pick_device, pick_dtype, seeded
from commonweight.models.tokenizer import load_tokenizer, tokenizer_hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commonweight.models.options import LoadOptions, Task

MAIN = "main"
"""The revision that is meant where none is named."""


def load_checkpoint(spec: str, options: LoadOptions) -> LoadedModel:
    """Load a checkpoint."""
    is_local = Path(spec).expanduser().is_dir()
    if is_local:
        where, revision = str(Path(spec).expanduser()), None
        _refuse_remote_code(where, options)
        weight_files(Path(where), allow_pickle=options.allow_pickle)
    else:
        match = HUB_ID.fullmatch(spec)
        where, revision = (match["id"], match["revision"]) if match else (spec, None)
    trust = options.trust_remote_code
    with quiet_transformers():
        config = load_config(where, revision, trust=trust)
        model_class = model_class_of(where, config, revision, trust=trust)
        task = task_of(model_class.__name__, config)
        model, info = load_weights(model_class, where, config, revision, options)
        asked, of_asked = (where, revision) if options.tokenizer is None else (options.tokenizer, None)
        tokenizer = load_tokenizer(asked, of_asked, trust=trust)
    missing = sorted(info["missing_keys"])
    if missing and not options.allow_missing_weights:
        raise UsageError(
            f"{spec} lacks weights of {model_class.__name__}: {some(missing)}. They would be drawn at random, and an "
            "overlap of random weights means nothing. Give the fine-tuned checkpoint, or pass {allow_missing_weights}",
            allow_missing_weights=True,
        )
    notes = [f"{spec}: drawn at random, not in the checkpoint: {some(missing)}"] if missing else []
    if info["unexpected_keys"]:
        notes.append(f"{spec}: in the checkpoint but not in the model: {some(sorted(info['unexpected_keys']))}")
    model.to(pick_device(options.device)).eval()
    identity = {
        "name": spec,
        **origin(where, revision),
        **code_of(model),
        "tokenizer": tokenizer_hashes(asked, of_asked, tokenizer),
        "random_weights": missing,
        "random_seed": DRAW_SEED if missing else None,
    }
    return LoadedModel(model, identity | describe(model), task, tokenizer, tuple(notes))


def code_of(model: Any) -> dict[str, Any]:
    """Say which code of a checkpoint's own was run for it."""
    code = code_hashes(model, model.config)
    return {"code": code} if code else {}


def task_of(class_name: str, config: Any) -> Task:
    """Tell what a Hugging Face model of a class predicts: the name of its per-example likelihood."""
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
    """Silence the loading messages of transformers: what matters of them is raised or noted by this module."""
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
    config = read_config(Path(folder))
    if config.get("auto_map") and not options.trust_remote_code:
        import transformers

        if all(not hasattr(transformers, name) for name in config.get("architectures") or [""]):
            raise _not_run(folder, f" ({', '.join(sorted(map(str, config['auto_map'].values())))})")


def _not_run(where: str, named: str = "") -> UsageError:
    return UsageError(
        f"{where} comes with code of its own{named}; it was not run. Read it, and pass {{trust_remote_code}} if you "
        "trust it",
        trust_remote_code=True,
    )


def refuse_code(where: str, error: Exception) -> None:
    """Say that a checkpoint comes with code that was not run, if that is what an error is about."""
    if "trust_remote_code" in str(error):
        raise _not_run(where) from error


def load_config(where: str, revision: str | None, *, trust: bool) -> Any:
    """Read a configuration."""
    from transformers import AutoConfig

    is_local = Path(where).expanduser().is_dir()
    if is_local:
        read_config(Path(where).expanduser())
    try:
        config = AutoConfig.from_pretrained(where, revision=revision or MAIN, trust_remote_code=trust)
    except Exception as error:  # whatever a configuration of others, or code of theirs, may raise
        refuse_code(where, error)
        if is_local:
            raise UsageError(f"the config.json of {where} cannot be used ({first_line(error)}): {AGAIN}") from error
        raise UsageError(
            f"{where!r} is no local model folder, and as a Hugging Face id it could not be loaded: {first_line(error)} "
            "Check the spelling, the revision and the network"
        ) from error
    refuse_quantised(where, config)
    return config


def model_class_of(where: str, config: Any, revision: str | None, *, trust: bool) -> Any:
    """Find the class a configuration names."""
    import transformers

    architectures = getattr(config, "architectures", None)
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise UsageError(
            f"the config.json of {where} names no class under 'architectures'; save the model with save_pretrained, "
            "which writes it"
        )
    name = architectures[0]
    found = getattr(transformers, name, None)
    if isinstance(found, type):
        return found
    if trust:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        for reference in (getattr(config, "auto_map", None) or {}).values():
            if str(reference).rpartition(".")[2] == name:
                try:
                    return get_class_from_dynamic_module(reference, where, revision=revision)
                except Exception as error:  # whatever code of others may raise
                    raise UsageError(
                        f"{where} names its class {reference}, and it cannot be loaded from there: "
                        f"{type(error).__name__}: {first_line(error)}"
                    ) from error
    raise UsageError(
        f"{where} is a {name}, which transformers {transformers.__version__} does not have. Upgrade transformers, or "
        "pass {trust_remote_code} if the class comes with the checkpoint and you trust it",
        trust_remote_code=True,
    )


def load_weights(
    model_class: Any, where: str, config: Any, revision: str | None, options: LoadOptions
) -> tuple[Any, dict[str, Any]]:
    """Load weights without executing anything of the checkpoint; those it lacks are drawn under one seed."""
    from safetensors import SafetensorError

    dtype = pick_dtype(options.dtype)
    try:
        with seeded():  # missing weights are drawn here
            model, info = model_class.from_pretrained(
                where,
                output_loading_info=True,
                config=config,
                revision=revision or MAIN,
                dtype="auto" if dtype is None else dtype,
                use_safetensors=None if options.allow_pickle else True,
                trust_remote_code=options.trust_remote_code,
            )
    except OSError as error:
        remedy = "" if options.allow_pickle else " Pickled weights are read only with {allow_pickle}."
        raise UsageError(
            f"the weights of {where} could not be loaded: {first_line(error)}{remedy}", allow_pickle=True
        ) from error
    except (SafetensorError, UnpicklingError) as error:
        kind = IntegrityError if isinstance(error, SafetensorError) else UsageError
        raise kind(
            f"the weights of {where} are damaged or no plain weights ({first_line(error)}): copy them again"
        ) from error
    except Exception as error:  # whatever a configuration of others makes of a class
        raise UsageError(f"the weights of {where} do not fit {model_class.__name__}: {error}") from error
    if getattr(model, "_hf_peft_config_loaded", False):  # whoever asks for the model gets the adapter beside it too
        raise UsageError(
            f"{where} holds an adapter beside, or in place of, the weights of a model; expected a plain checkpoint "
            "here: merge the adapter into it (merge_and_unload, then save_pretrained), or remove it"
        )
    return model, info
