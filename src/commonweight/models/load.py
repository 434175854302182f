"""MODEL on the command line: a Hugging Face id, a folder, an adapter folder, or ``module:function``.

All of them end as one :class:`LoadedModel`: the module, its tokenizer, what it predicts, and an identity that is
recorded with every footprint. Reading a model executes no code of others unless a flag that says so is given.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from commonweight.base.errors import UsageError
from commonweight.base.names import all_nearby
from commonweight.models.options import FUNCTION, HUB_ID, LoadedModel, LoadOptions

MISSPELLED = 0.75
"""From this likeness on a name is taken for that of a folder, and the Hub is not asked."""

ALIKE = 0.4
"""From this likeness on a folder is worth naming."""


def load_model(spec: str, options: LoadOptions | None = None) -> LoadedModel:
    """Load a model.

    Args:
        spec: ``org/name``, ``org/name@revision``, a local checkpoint or adapter folder, or ``module:function``.
        options: How to read it.

    Returns:
        The model in eval mode on its device.

    Raises:
        UsageError: If it cannot be found or read safely, or lacks weights; the message has the remedy.
    """
    options = options or LoadOptions()
    return replace(_loaded(spec, options), source=(spec, options))


def _loaded(spec: str, options: LoadOptions) -> LoadedModel:
    path = Path(spec).expanduser()
    if not path.exists() and FUNCTION.fullmatch(spec):
        from commonweight.models.function import load_function

        return load_function(spec, options)
    if options.checkpoint is not None:
        what = f"goes with module:function, but the model is {spec!r}; leave it out"
        raise UsageError(f"{{argument}} {what}", argument="checkpoint")
    if path.is_file():
        raise UsageError(
            f"{spec} is a file; expected a checkpoint folder. For bare weights write a function that builds the module "
            "and give module:function, with the file as {checkpoint}",
            checkpoint=None,
        )
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            from commonweight.models.adapter import load_adapter

            return load_adapter(path, spec, options)
        if not (path / "config.json").is_file():
            raise UsageError(
                f"{spec} is a folder but not a model: it has no config.json (a checkpoint) and no adapter_config.json "
                "(a PEFT adapter)"
            )
    # A misspelled folder is not looked for on the Hub, which takes long without a network.
    elif (
        (close := all_nearby(spec, MISSPELLED, folders_only=True))
        or spec.startswith((".", "/", "~"))
        or spec.count("/") > 1
    ):
        meant = f"; did you mean {close[0]!r}?" if close else "."
        raise UsageError(
            f"no folder {spec!r}{meant} Give an existing one, an id 'org/name' (with a revision, org/name@main, "
            "where a local name is much like it), or module:function"
        )
    elif (found := HUB_ID.fullmatch(spec)) is None:
        raise UsageError(f"{spec!r} is no folder, no id of the form org/name@revision, and no module:function")
    else:
        _check_reach(spec, found["id"], found["revision"])
    from commonweight.models.checkpoint import load_checkpoint

    return load_checkpoint(spec, options)


def short_name(spec: str) -> str:
    """Name a model for tables: the folder's, the id's or the function's last name."""
    path = Path(spec).expanduser()
    if path.exists():
        return path.resolve().name
    if FUNCTION.fullmatch(spec):
        return spec.rpartition(":")[2]
    return spec.partition("@")[0].rstrip("/").rpartition("/")[2]


def _check_reach(spec: str, where: str, revision: str | None) -> None:
    from commonweight.models.hub import out_of_reach

    reason = out_of_reach(where, revision)
    if reason is not None:
        near = ", ".join(map(repr, all_nearby(spec, ALIKE, folders_only=True)))
        raise UsageError(
            f"{spec!r} is no local model folder, and as a Hugging Face id {reason}. Expected a folder"
            + (f" (of similar name: {near})" if near else " (none has a similar name)")
            + ", an id 'org/name' that is in the cache or can be asked for, or module:function"
        )
