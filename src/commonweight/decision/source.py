"""Where a checkpoint to be fused is: a folder, or the cached snapshot of a Hugging Face id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commonweight.data.suggest import nearby
from commonweight.errors import UsageError
from commonweight.nn.identity import first_line, origin
from commonweight.nn.source import FUNCTION, HUB_ID
from commonweight.nn.tokenizer import tokenizer_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py")
"""What is fetched of a repository on the Hub; folders within it are not."""


@dataclass(frozen=True)
class Source:
    """A checkpoint's place."""

    name: str
    """As the user gave it; what errors call it."""

    folder: Path
    id: str | None = None
    """On the Hub; None for a folder."""

    revision: str | None = None

    def identity(self) -> dict[str, Any]:
        """Say which checkpoint this is: where it came from, and the SHA-256 of its files.

        Returns:
            Plain JSON values, equal exactly if the checkpoints are.
        """
        where = self.id or str(self.folder)
        return {
            "name": self.name,
            **origin(where, self.revision),
            "tokenizer": tokenizer_hashes(where, self.revision),
        }


def find_sources(specs: Sequence[str | Path], *, allow_pickle: bool = False) -> list[Source]:
    """Find checkpoints; ids are fetched into the Hugging Face cache, all others must be folders.

    Args:
        specs: Folders, or ids ``org/name@revision``.
        allow_pickle: Fetch pickled weights too.

    Returns:
        One each, in order.

    Raises:
        UsageError: If one is not there, no checkpoint, or given twice.
    """
    places: dict[Path, str] = {}
    sources = []
    for spec in map(str, specs):
        source = _find(spec, allow_pickle)
        place = source.folder.resolve()
        if place in places:
            again = spec if places[place] == spec else f"{spec} (which is {places[place]})"
            raise UsageError(f"{again} is given twice; give each checkpoint once, a model with the sum of its weights")
        places[place] = spec
        sources.append(source)
    return sources


def _find(spec: str, allow_pickle: bool) -> Source:
    path = Path(spec).expanduser()
    if path.is_dir():
        return Source(spec, path)
    if path.exists():
        raise UsageError(f"{spec} is a file; expected a checkpoint folder with a config.json and its weights")
    if FUNCTION.fullmatch(spec):
        raise UsageError(
            f"{spec} is a function, and only checkpoints are fused into files; in Python, commonweight.fuse([model, "
            "model]) fuses modules"
        )
    found = HUB_ID.fullmatch(spec)
    close = nearby(spec)
    if found is None or close or spec.startswith((".", "/", "~")):
        guess = f"; did you mean {close!r}?" if close else "."
        raise UsageError(f"no folder {spec!r}{guess} Give checkpoint folders, or ids 'org/name@revision'")
    return Source(spec, _fetch(spec, found["id"], found["revision"], allow_pickle), found["id"], found["revision"])


def _fetch(spec: str, where: str, revision: str | None, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download

    from commonweight.nn.hub import out_of_reach

    if (reason := out_of_reach(where, revision)) is not None:
        raise UsageError(
            f"{spec!r} is no folder, and as a Hugging Face id {reason}. Give a checkpoint folder, or an id 'org/name' "
            "that is in the cache or can be asked for"
        )
    wanted = [*WANTED, *(["*.bin"] if allow_pickle else [])]
    try:
        return Path(snapshot_download(where, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{spec!r} is no folder, and as a Hugging Face id it could not be fetched: {first_line(error)} Check the "
            "spelling, the revision and the network"
        ) from error
