"""Hugging Face checkpoints: loaded as what they are, refused where reading would run code or invent weights."""

import ast
import json
import pickle
import re
import shutil
import time
from pathlib import Path

import pytest
import torch

from commonweight.base import UsageError
from commonweight.base.errors import CommonweightError, IntegrityError
from commonweight.models.checkpoint import task_of
from commonweight.models.identity import hash_files
from commonweight.models.load import load_model, short_name
from commonweight.models.options import LoadOptions
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(make_start(0), make_tokenizer(), folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit_config(folder: Path, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_a_folder_gives_model_tokenizer_task_and_identity(saved):
    loaded = load_model(str(saved))
    start = make_start(0)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), start.parameters(), strict=True))
    assert (loaded.task, loaded.model.training, loaded.notes) == ("classification", False, ())
    assert loaded.tokenizer("the film is good")["input_ids"] == make_tokenizer()("the film is good")["input_ids"]
    identity = loaded.identity
    assert (identity["class"], identity["source"], identity["dtype"]) == (
        "BertForSequenceClassification",
        "folder",
        "float32",
    )
    assert identity["parameters"] == sum(p.numel() for p in start.parameters())
    assert [*identity["weights"]] == ["model.safetensors"]
    assert json.loads(json.dumps(identity)) == identity
    assert load_model(str(saved)).identity == identity


def test_precision_is_float32_unless_asked(copy):
    save(make_start(0).to(torch.bfloat16), make_tokenizer(), copy)
    assert load_model(str(copy)).identity["dtype"] == "float32"
    assert load_model(str(copy), LoadOptions(dtype="auto")).identity["dtype"] == "bfloat16"
    assert load_model(str(copy), LoadOptions(dtype="float64")).identity["dtype"] == "float64"


def test_tasks():
    from transformers import BertConfig

    classifier = "BertForSequenceClassification"
    assert task_of(classifier, BertConfig(num_labels=3)) == "classification"
    assert task_of(classifier, BertConfig(num_labels=1)) == "regression"
    assert task_of(classifier, BertConfig(problem_type="multi_label_classification")) == "multilabel"
    assert task_of("LlamaForCausalLM", None) == task_of("GPT2LMHeadModel", None) == "causal_lm"
    with pytest.raises(UsageError, match=r"got BertForMaskedLM.*commonweight\.fisher"):
        task_of("BertForMaskedLM", None)


class Trap:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_pickle_is_refused_and_never_read(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    trace = tmp_path / "trace"
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trace), protocol=2))
    with pytest.raises(UsageError, match=r"only as pickle \(pytorch_model.bin\).*allow_pickle=True"):
        load_model(str(copy))
    assert not trace.exists()
    with pytest.raises(UsageError, match=r"damaged or no plain weights|could not be loaded|do not fit"):
        load_model(str(copy), LoadOptions(allow_pickle=True))
    assert not trace.exists()  # even then only plain tensors are read
    pickle.loads((copy / "pytorch_model.bin").read_bytes())
    assert trace.exists()  # the trap works


def test_an_honest_pickle_is_read_when_asked(copy):
    (copy / "model.safetensors").unlink()
    torch.save(make_start(0).state_dict(), copy / "pytorch_model.bin")
    loaded = load_model(str(copy), LoadOptions(allow_pickle=True))
    assert torch.equal(loaded.model.classifier.weight, make_start(0).classifier.weight)
    assert [*loaded.identity["weights"]] == ["pytorch_model.bin"]


def test_code_that_comes_with_a_checkpoint_is_not_run(copy, tmp_path):
    trace = tmp_path / "trace"
    (copy / "own.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
        "from transformers import BertConfig as OwnConfig, BertForSequenceClassification as "
        "OwnForSequenceClassification\n"
    )
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnForSequenceClassification"}
    edit_config(copy, architectures=["OwnForSequenceClassification"], model_type="own", auto_map=own)
    with pytest.raises(UsageError, match=r"code of its own .*not run.*trust_remote_code=True"):
        load_model(str(copy))
    assert not trace.exists()


def test_trusted_code_is_run(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (copy / "own.py").write_text(
        "from transformers import BertConfig, BertForSequenceClassification\n"
        "class OwnForSequenceClassification(BertForSequenceClassification):\n    config_class = BertConfig\n"
    )
    own = {"AutoModelForSequenceClassification": "own.OwnForSequenceClassification"}
    edit_config(copy, architectures=["OwnForSequenceClassification"], auto_map=own)
    with pytest.raises(UsageError, match="trust_remote_code=True"):
        load_model(str(copy))
    loaded = load_model(str(copy), LoadOptions(trust_remote_code=True))
    assert loaded.identity["class"] == "OwnForSequenceClassification"


SOURCE = Path(__file__).parents[2] / "src" / "commonweight"
LOADING = {"from_pretrained", "from_config"}


def without_trust(source):
    """Calls that load from transformers and do not say whether code may be run, and those that always trust."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in LOADING:
            continue
        if ast.unparse(node.func).startswith("peft."):  # takes no such argument, and runs no code of an adapter's
            continue
        said = {keyword.arg: keyword.value for keyword in node.keywords}.get("trust_remote_code")
        never = isinstance(said, ast.Constant) and said.value is False
        if not never and not isinstance(said, ast.Name | ast.Attribute):
            yield ast.unparse(node)


def test_every_loading_call_says_whether_code_may_be_run():
    sources = {path: path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    assert [call for source in sources.values() for call in without_trust(source)] == []
    found = [word for source in sources.values() for word in re.findall(r"\.from_(?:pretrained|config)\(", source)]
    assert len(found) >= 14
    planted = (
        "AutoModel.from_pretrained(a)\nAutoTokenizer.from_pretrained(a, trust_remote_code=True)\nA.from_config(**b)"
    )
    assert len(list(without_trust(planted))) == 3
    assert not list(without_trust("A.from_pretrained(a, trust_remote_code=trust)"))


def test_weights_that_would_be_random_are_refused(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    head = {name for name in weights if name.startswith("classifier")}
    save_file({k: v for k, v in weights.items() if k not in head}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks weights.*classifier\.bias, classifier\.weight.*allow_missing"):
        load_model(str(copy))
    loaded = load_model(str(copy), LoadOptions(allow_missing_weights=True))
    assert loaded.identity["random_weights"] == sorted(head)
    assert "drawn at random" in loaded.notes[0]


def test_weights_without_a_place_are_noted(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors") | {"extra.weight": torch.zeros(2)}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert "extra.weight" in load_model(str(copy)).notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": None}, "names no class under 'architectures'"),
        ({"architectures": ["UnheardOfForSequenceClassification"]}, "which transformers .* does not have"),
        ({"architectures": ["BertForMaskedLM"]}, "got BertForMaskedLM"),
        ({"hidden_size": 32}, "do not fit BertForSequenceClassification|could not be loaded"),
    ],
)
def test_a_configuration_that_does_not_serve(copy, changes, message):
    edit_config(copy, **changes)
    with pytest.raises(UsageError, match=message):
        load_model(str(copy))


def test_damaged_and_incomplete_checkpoints(copy):
    (copy / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(IntegrityError, match="damaged or no plain weights"):
        load_model(str(copy))
    (copy / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="has no weights"):
        load_model(str(copy))
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="incomplete: its index lists model-00001-of-00002"):
        load_model(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"config\.json is not JSON .*: it was damaged; copy the checkpoint again"):
        load_model(str(copy))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ([], IntegrityError, "is no mapping, or an empty one"),
        ({"auto_map": ["own.Own"]}, IntegrityError, "as auto_map, expected a mapping"),
        ({"architectures": {"a": 1}}, IntegrityError, "as architectures, expected a list of names"),
        ({"architectures": ["logging"]}, UsageError, "is a logging, which transformers"),
        ({"quantization_config": ["int4"]}, IntegrityError, "as quantization_config, expected a mapping"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            UsageError,
            "quantised weights have no gradient",
        ),
        ({"id2label": ["a", "b"]}, IntegrityError, "as id2label, expected a mapping"),
        ({"num_hidden_layers": 10**6}, UsageError, "asks for num_hidden_layers 1000000, expected at most 1000"),
        ({"hidden_size": 10**9}, UsageError, "asks for hidden_size 1000000000, expected at most 16777216"),
        ({"hidden_size": "wide"}, UsageError, "cannot be used|do not fit"),
        ({"num_attention_heads": 0}, UsageError, "cannot be used|do not fit"),
        ({"hidden_size": 10**6}, UsageError, "cannot be used|do not fit"),
        ({"model_type": {}}, UsageError, r"config\.json of .* cannot be used"),
    ],
    ids=str,
)
def test_configurations_of_strangers(copy, changes, error, said):
    if isinstance(changes, list):
        (copy / "config.json").write_text(json.dumps(changes))
    else:
        edit_config(copy, **changes)
    start = time.monotonic()
    with pytest.raises(error, match=said):
        load_model(str(copy))
    assert time.monotonic() - start < 20


def test_a_configuration_of_absurd_size(copy):
    (copy / "config.json").write_text('{"a": "' + "x" * 2**26 + '"}')
    with pytest.raises(
        IntegrityError, match="expected at most 67108864: it is no such file; copy the checkpoint again"
    ):
        load_model(str(copy))


def test_a_tokenizer_can_come_from_elsewhere(copy, saved):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"no tokenizer in.*tokenizer"):
        load_model(str(copy))
    assert load_model(str(copy), LoadOptions(tokenizer=str(saved))).tokenizer("the")["input_ids"]


def test_what_is_no_model(tmp_path, saved):
    (tmp_path / "empty").mkdir()
    for spec, message in (
        (str(tmp_path / "empty"), "folder but not a model"),
        (str(tmp_path / "absent"), "no folder"),
        (str(saved / "config.json"), "is a file; expected a checkpoint folder"),
        ("two words", "no folder, no id"),
        ("org/surely-absent", "no local model folder, and as a Hugging Face id"),
    ):
        with pytest.raises(UsageError, match=message):
            load_model(spec)
    with pytest.raises(UsageError, match="checkpoint goes with module:function"):
        load_model(str(saved), LoadOptions(checkpoint="x.safetensors"))
    assert short_name(str(saved)) == "tiny"


@pytest.mark.filterwarnings(
    # peft reads an attribute that transformers renamed; neither is ours.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
def test_an_adapter_is_loaded_on_its_base(saved, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    base = load_model(str(saved))
    adapted = peft.get_peft_model(base.model, config)
    torch.nn.init.normal_(adapted.base_model.model.bert.encoder.layer[0].attention.self.query.lora_B.default.weight)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = load_model(str(tmp_path / "adapter"))
    measured = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    assert loaded.task == "classification"
    assert measured
    assert all("lora" in name or "classifier" in name for name in measured)
    tokens = base.tokenizer("the film is good", return_tensors="pt")
    tokens.pop("token_type_ids", None)
    assert torch.allclose(loaded.model(**tokens).logits, adapted.eval()(**tokens).logits, atol=1e-6)
    assert [*loaded.identity["weights"]] == ["adapter_model.safetensors"]
    assert [*loaded.identity["base"]["weights"]] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "NOVEL"}, "cannot be used"),
        ({"peft_type": ["LORA"]}, "cannot be used"),
        ({"r": "many"}, "adapter"),
        ({"target_modules": 3}, "adapter"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_of_strangers(saved, tmp_path, changes, said):
    peft = pytest.importorskip("peft")
    model = load_model(str(saved)).model
    adapter = tmp_path / "adapter"
    peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])).save_pretrained(adapter)
    path = adapter / "adapter_config.json"
    whole = json.loads(path.read_text()) | {"base_model_name_or_path": str(saved)}
    path.write_text(json.dumps(whole))
    load_model(str(adapter))
    path.write_text(json.dumps(whole | changes))
    with pytest.raises(CommonweightError, match=said):
        load_model(str(adapter))
    path.write_text(json.dumps(whole))
    (adapter / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors cannot be read .*: copy the adapter again"):
        load_model(str(adapter))


def test_a_file_that_vanishes_is_said(tmp_path):
    with pytest.raises(IntegrityError, match=r"gone\.safetensors cannot be read .*: copy its folder again, whole"):
        hash_files([tmp_path / "gone.safetensors"])
