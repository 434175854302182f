"""The folder of a fused checkpoint: written tensor by tensor, with the record of the fusion and a model card."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import platform
import re
import shutil
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from commonweight.base.errors import UsageError
from commonweight.base.folders import Kind, check_room, checked_output, flush, replacing
from commonweight.base.progress import is_shown, shown, steps
from commonweight.base.text import DASH, Block, Grid, to_markdown
from commonweight.base.version import __version__
from commonweight.footprints.files import RECORD as FOOTPRINT_RECORD
from commonweight.fusion.checkpoints import DTYPES, plan_checkpoints
from commonweight.fusion.fusion import is_worrying, on_initialisation
from commonweight.fusion.methods import METHODS
from commonweight.models.config import check_within
from commonweight.models.identity import hash_files
from commonweight.models.tokenizer import BESIDE, TOKENIZER_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from commonweight.footprints.footprint import Footprint
    from commonweight.fusion.checkpoints import Plan
    from commonweight.fusion.tensors import Facts

FORMAT = "commonweight-fusion"

VERSION = 2

RECORD = "fusion.json"

FUSED = Kind("fused checkpoint", RECORD)

CONFIGURATION = ("config.json", "generation_config.json")

COPIED = (*TOKENIZER_FILES, *BESIDE, "chat_template.jinja", "preprocessor_config.json", "processor_config.json")
"""Files of the first model that are taken over as they are, where it has them."""


def fuse_checkpoints(
    folders: Sequence[str | Path],
    weights: Sequence[float] | None = None,
    method: str = "average",
    *,
    output: str | Path,
    base: str | Path | None = None,
    footprints: Sequence[Footprint | str | Path] | None = None,
    overwrite: bool = False,
    allow_pickle: bool = False,
    progress: bool = False,
    note: Callable[[str], None] | None = None,
    **parameters: float | str | None,
) -> Path:
    """Fuse checkpoint folders into a new one, tensor by tensor; nothing of them is executed.

    Methods, checks, precision and what is not named here are those of :func:`commonweight.fuse`; vocabularies are
    compared too. At most two tensors of the models are in memory at a time.

    Args:
        folders: Checkpoints in the layout of Hugging Face: folders, or ids ``org/name@revision``.
        weights: As for :func:`commonweight.fuse`.
        method: As for :func:`commonweight.fuse`.
        output: Where the fused checkpoint goes.
        base: ``task_arithmetic``: the checkpoint that the models were fine-tuned from.
        footprints: ``fisher``: a Fisher of each model, in their order, or folders of them.
        overwrite: Replace a fused checkpoint that is there.
        allow_pickle: Read pickled weights, restricted to plain tensors; without it they are refused.
        progress: Show a progress bar on stderr.
        note: Takes one sentence at a time that the user should hear. None: they become warnings.
        parameters: Of the method.

    Returns:
        The output folder, which loads with ``from_pretrained`` and holds a model card and ``fusion.json``. It is there
        whole or not at all.

    Raises:
        UsageError: If an argument is not what it should be; the message has the remedy.
        NotComparableError: If models differ in something that has to be equal; the first differences are named.
        IntegrityError: If a file is damaged.
        MeasurementError: If a weight is nan or infinite, before or after.

    Example:
        >>> import tempfile
        >>> from commonweight.studies.demo.encoder import make_start, make_tokenizer, save
        >>> place = Path(tempfile.mkdtemp())
        >>> for name in ("films", "food"):
        ...     save(make_start(0), make_tokenizer(), place / name)
        >>> fused = fuse_checkpoints([place / "films", place / "food"], output=place / "both")
        >>> (fused / "model.safetensors").is_file()
        True
    """
    if isinstance(folders, str | Path):
        raise UsageError(f"expected a list of checkpoint folders, got one {type(folders).__name__}; put it into a list")
    for one in [*folders, *([] if base is None else [base])]:
        if not isinstance(one, str | Path):
            raise UsageError(
                f"expected checkpoint folders, got a {type(one).__name__}; commonweight.fuse fuses modules"
            )
    named = [one for one in footprints or () if isinstance(one, str | Path)]
    place = check_place(output, [*folders, *([] if base is None else [base]), *named], overwrite=overwrite)
    plan = plan_checkpoints(
        folders,
        weights,
        method,
        base=base,
        footprints=footprints,
        allow_pickle=allow_pickle,
        parameters=parameters,
    )
    tell = functools.partial(warnings.warn, stacklevel=2) if note is None else note
    for sentence in plan.told():
        tell(sentence)
    given = {
        "weights": None if weights is None else plan.fusion.weights,
        "method": None if method == "average" else method,
        "base": base,
        "footprints": footprints,
        **parameters,
        "output": output,
    }
    said = "".join(f", {key}={_plain(value)!r}" for key, value in given.items() if value is not None)
    call = f"commonweight.fuse_checkpoints({_plain(folders)!r}{said})"
    with shown(progress or is_shown()):
        write_fusion(plan, place, call, overwrite=overwrite)
    return place


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def check_place(output: str | Path, inputs: Iterable[str | Path], *, overwrite: bool = False) -> Path:
    """Check that a fused checkpoint may be written somewhere, before any other work."""
    folder = Path(output).expanduser()
    for given in inputs:
        path = Path(given).expanduser()
        with contextlib.suppress(OSError, RuntimeError):  # links in a circle: said below, or where the input is opened
            if path.exists() and path.resolve().is_relative_to(folder.resolve()):
                relation = "is" if path.resolve() == folder.resolve() else "holds"
                raise UsageError(f"the output {output} {relation} the input {given}; choose another folder")
    return checked_output(folder, FUSED, overwrite=overwrite)


def write_fusion(plan: Plan, folder: Path, command: str, *, overwrite: bool = False) -> dict[str, Any]:
    """Compute a fusion and write it, one tensor at a time, in files like those of the first model."""
    facts = plan.fusion.models[0].facts
    check_room(folder, sum(map(size_of, facts.values())))
    with (
        replacing(folder, FUSED, overwrite=overwrite) as place,
        steps("fusing", len(facts), "tensor") as advance,
    ):
        place.mkdir(parents=True)
        record = describe(plan, command)
        _copy_beside(plan, place)
        files: dict[str, Any] = {}
        weight_map: dict[str, str] = {}

        def tensor(key: str) -> Any:
            advance()
            return plan.fusion.tensor(key)

        for name, members in _files(plan).items():
            files[name] = write_stream(place / name, members, tensor)
            weight_map.update(dict.fromkeys(members, name))
        if len(files) > 1:
            total = {"total_size": sum(map(size_of, facts.values()))}
            index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
            _write(place / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
        record |= {"counts": dict(plan.fusion.method.counts), "files": files}
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
            shutil.copyfile(check_within(first.folder, first.folder / name), place / name)
    for name in COPIED:
        folder = holders[0] if holders and name in (*TOKENIZER_FILES, *BESIDE) else first.folder
        if (folder / name).is_file():
            shutil.copyfile(check_within(folder, folder / name), place / name)
    if first.config.get("auto_map"):
        for code in first.folder.glob("*.py"):
            shutil.copyfile(check_within(first.folder, code), place / code.name)
    for path in place.iterdir():
        flush(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    flush(path)


ALIGNMENT = 8
"""Tensors begin at a multiple of this."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_stream(path: Path, facts: Mapping[str, Facts], tensor: Callable[[str], Tensor]) -> dict[str, Any]:
    """Write one safetensors file, each tensor computed when its turn comes, and give its size and hash."""
    # The library's order: wide types first, so that every tensor is aligned to its own width.
    order = sorted(facts, key=lambda key: (-facts[key].dtype.itemsize, key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in order:
        start, end = end, end + size_of(facts[key])
        shape = list(facts[key].shape)
        header[key] = {"dtype": _NAMES[facts[key].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for key in order:
            _append(file, digest, key, facts[key], tensor(key))
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _append(file: IO[bytes], digest: Any, key: str, facts: Facts, tensor: Tensor) -> None:
    if (tuple(tensor.shape), tensor.dtype) != (facts.shape, facts.dtype):
        raise ValueError(f"{key} was announced as {facts} and is {tuple(tensor.shape)}, {tensor.dtype}")
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    file.write(values)
    digest.update(values)


def size_of(facts: Facts) -> int:
    """Count the bytes of a tensor."""
    return math.prod(facts.shape) * facts.dtype.itemsize


_OF_FOOTPRINT = ("fisher_type", "loss", "data")


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """Describe a fusion before it is computed."""
    fusion = plan.fusion
    facts = fusion.models[0].facts
    models = [
        {**checkpoint.source.identity(), "weight": weight}
        for checkpoint, weight in zip(plan.checkpoints, fusion.weights, strict=True)
    ]
    for model, (name, footprint) in zip(models, plan.footprints.items(), strict=False):
        model["footprint"] = _of_footprint(name, footprint)
    dtypes = sorted({str(fact.dtype).removeprefix("torch.") for fact in facts.values() if fact.is_floating})
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": fusion.method.name,
        "parameters": dict(fusion.method.settings()),
        "models": models,
        "base": None if plan.base is None else plan.base.source.identity(),
        "shared_initialisation": {
            "sentence": on_initialisation(plan.alignment),
            "is_worrying": is_worrying(plan.alignment),
            "names": list(plan.alignment.names),
            "distance": [[None if math.isnan(one) else one for one in row] for row in plan.alignment.distance.tolist()],
        },
        "tensors": len(facts),
        "entries": sum(math.prod(fact.shape) for fact in facts.values()),
        "dtype": dtypes[0] if len(dtypes) == 1 else dtypes,
        "plain_average": list(fusion.without_fisher),
        "from_first": list(fusion.counters),
        "notes": list(plan.notes),
        "command": command,
        "versions": {"commonweight": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _of_footprint(name: str, footprint: Footprint) -> dict[str, Any]:
    file = Path(name).expanduser() / FOOTPRINT_RECORD
    return {
        "name": name,
        "count": footprint.count,
        **{key: footprint.metadata.get(key) for key in _OF_FOOTPRINT},
        "sha256": hash_files([file])[FOOTPRINT_RECORD] if file.is_file() else None,
    }


def models_grid(record: Mapping[str, Any], digits: int | None = None) -> Grid:
    """List what was fused; hashes may be shortened."""
    has_fishers = any("footprint" in model for model in record["models"])
    rows = [
        (
            model["name"],
            f"{model['weight']:g}",
            content_hash(model)[:digits],
            *([f"{model['footprint']['count']} examples, {model['footprint']['name']}"] if has_fishers else []),
        )
        for model in record["models"]
    ]
    if (base := record["base"]) is not None:
        rows.append((base["name"], "base", content_hash(base)[:digits], *([DASH] if has_fishers else [])))
    return Grid("Models", ("model", "weight", "SHA-256", *(["Fisher of"] if has_fishers else [])), tuple(rows))


def blocks(record: Mapping[str, Any], folder: str | None = None) -> list[Block]:
    """Say what was fused, or what would be."""
    facts = [
        ("method", METHODS[record["method"]].title),
        *settings_and_counts(record),
        ("tensors", str(record["tensors"])),
        ("numbers", str(record["entries"])),
        ("type", types_of(record)),
        ("commonweight", record["versions"]["commonweight"]),
    ]
    return [
        models_grid(record),
        Grid("Fusion", ("", ""), tuple(facts)),
        record["shared_initialisation"]["sentence"],
        *record["notes"],
        *([] if folder is None else [f"Written to {folder}"]),
    ]


def settings_and_counts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say how the method was set, and to how many numbers something happened that a person should know."""
    return [
        *((name, f"{value:g}" if isinstance(value, float) else value) for name, value in record["parameters"].items()),
        *(
            (what.replace("_", " "), _share(count, record["entries"]))
            for what, count in record.get("counts", {}).items()
        ),
    ]


def types_of(record: Mapping[str, Any]) -> str:
    """Name the types of a fusion's numbers."""
    return record["dtype"] if isinstance(record["dtype"], str) else ", ".join(record["dtype"])


def _share(count: int, entries: int) -> str:
    return f"{count} ({100 * count / entries:.1f} %)" if entries else str(count)


_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(record: Mapping[str, Any], title: str) -> str:
    """Write the model card: a YAML header the Hub understands, and how the checkpoint was made."""
    sources = [*record["models"], *([record["base"]] if record["base"] is not None else [])]
    bases = list(dict.fromkeys(_model_id(source["name"]) for source in sources))
    head = ["---", "base_model:", *(f"- {json.dumps(name)}" for name in bases)]
    head += ["base_model_relation: merge", "library_name: transformers", "tags:", "- merge", "- commonweight", "---"]
    heading = f"# {' '.join(title.split())}"
    made = (
        "Made by fusing the weights of these checkpoints; nothing was trained. `fusion.json` holds the full record.\n"
        "Measure it on everything these could do before you rely on it: what an average loses, it loses in silence."
    )
    fence = "```"
    command = f"{fence}\n{record['command']}\n{fence}"
    return "\n".join(head) + f"\n\n{heading}\n\n{made}\n\n{to_markdown(blocks(record))}\nThe command:\n\n{command}\n"


def _model_id(name: str) -> str:
    """Give an id for the header: the Hub refuses cards whose base is a path."""
    plain = name.partition("@")[0]
    if _ID.fullmatch(plain) and not plain.startswith("."):
        return plain
    last = [part for part in plain.split("/") if part not in {"", ".", ".."}]
    return re.sub(r"[^\w.-]", "-", last[-1]) if last else "model"


def content_hash(identity: Mapping[str, Any]) -> str:
    """Name the weights of a checkpoint by one hash: that of its file, or of the hashes of its files."""
    hashes = [found for _, found in sorted((identity.get("weights") or {}).items())]
    if len(hashes) < 2:
        return hashes[0] if hashes else DASH
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
