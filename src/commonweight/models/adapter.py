"""A PEFT adapter folder: its base checkpoint first, the adapter on top.

Only the adapter's weights are measured or, once it is merged, the weights of the base that it changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.models import checkpoint
from commonweight.models.config import read_config
from commonweight.models.hub import out_of_reach
from commonweight.models.identity import ADAPTER, describe, first_line, hash_files, hash_json, origin, weight_files
from commonweight.models.options import LoadedModel
from commonweight.models.placement import DRAW_SEED, pick_device, seeded
from commonweight.models.tokenizer import load_tokenizer, tokenizer_hashes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from commonweight.models.options import LoadOptions

ADAPTER_CONFIG = "adapter_config.json"
AUTO_CLASS = {"SEQ_CLS": "AutoModelForSequenceClassification", "CAUSAL_LM": "AutoModelForCausalLM"}
HEADS = ("classifier.out_proj.weight", "classifier.weight", "score.weight")


def load_adapter(folder: Path, spec: str, options: LoadOptions) -> LoadedModel:
    """Load an adapter onto its base."""
    try:
        import peft
    except ImportError as error:
        raise UsageError(f"{spec} is a PEFT adapter, and peft is not installed; run: pip install peft") from error
    import transformers

    files = weight_files(folder, stem=ADAPTER, allow_pickle=options.allow_pickle)
    read_config(folder, ADAPTER_CONFIG)
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # whatever a configuration of others may raise
        raise UsageError(
            f"the {ADAPTER_CONFIG} of {spec} cannot be used ({type(error).__name__}: {first_line(error)}): copy the "
            "adapter again, or upgrade peft"
        ) from error
    task_type = getattr(config.task_type, "value", config.task_type)
    if task_type not in AUTO_CLASS:
        raise UsageError(f"{spec} is an adapter for {task_type}; the commands measure {' and '.join(AUTO_CLASS)}")
    if config.is_prompt_learning or getattr(config, "adapters", None):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise UsageError(
            f"{spec} is an adapter of the type {kind}, which adds tokens or mixes adapters of other folders; expected "
            "one that changes the weights of its base, such as LoRA"
        )
    base = str(config.base_model_name_or_path)
    trust = options.trust_remote_code
    shapes = _saved_shapes(files)
    if not Path(base).expanduser().is_dir() and (reason := out_of_reach(base, config.revision)) is not None:
        raise UsageError(
            f"the base of {spec}, {base!r}, is no local folder, and as a Hugging Face id {reason}. Connect to the "
            "network, or put the base where the adapter_config.json says it is"
        )
    with checkpoint.quiet_transformers():
        base_config = checkpoint.load_config(base, config.revision, trust=trust)
        head = next((shapes[name] for name in HEADS if name in shapes), None)
        if head is not None:
            base_config.num_labels = head[0]
        auto = getattr(transformers, AUTO_CLASS[task_type])
        model, info = checkpoint.load_weights(auto, base, base_config, config.revision, options)
        random = sorted(set(info["missing_keys"]) - set(shapes))
        if random and not options.allow_missing_weights:
            raise UsageError(
                f"neither the base {base} nor the adapter {spec} has {', '.join(random[:4])}; an overlap of random "
                "weights means nothing. Save the head with the adapter (modules_to_save), or pass "
                "{allow_missing_weights}",
                allow_missing_weights=True,
            )
        task = checkpoint.task_of(type(model).__name__, base_config)
        before = {name: weight.clone() for name, weight in model.state_dict().items()} if options.merge_adapters else {}
        try:
            with seeded():
                model = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        except Exception as error:  # whatever a configuration of others makes of an adapter
            raise UsageError(f"the adapter {spec} does not fit its base {base}: {first_line(error)}") from error
        code = checkpoint.code_of(model.get_base_model())
        if options.merge_adapters:
            model = _merged(model, before, spec)
        has_tokenizer = any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json"))
        own = options.tokenizer or (str(folder) if has_tokenizer else None)
        asked, revision = (own, None) if own else (base, config.revision)
        tokenizer = load_tokenizer(asked, revision, trust=trust)
    identity = {
        "source": "adapter",
        "name": spec,
        "weights": hash_files(files),
        "config": hash_json(folder / ADAPTER_CONFIG, without=("base_model_name_or_path", "revision")),
        "tokenizer": tokenizer_hashes(asked, revision, tokenizer),
        "base": {"name": base, **origin(base, config.revision), **code},
        **({"merged": True} if options.merge_adapters else {}),
        "random_weights": random,
        "random_seed": DRAW_SEED if random else None,
    }
    model.to(pick_device(options.device)).eval()
    return LoadedModel(model, identity | describe(model), task, tokenizer)


def _merged(adapted: Any, before: Mapping[str, Tensor], spec: str) -> Any:
    """Put an adapter into the weights of its base, of which those that it changes require a gradient."""
    try:
        model = adapted.merge_and_unload()
    except Exception as error:  # whatever a kind of adapter that cannot be merged raises
        raise UsageError(
            f"the adapter {spec} cannot be merged into its base ({type(error).__name__}: {first_line(error)}): leave "
            "out {merge_adapters}, and its own weights are measured",
            merge_adapters=False,
        ) from error
    for name, weight in model.named_parameters():
        weight.requires_grad_(not torch.equal(weight, before[name]))
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(
            f"the adapter {spec} changes no weight of its base, as before its first training step: train it, or leave "
            "out {merge_adapters}",
            merge_adapters=False,
        )
    return model


def _saved_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    # Names as the base model has them, and shapes, of what the adapter saved.
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, framework="pt") as reader:
                    for name in reader.keys():  # noqa: SIM118
                        shapes[name.removeprefix("base_model.model.")] = tuple(reader.get_slice(name).get_shape())
            except (OSError, SafetensorError) as error:
                raise IntegrityError(f"{file} cannot be read ({first_line(error)}): copy the adapter again") from error
    return shapes
