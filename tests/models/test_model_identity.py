"""What changes numbers changes the identity of a model, and loading twice gives one model."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from commonweight.base import UsageError
from commonweight.models.load import load_model
from commonweight.models.options import LoadOptions
from commonweight.studies.demo.encoder import make_start, make_tokenizer, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity") / "tiny"
    save(make_start(0), make_tokenizer(), folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def identity(folder, **options):
    return {key: value for key, value in load_model(str(folder), LoadOptions(**options)).identity.items()
            if key != "name"}  # fmt: skip


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=3))


def test_config_and_tokenizer_count_and_their_places_do_not(saved, copy):
    assert identity(copy) == identity(saved)
    edit(copy / "config.json", _name_or_path="elsewhere", transformers_version="9.9")
    assert identity(copy) == identity(saved)
    edit(copy / "config.json", hidden_act="relu")
    changed = identity(copy)
    assert changed["config"] != identity(saved)["config"]
    assert changed["weights"] == identity(saved)["weights"]
    edit(copy / "tokenizer_config.json", name_or_path="elsewhere")
    assert identity(copy)["tokenizer"] == identity(saved)["tokenizer"]
    edit(copy / "tokenizer_config.json", model_max_length=7)
    assert identity(copy)["tokenizer"] != identity(saved)["tokenizer"]


def test_another_tokenizer_is_another_model(saved, copy):
    edit(copy / "tokenizer_config.json", model_max_length=7)
    assert identity(saved, tokenizer=str(copy))["tokenizer"] == identity(copy)["tokenizer"]
    assert identity(saved, tokenizer=str(copy)) != identity(saved)


def test_a_missing_head_is_drawn_alike_each_time(copy):
    weights = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    torch.manual_seed(1)
    one = load_model(str(copy), LoadOptions(allow_missing_weights=True))
    state = torch.get_rng_state()
    two = load_model(str(copy), LoadOptions(allow_missing_weights=True))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.model.classifier.weight, two.model.classifier.weight)
    assert float(one.model.classifier.weight.detach().std()) > 0
    assert (one.identity["random_seed"], one.identity) == (0, two.identity)


def test_the_source_of_a_function_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sourced.py"
    text = "import torch\n\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())\n"
    found = []
    for written in (text, text, text.replace("ReLU", "GELU"), text.replace("build", "other")):
        file.write_text(written)
        sys.modules.pop("sourced", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        name = "other" if "other" in written else "build"
        save_file({"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}, tmp_path / "w.safetensors")
        loaded = load_model(f"sourced:{name}", LoadOptions(checkpoint="w.safetensors"))
        found.append({key: value for key, value in loaded.identity.items() if key != "name"})
    sys.modules.pop("sourced", None)
    assert found[0] == found[1]
    assert found[0]["weights"] == found[2]["weights"]
    assert found[0]["code"] != found[2]["code"]
    assert found[3]["function"] == "other"


def test_a_function_that_draws_gives_one_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn.py").write_text("import torch\n\n\ndef build():\n    return torch.nn.Linear(2, 2)\n")
    one, two = load_model("drawn:build"), load_model("drawn:build")
    sys.modules.pop("drawn", None)
    assert torch.equal(one.model.weight, two.model.weight)
    assert one.identity == two.identity


def test_all_of_a_users_own_code_counts_wherever_it_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ownnets" / "blocks").mkdir(parents=True)
    build = (
        "import torch\nimport ownnames\nfrom ownnets import parts\nfrom .blocks.act import Act\n\n\n"
        "def build():\n    import ownlate\n    return torch.nn.Sequential(torch.nn.Linear(2, 2), Act())\n"
    )
    texts = {
        "ownnets/__init__.py": "",
        "ownnets/main.py": build,
        "ownnets/parts.py": "WIDTH = 2\n",
        "ownnets/blocks/act.py": "from torch import nn\n\n\nclass Act(nn.Module):\n    def forward(self, x):\n"
        "        from ownnets import lazy\n        return x\n",
        "ownnets/lazy.py": "A = 1\n",
        "ownnames.py": "B = 1\n",
        "ownlate.py": "C = 1\n",
        "ownnets/unused.py": "D = 1\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    before = load_model("ownnets.main:build").identity
    assert before["code"].keys() == texts.keys() - {"ownnets/unused.py"}
    for name in texts:
        (tmp_path / name).write_text(texts[name] + "# changed\n")
        after = load_model("ownnets.main:build").identity
        assert (after["code"] != before["code"]) == (name != "ownnets/unused.py"), name
        (tmp_path / name).write_text(texts[name])
    assert load_model("ownnets.main:build").identity == before


@pytest.mark.parametrize("held", ["LayerNorm(2, eps={})", "Dropout({})", "Plain({})", "Hidden({})", "Buffered({})"])
@pytest.mark.parametrize("with_file", [True, False])
def test_what_a_function_reads_from_elsewhere_counts(tmp_path, monkeypatch, held, with_file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reading.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn import *\nfrom pathlib import Path\n\n\n"
        "class Plain(nn.Module):\n    def __init__(self, x):\n        super().__init__()\n"
        "        self.factor = [x, 'a']\n"
        "class Hidden(nn.Module):\n    def __init__(self, x):\n        super().__init__()\n"
        "        self.factor = torch.tensor(x)\n"
        "class Buffered(nn.Module):\n    def __init__(self, x):\n        super().__init__()\n"
        "        self.register_buffer('factor', torch.tensor(x), persistent=False)\n"
        f"def build():\n    x = float(Path('x.txt').read_text())\n    return nn.Sequential({held.format('x')})\n"
    )
    found = []
    for number in ("0.25", "0.25", "0.5"):
        (tmp_path / "x.txt").write_text(number)
        state = {"0.weight": torch.ones(2), "0.bias": torch.ones(2)} if "LayerNorm" in held else {"none": torch.ones(0)}
        save_file(state if "none" not in state else {}, tmp_path / "w.safetensors")
        options = LoadOptions(checkpoint="w.safetensors") if with_file else LoadOptions()
        found.append(load_model("reading:build", options).identity)
    sys.modules.pop("reading", None)
    assert found[0] == found[1] != found[2]


def other_weights(start, seed):
    weights = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    torch.manual_seed(seed)
    return {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in weights.items()
    }


def test_the_weights_that_are_hashed_are_those_that_are_read(saved, copy):
    from safetensors.torch import save

    first, second = (save(other_weights(make_start(0), seed), {"format": "pt"}) for seed in (1, 2))
    (copy / "model.safetensors").write_bytes(first)
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(make_start(0).state_dict(), "model-00001-of-00001.safetensors"),
    }
    (copy / "model-00001-of-00001.safetensors").write_bytes(second)
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / "adapter_model.safetensors").write_bytes(second)
    for config, read in ({}, "model.safetensors"), ({"transformers_weights": "other.safetensors"}, "other.safetensors"):
        (copy / "other.safetensors").write_bytes(second)
        edit(copy / "config.json", **config)
        loaded = load_model(str(copy))
        assert [*loaded.identity["weights"]] == [read]
        for name, tensor in load_file(copy / read).items():
            assert torch.equal(loaded.model.state_dict()[name], tensor)
    (copy / "other.safetensors").unlink()
    with pytest.raises(UsageError, match=r"expected other\.safetensors there"):
        load_model(str(copy))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "sub/model.safetensors"])
@pytest.mark.parametrize("kind", ["index", "config"])
def test_weights_outside_the_folder_are_not_read(copy, name, kind):
    shutil.copy(copy / "model.safetensors", copy.parent / "model.safetensors")
    (copy / "sub").mkdir()
    (copy / "model.safetensors").rename(copy / "sub" / "model.safetensors")
    if kind == "index":
        (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    else:
        edit(copy / "config.json", transformers_weights=name)
    with pytest.raises(UsageError, match=r"expected a file of that folder; nothing is read"):
        load_model(str(copy))


@pytest.fixture
def adapter(saved, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        load_model(str(saved)).model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    )
    model.save_pretrained(tmp_path / "adapter")
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(saved))
    return tmp_path / "adapter"


pefts_own = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pefts_own
@pytest.mark.parametrize(
    "beside",
    ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "optimizer.pt", "training_args.bin"],
)
def test_of_an_adapters_folder_only_the_adapter_counts(saved, adapter, beside):
    if beside.endswith("json"):
        (adapter / beside).write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    else:
        shutil.copy(saved / "model.safetensors", adapter / beside)
    before = identity(adapter)
    assert [*before["weights"]] == ["adapter_model.safetensors"]
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    assert identity(adapter)["weights"] != before["weights"]


@pefts_own
@pytest.mark.parametrize("beside", [None, "model.safetensors", "adapter_model.safetensors.old", "other.safetensors"])
def test_a_pickled_adapter_is_read_only_if_it_is_allowed(saved, adapter, beside):
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    if beside:
        shutil.copy(saved / "model.safetensors", adapter / beside)
    with pytest.raises(UsageError, match=r"only as pickle \(adapter_model\.bin\).*allow_pickle=True"):
        load_model(str(adapter))
    loaded = load_model(str(adapter), LoadOptions(allow_pickle=True))
    assert [*loaded.identity["weights"]] == ["adapter_model.bin"]


@pefts_own
def test_base_and_tokenizer_of_an_adapter_count(saved, copy, adapter):
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(copy))
    before = identity(adapter)
    edit(copy / "config.json", hidden_act="relu")
    assert identity(adapter)["base"]["config"] != before["base"]["config"]
    edit(copy / "tokenizer_config.json", model_max_length=7)
    assert identity(adapter)["tokenizer"] != before["tokenizer"]
    edit(adapter / "adapter_config.json", lora_alpha=99)
    assert identity(adapter)["config"] != before["config"]
    shutil.copy(adapter / "adapter_config.json", copy)
    shutil.copy(adapter / "adapter_model.safetensors", copy)
    with pytest.raises(UsageError, match=r"holds an adapter beside, or in place of, the weights of a model"):
        load_model(str(adapter))


def test_an_adapter_that_adds_tokens_is_refused(saved, tmp_path):
    peft = pytest.importorskip("peft")
    peft.PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, base_model_name_or_path=str(saved), prompt_tuning_init="TEXT",
        prompt_tuning_init_text="a", tokenizer_name_or_path="/not/asked/for",
    ).save_pretrained(tmp_path)  # fmt: skip
    save_file({"prompt_embeddings": torch.ones(2, 64)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UsageError, match=r"of the type PROMPT_TUNING.*such as LoRA"):
        load_model(str(tmp_path))


def test_code_of_a_checkpoint_counts_if_it_was_run(copy, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "modules" / "transformers_modules").mkdir(parents=True)
    (tmp_path / "modules" / "transformers_modules" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    plain = identity(copy)
    (copy / "unused.py").write_text("a = 1\n")
    assert identity(copy, trust_remote_code=True) == plain
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "helping.py").write_text("X = 1\n")
    (elsewhere / "own.py").write_text(
        "from transformers import BertConfig, BertForSequenceClassification\nfrom .helping import X\n"
        "class OwnForSequenceClassification(BertForSequenceClassification):\n    config_class = BertConfig\n"
    )
    own = {"AutoModelForSequenceClassification": f"{elsewhere}--own.OwnForSequenceClassification"}
    edit(copy / "config.json", architectures=["OwnForSequenceClassification"], auto_map=own)
    before = identity(copy, trust_remote_code=True)
    assert before["code"].keys() == {"own.py", "helping.py"}
    (elsewhere / "helping.py").write_text("X = 2\n")
    assert identity(copy, trust_remote_code=True)["code"] != before["code"]


def test_files_that_only_the_class_of_a_tokenizer_reads_count(saved, tmp_path):
    class Own:
        vocab_files_names = {"vocab_file": "words.dict"}  # noqa: RUF012

    from commonweight.models.tokenizer import tokenizer_hashes

    (tmp_path / "words.dict").write_text("a b")
    before = tokenizer_hashes(str(tmp_path), None, Own())
    (tmp_path / "words.dict").write_text("b a")
    assert before.keys() == {"words.dict"}
    assert tokenizer_hashes(str(tmp_path), None, Own()) != before
