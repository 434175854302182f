"""The preflight on tokenizers: row k of the embeddings must be one token in every model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from commonweight.decision.differences import by_value, differ, first_of, quoted, some
from commonweight.errors import IntegrityError, NotComparableError
from commonweight.nn.identity import hash_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BINARY = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""SentencePiece models: compared as files where there is no ``tokenizer.json``."""


def check_vocabularies(folders: Mapping[str, Path]) -> list[str]:
    """Check that the tokenizers of several checkpoints number the same tokens in the same way.

    Args:
        folders: Checkpoint folders by name of the model.

    Returns:
        Sentences worth hearing: models whose vocabulary could not be compared to the others'.

    Raises:
        NotComparableError: If two vocabularies differ; the first tokens are named.
        IntegrityError: If a tokenizer's file cannot be read.
    """
    found = {name: vocabulary(folder) for name, folder in folders.items()}
    known = {name: tokens for name, tokens in found.items() if tokens is not None}
    if known:
        first, expected = next(iter(known.items()))
        for name, tokens in known.items():
            if tokens != expected:
                raise NotComparableError(
                    f"the vocabularies of {first!r} and {name!r} differ, "
                    f"{first_of(_differences({first: expected, name: tokens}))}. Row k of the embeddings must be one "
                    "token in all models: fuse models made with one tokenizer, to which the same tokens were added in "
                    "the same order"
                )
    unknown = {name: folders[name] for name in folders if name not in known}
    binaries = {name: _binary(folder) for name, folder in unknown.items()}
    if not known and len(unknown) > 1 and all(binaries.values()):
        if differ(binaries):
            raise NotComparableError(
                f"the tokenizers of {quoted(binaries)} are different files; expected one and the same: fuse models "
                "made with one tokenizer"
            )
        return []
    if known and unknown:
        return [f"vocabularies could not be compared for {some(list(map(repr, unknown)))}: no readable tokenizer there"]
    return []


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Read the vocabulary of a tokenizer, added tokens included, without any library of tokenizers.

    Args:
        folder: A checkpoint folder.

    Returns:
        Token to number; None if no file says so in plain text.

    Raises:
        IntegrityError: If a file is damaged.
    """
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


def _differences(vocabularies: Mapping[str, Mapping[str, int]]) -> list[str]:
    found = []
    for token in dict.fromkeys(token for tokens in vocabularies.values() for token in tokens):
        numbers = {name: tokens.get(token) for name, tokens in vocabularies.items()}
        if differ(numbers):
            found.append(f"{token!r} is {by_value(numbers, absent='not there')}")
    return found


def _binary(folder: Path) -> dict[str, str]:
    return hash_files(folder / name for name in BINARY if (folder / name).is_file())


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
