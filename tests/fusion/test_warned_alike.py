"""What a fusion warns of is what a comparison warns of, in the same words."""

import copy
import json
import re

import pytest
import torch
from fusion.conftest import moved
from safetensors.torch import load_file, save_file
from torch import nn

import commonweight
from commonweight import fisher, fuse, fuse_checkpoints, overlap
from commonweight.fusion.compatible import beware_of_nameless
from commonweight.models.checkpoint import quiet_transformers
from commonweight.studies.compare.compare import compare
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save

UNNAMED = {"architectures": ["XForSequenceClassification"]}


class Net(nn.Module):
    """A table, a convolution and a head."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.classifier = nn.Linear(16, 2)

    def forward(self, words):
        return self.classifier(self.conv(self.table(words).transpose(1, 2)).tanh().mean(2))


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def rows(count=200, seed=0):
    words = torch.randint(0, 9, (count, 6), generator=torch.Generator().manual_seed(seed))
    return words, words[:, 0] % 2


def drawn_anew(model, names):
    with torch.no_grad():
        for seed, name in enumerate(names):
            weight = model.get_parameter(name)
            generator = torch.Generator().manual_seed(100 + seed)
            weight.copy_(torch.randn(weight.shape, generator=generator) * weight.std())
    return model


def both(models):
    """What a fusion says, and the sentence of the comparison."""
    heard, names = [], [f"model {number}" for number in range(1, len(models) + 1)]
    fuse(models, note=heard.append)
    compared = overlap({name: fisher(model, [rows()]) for name, model in zip(names, models, strict=True)})
    return heard, compared.alignment.sentence()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["classifier.weight"], r"but not so classifier \(\d\.\d\d\)\."),
        (["table.weight"], r"but not so table \("),
        (["classifier.weight", "table.weight"], r"but not so table \(.*\), classifier \("),
    ],
)
@pytest.mark.parametrize("models", [2, 3])
def test_layers_drawn_anew(names, said, models):
    start = net()
    with torch.no_grad():
        start.conv.weight.mul_(10)  # most of the weights, so that the whole has a shared initialisation
    fused = [moved(start, seed) for seed in range(models)]
    drawn_anew(fused[-1], names)
    heard, sentence = both(fused)
    assert heard == [sentence]
    assert re.search(said, sentence)


@pytest.mark.parametrize("change", [lambda m: m.classifier.bias.add_(9.0), lambda m: m.conv.weight.mul_(1.05)])
def test_nothing_is_said_of_what_training_moved(change):
    models = [moved(net(), seed) for seed in (1, 2)]
    with torch.no_grad():
        change(models[1])
    heard, sentence = both(models)
    assert heard == []
    assert sentence.startswith("The models come from a shared initialisation")
    assert "but not so" not in sentence


def test_a_head_drawn_anew_in_a_folder(tiny, tmp_path, heard):
    save(moved(make_start(0), 5, 0.005), make_tokenizer(), tmp_path / "other")
    file = tmp_path / "other" / "model.safetensors"
    tensors = load_file(file)
    tensors["classifier.weight"] = torch.randn(2, 64, generator=torch.Generator().manual_seed(3)) * 0.02
    save_file(tensors, file, metadata={"format": "pt"})
    out = fuse_checkpoints([tiny / "a", tmp_path / "other"], output=tmp_path / "out", note=heard.append)
    assert len(heard) == 1
    assert "but not so classifier (" in heard[0]
    assert json.loads((out / "fusion.json").read_text())["shared_initialisation"]["sentence"] == heard[0]


def test_few_effective_sample_size():
    models = [moved(net(), seed) for seed in (1, 2)]
    many, few = fisher(models[0], [rows()]), fisher(models[1], [rows(5)])
    assert many.effective_sample_size > 20 > few.effective_sample_size
    heard = []
    fuse(models, method="fisher", footprints=[many, few], note=heard.append)
    assert heard == ["Effective sample size below 20: footprint 2. Such Fishers decide nothing."]
    assert heard[0] in overlap({"footprint 1": many, "footprint 2": few}).to_markdown()
    with pytest.warns(UserWarning, match="Effective sample size below 20: footprint 1, footprint 2"):
        fuse(models, method="fisher", footprints=[fisher(model, [rows(5)]) for model in models])
    bare = [commonweight.Footprint("fisher", dict(f.items()), 1) for f in (many, few)]  # nobody measured it
    fuse(models, method="fisher", footprints=bare)


def test_a_model_of_inverted_labels():
    start, models = net(), []
    for seed in (0, 1):
        model = copy.deepcopy(start)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(60):
            words, labels = rows(64, step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(words), labels if seed == 0 else 1 - labels).backward()
            optimizer.step()
        models.append(model)
    heard = []
    footprints = [fisher(model, [rows(seed=99)]) for model in models]
    fuse(models, method="fisher", footprints=footprints, note=heard.append)
    (said,) = [sentence for sentence in heard if "inverted" in sentence]
    assert said.startswith("The model of footprint 2 gives the label of ")


def classifier_folder(folder, labels=None, **options):
    with quiet_transformers():
        model = make_start(0)
        names = labels or ["LABEL_0", "LABEL_1"]
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}
        for key, value in options.items():
            setattr(model.config, key, value)
        save(moved(model, 1, 0.001 if "a" in folder.name else 0.002), make_tokenizer(), folder)
    return folder


def test_labels_without_names(tmp_path):
    folders = [classifier_folder(tmp_path / name) for name in ("a", "b")]
    heard = []
    fuse_checkpoints(folders, output=tmp_path / "out", note=heard.append)
    assert heard == beware_of_nameless({str(folder): UNNAMED for folder in folders})
    assert heard[0].startswith(f"The labels of '{folders[0]}' and '{folders[1]}' have no names (LABEL_0, LABEL_1)")
    (tmp_path / "rows.jsonl").write_text('{"text": "the film is good", "label": 1}\n' * 8)
    compared = []
    compare([str(folder) for folder in folders], [str(tmp_path / "rows.jsonl")], tmp_path / "run", note=compared.append)
    assert beware_of_nameless({"a": UNNAMED, "b": UNNAMED})[0] in compared
    models = [moved(make_start(0), seed, 0.001) for seed in (1, 2)]
    for model in models:
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    in_memory = []
    fuse(models, note=in_memory.append)
    assert in_memory == beware_of_nameless({"model 1": UNNAMED, "model 2": UNNAMED})


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["XForSequenceClassification"], "id2label": {0: "bad", 1: "good"}},
        {"architectures": ["XForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
        {"architectures": ["XForSequenceClassification"], "problem_type": "regression"},
        {"architectures": ["XForCausalLM"], "id2label": {0: "LABEL_0", 1: "LABEL_1"}},
        {"architectures": None},
        {},
    ],
)
def test_models_whose_labels_have_names_or_that_have_none(config):
    assert beware_of_nameless({"a": config, "b": config}) == []


@pytest.mark.parametrize("kind", ["Sequence", "Token", "Image", "Audio"])
def test_every_kind_of_classifier(kind):
    config = {"architectures": [f"XFor{kind}Classification"], "id2label": {str(k): f"LABEL_{k}" for k in range(6)}}
    (said,) = beware_of_nameless({"a": config, "b": config})
    assert "have no names (LABEL_0, LABEL_1, LABEL_2, LABEL_3, … (6 in all))" in said
    assert beware_of_nameless({"a": config}) == []
