"""The folder of a fused checkpoint: written whole under another name, then renamed."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from commonweight.decision.card import model_card
from commonweight.decision.record import RECORD, dead_share, describe
from commonweight.decision.room import check_room
from commonweight.decision.stream import size_of, write_stream
from commonweight.errors import UsageError
from commonweight.nn.tokenizer import BESIDE, TOKENIZER_FILES
from commonweight.place import Kind, checked_output, flush, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from commonweight.decision.plan import Plan
    from commonweight.decision.tensors import Facts

FUSED = Kind("fused checkpoint", RECORD)
CONFIGURATION = ("config.json", "generation_config.json")
COPIED = (*TOKENIZER_FILES, *BESIDE, "chat_template.jinja", "preprocessor_config.json", "processor_config.json")
"""Files of the first model that are taken over as they are, where it has them."""


def check_place(output: str | Path, inputs: Iterable[str | Path], *, overwrite: bool = False) -> Path:
    """Check that a fused checkpoint may be written somewhere, before any other work.

    Args:
        output: Where to.
        inputs: Models, base and footprints as the user gave them; ids that are no folders are passed over.
        overwrite: Whether a fused checkpoint that is there may go.

    Returns:
        The folder, links followed.

    Raises:
        UsageError: If something is there that may not be replaced, or the folder is one of the inputs or holds one.
    """
    folder = Path(output).expanduser()
    for given in inputs:
        path = Path(given).expanduser()
        with contextlib.suppress(OSError, RuntimeError):  # links in a circle: said below, or where the input is opened
            if path.exists() and path.resolve().is_relative_to(folder.resolve()):
                relation = "is" if path.resolve() == folder.resolve() else "holds"
                raise UsageError(f"the output {output} {relation} the input {given}; choose another folder")
    return checked_output(folder, FUSED, overwrite=overwrite)


def write_fusion(
    plan: Plan, folder: Path, command: str, *, overwrite: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Compute a fusion and write it, one tensor at a time, in files like those of the first model.

    Args:
        plan: The fusion.
        folder: Where to, as :func:`check_place` gave it.
        command: What was asked.
        overwrite: Whether a fused checkpoint that is there may go.
        progress: Show a progress bar on stderr.

    Returns:
        What ``fusion.json`` says.

    Raises:
        UsageError: If the disk has no room for it; nothing is written then.
    """
    facts = plan.fusion.models[0].facts
    check_room(folder, sum(map(size_of, facts.values())))
    with (
        replacing(folder, FUSED, overwrite=overwrite) as place,
        tqdm(total=len(facts), unit=" tensors", desc="fusing", disable=not progress) as bar,
    ):
        place.mkdir(parents=True)
        _copy_beside(plan, place)
        files: dict[str, Any] = {}
        weight_map: dict[str, str] = {}

        def tensor(key: str) -> Any:
            bar.update()
            return plan.fusion.tensor(key)

        for name, members in _files(plan).items():
            files[name] = write_stream(place / name, members, tensor)
            weight_map.update(dict.fromkeys(members, name))
        if len(files) > 1:
            total = {"total_size": sum(map(size_of, facts.values()))}
            index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
            _write(place / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
        record = {**describe(plan, command), "dead": dead_share(plan), "files": files}
        _write(place / "README.md", model_card(record, folder.name))
        _write(place / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
        flush(place)
    return record


def _files(plan: Plan) -> dict[str, Mapping[str, Facts]]:
    """Deal the tensors to files as the first model has them, under the names the library looks for."""
    first = plan.checkpoints[0]
    originals = sorted(set(first.files.values()))
    found: dict[str, Mapping[str, Facts]] = {}
    for number, original in enumerate(originals, 1):
        name = "model.safetensors"
        if len(originals) > 1:
            name = f"model-{number:05d}-of-{len(originals):05d}.safetensors"
        found[name] = {key: fact for key, fact in first.tensors.facts.items() if first.files[key] == original}
    return found


def _copy_beside(plan: Plan, place: Path) -> None:
    first = plan.checkpoints[0]
    # Whoever has a tokenizer has the same one: that was checked.
    holders = [c.folder for c in plan.checkpoints if any((c.folder / name).is_file() for name in TOKENIZER_FILES)]
    for name in CONFIGURATION:
        if (first.folder / name).is_file():
            shutil.copyfile(first.folder / name, place / name)
    for name in COPIED:
        source = (holders[0] if holders and name in (*TOKENIZER_FILES, *BESIDE) else first.folder) / name
        if source.is_file():
            shutil.copyfile(source, place / name)
    if first.config.get("auto_map"):
        for code in first.folder.glob("*.py"):
            shutil.copyfile(code, place / code.name)
    for path in place.iterdir():
        flush(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    flush(path)
