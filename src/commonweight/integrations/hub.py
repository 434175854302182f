"""Footprints to and from the Hugging Face Hub, each a repository with a card: safetensors, checked by their hashes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCardData,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from commonweight.base.errors import IntegrityError, UsageError
from commonweight.base.text import DASH, Grid, size_words, to_markdown
from commonweight.base.version import __version__
from commonweight.footprints.files import (
    MAIN_GROUP,
    RECORD,
    ROWS_GROUP,
    SOURCE_ROWS_GROUP,
    WEIGHTS_GROUP,
    read_record,
)
from commonweight.footprints.footprint import FACTS, Footprint
from commonweight.fusion.folders import content_hash
from commonweight.models.identity import first_line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CARD = "README.md"
GROUPS = (MAIN_GROUP, WEIGHTS_GROUP, ROWS_GROUP, SOURCE_ROWS_GROUP, r"fold-\d+")
SHARD = re.compile(rf"({'|'.join(GROUPS)})-\d+\.safetensors")

HOW = """Read it with

```python
from commonweight.integrations import load_footprint

footprint = load_footprint({repo_id!r})
```

It holds, by name of parameter, where the model keeps what it knows of these data: compare it with another one by
`commonweight.overlap`. It is no model, and computes nothing by itself."""


def push_footprint(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Put a saved footprint on the Hub, as one commit: its record, its safetensors and a card.

    The repository is made if there is none. A footprint that is in it is replaced, and the card is written anew; a
    repository of something else, such as a model, is refused. Pushed with the footprint go a sample of the model's
    weights, a digest of each row, and the names of model and data as they were measured, which may be paths of your
    machine.

    Args:
        folder: A folder written by :meth:`commonweight.Footprint.save` or ``commonweight fisher``.
        repo_id: ``organisation/name`` of a model repository.
        private: Whether a repository that is made for it is private; one that is there stays what it is.
        revision: A branch, which must exist; None is ``main``.
        token: An access token; None takes the one that ``hf auth login`` stored.

    Returns:
        The hash of the commit, which ``load_footprint(..., revision=...)`` takes.

    Raises:
        IntegrityError: If the folder is damaged, incomplete or of another format: nothing is sent.
        UsageError: If the Hub refuses or cannot be asked, or the repository holds something else.

    Example:
        >>> from commonweight.integrations import load_footprint, push_footprint
        >>> # commit = push_footprint("fisher", "me/my-model-fisher")
        >>> # footprint = load_footprint("me/my-model-fisher", revision=commit)
    """
    folder = Path(folder)
    footprint = Footprint.load(folder, check_hashes=True)
    record = read_record(folder)
    shards = sorted(record["shards"])
    api = HfApi(library_name="commonweight", library_version=__version__, token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        stale = _stale(api.list_repo_files(repo_id, revision=revision), shards)
        commit = api.create_commit(
            repo_id,
            [
                CommitOperationAdd(CARD, card(footprint, record, repo_id).encode()),
                *(CommitOperationAdd(name, folder / name) for name in (RECORD, *shards)),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=f"Footprint of kind {footprint.kind}",
            revision=revision,
        )
    except Exception as error:  # of whichever library carries the request
        why = first_line(error.__cause__ if type(error) is RuntimeError and error.__cause__ else error)
        raise UsageError(f"{folder} could not be pushed to {repo_id!r}: {why}") from error
    return str(commit.oid)


def load_footprint(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Footprint:
    """Open a footprint that :func:`push_footprint` put on the Hub.

    Its record is read first, so that one of another format is refused before its tensors are fetched. Then the files
    that the record names are fetched, of the same commit and into the cache of the Hub, and the SHA-256 of each is
    compared. Nothing else in the repository is fetched, and no code is run.

    Args:
        repo_id: ``organisation/name``.
        revision: A branch, tag or commit; a commit pins what is read. None is ``main``.
        token: An access token, for private repositories; None takes the one that ``hf auth login`` stored.

    Returns:
        The footprint; tensors are read from the cache when they are asked for.

    Raises:
        UsageError: If the Hub cannot be asked, or there is no such repository, revision or footprint.
        IntegrityError: If the footprint is damaged, or of a format version that this release does not read.

    Example:
        >>> from commonweight.integrations import load_footprint
        >>> # commonweight.overlap({"mine": footprint, "theirs": load_footprint("me/my-model-fisher")})
    """
    try:
        path = hf_hub_download(repo_id, RECORD, revision=revision, token=token)
        place = Path(path).parent
        shards = list(read_record(place)["shards"])
        snapshot_download(repo_id, revision=place.name, allow_patterns=shards, token=token)
    except IntegrityError:
        raise
    except Exception as error:  # of whichever library carries the request
        raise UsageError(f"no footprint could be read from {repo_id!r} on the Hub: {_why(error, revision)}") from error
    return Footprint.load(place, check_hashes=True)


def _stale(there: Collection[str], shards: Collection[str]) -> list[str]:
    """List the shards of the footprint that is replaced; a repository of something else is left alone."""
    strange = sorted(set(there) - {".gitattributes", CARD})
    if strange and RECORD not in strange:
        raise UsageError(f"it holds {strange[0]} and no {RECORD}, so it is of something else; choose a new name")
    return [name for name in strange if SHARD.fullmatch(name) and name not in shards]


def _why(error: Exception, revision: str | None) -> str:
    for kind, words in {
        RepositoryNotFoundError: "there is no such repository, or the token may not read it",
        RevisionNotFoundError: f"it has no revision {revision!r}",
        LocalEntryNotFoundError: "it is not in the cache, and the Hub cannot be asked",
        EntryNotFoundError: f"it holds no {RECORD}",
    }.items():
        if isinstance(error, kind):
            return words
    return first_line(error)


def card(footprint: Footprint, record: Mapping[str, Any], repo_id: str) -> str:
    """Write the card of a footprint: a YAML header for programs, and what it is of for people."""
    model, data = (dict(footprint.metadata.get(part) or {}) for part in ("model", "data"))
    facts = {words: footprint.metadata[key] for key, words in FACTS.items() if footprint.metadata.get(key)}
    versions = footprint.metadata.get("versions") or {}
    rows = {
        "kind": footprint.kind,
        "model": _named(model.get("name") or model.get("class")),
        "data": _named(data.get("path") or data.get("id")),
        "examples": str(footprint.count),
        **{words: str(value) for words, value in facts.items()},
        "folds": str(len(footprint.folds) or 1),
        "parameters": f"{len(footprint)} in {len(footprint.layers)} layers",
        "SHA-256 of the model's weights": content_hash(model).replace(DASH, ""),
        "fingerprint of the data": data.get("sha256") or data.get("fingerprint") or "",
        "measured with": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "format": f"{record['format']} {record['version']}",
    }
    head = ModelCardData(
        library_name="commonweight",
        tags=["commonweight", "footprint", footprint.kind],
        base_model=model["name"].partition("@")[0] if model.get("source") == "hub" else None,
        datasets=[data["id"]] if data.get("source") == "hub" else None,
    )
    files = tuple((name, size_words(shard["bytes"]), shard["sha256"]) for name, shard in record["shards"].items())
    tables = to_markdown([
        Grid("What it is", ("", ""), tuple((words, value) for words, value in rows.items() if value)),
        Grid("Files", ("file", "size", "SHA-256"), files),
    ])
    title = f"# {repo_id.rpartition('/')[2]}"
    return f"---\n{head.to_yaml()}\n---\n\n{title}\n\n{HOW.format(repo_id=repo_id)}\n\n{tables}"


def _named(name: Any) -> str:
    """Name a model or data set; of a path on somebody's machine the last part."""
    text = str(name or "")
    return Path(text).name if text.startswith(("/", "~", ".")) else text
