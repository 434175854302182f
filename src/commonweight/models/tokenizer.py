"""The tokenizer of a checkpoint: found, loaded without code, and hashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commonweight.base.errors import UsageError
from commonweight.models.identity import code_hashes, first_line, hash_files, hash_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)
BESIDE = ("merges.txt", "bpe.codes", "special_tokens_map.json", "added_tokens.json")
"""Files that say more about a tokenizer, and make none alone."""

VOLATILE = ("name_or_path", "_name_or_path", "_commit_hash", "transformers_version")


def load_tokenizer(where: str, revision: str | None, *, trust: bool) -> Any:
    """Load a tokenizer."""
    from transformers import AutoTokenizer

    remedy = "save it beside the model with tokenizer.save_pretrained, or name one with {tokenizer}"
    # Without its files a tokenizer of the right class is made up, with an empty vocabulary.
    if Path(where).is_dir() and not any((Path(where) / name).is_file() for name in TOKENIZER_FILES):
        raise UsageError(f"no tokenizer in {where}; {remedy}", tokenizer=None)
    try:
        return AutoTokenizer.from_pretrained(where, revision=revision or "main", trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if "trust_remote_code" in str(error):
            remedy = f"its code was not run: read it, and pass {{trust_remote_code}} if you trust it, or {remedy}"
        raise UsageError(
            f"no usable tokenizer in {where}: {first_line(error)} {remedy[0].upper()}{remedy[1:]}",
            tokenizer=None,
            trust_remote_code=True,
        ) from error


def tokenizer_hashes(where: str, revision: str | None = None, loaded: Any = None) -> dict[str, str]:
    """Hash the files of a tokenizer."""
    found = {} if loaded is None else code_hashes(loaded)
    for name in dict.fromkeys((*TOKENIZER_FILES, *BESIDE, *getattr(loaded, "vocab_files_names", {}).values())):
        if Path(where).is_dir():
            file = Path(where) / name
        else:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(where, name, revision=revision or "main")
            file = Path(cached) if isinstance(cached, str) else Path(where) / name
        if file.is_file():
            is_config = name == "tokenizer_config.json"
            found[name] = hash_json(file, without=VOLATILE) if is_config else hash_files([file])[file.name]
    return found
