"""Tiny models and data on disk, and a way to run a command line in this process."""

import json
from types import SimpleNamespace

import pytest
import torch

from commonweight.cli.main import run
from commonweight.data.reviews import reviews
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with models ``one``, ``two`` (same start) and ``three`` (three classes), and ``films``/``food`` data."""
    folder = tmp_path_factory.mktemp("cli")
    model = make_start(0)
    save(model, make_tokenizer(), folder / "one")
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0] *= 3
    save(model, make_tokenizer(), folder / "two")
    model = make_start(0)
    model.classifier = torch.nn.Linear(64, 3)
    model.config.num_labels = 3
    save(model, make_tokenizer(), folder / "three")
    for domain in ("films", "food"):
        rows = reviews(30, domain=domain)
        lines = [json.dumps({"text": r["text"], "label": r["label"]}) for r in rows]
        (folder / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "films.tsv").write_text("label\ttext\n" + "".join(f"{r['label']}\t{r['text']}\n" for r in rows))
    return folder


@pytest.fixture
def cli(capfd):
    """Run a command line; gives ``code``, ``out``, ``err``."""

    def call(*arguments):
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture(scope="session")
def footprints(place, tmp_path_factory):
    """Footprints of the models on the film reviews, measured by the command itself."""
    folder = tmp_path_factory.mktemp("footprints")
    for name in ("one", "two", "three"):
        assert run(["fisher", str(place / name), "--data", str(place / "films.jsonl"), "-o", str(folder / name)]) == 0
    return folder
