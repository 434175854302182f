"""Footprints to and from a Hub on the loopback, with the real huggingface_hub, reached through HF_ENDPOINT."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from integrations.loopback_hub import serving

import commonweight
from commonweight import Footprint
from commonweight.base import IntegrityError, UsageError
from commonweight.base.records import SEAL, sealed
from commonweight.footprints.footprint import Fold
from commonweight.integrations import load_footprint, push_footprint

REPO = "people/fisher-of-bert"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own upload


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub, a token for it, and an empty cache."""
    with serving() as found:
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "ENDPOINT": found.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": found.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", found.token)
        yield found


def a_footprint(rows=8):
    tensors = {"body.weight": torch.rand(3, 4), "head.bias": torch.rand(2)}
    metadata = {
        "fisher_type": "exact",
        "loss": "classification",
        "model": {"source": "hub", "name": "org/bert@v1", "weights": {"model.safetensors": "ab"}},
        "data": {"source": "file", "path": "/home/somebody/films.csv", "sha256": "cd"},
        "versions": {"torch": "2.13.0"},
    }
    folds = tuple(Fold(rows // 2, {name: values + k + 1 for name, values in tensors.items()}) for k in range(2))
    return Footprint("fisher", tensors, rows, metadata, folds=folds, weight_sample={"body.weight": torch.rand(12)})


@pytest.fixture
def folder(tmp_path):
    return a_footprint().save(tmp_path / "fisher")


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_there_and_back(hub, folder):
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    commit = push_footprint(folder, REPO)
    assert hub.private[REPO] is True
    pushed = set(hub.at(REPO, "main")[1])
    shards = {path.name for path in folder.glob("*.safetensors")}
    assert pushed == {".gitattributes", "README.md", "footprint.json", *shards}
    before, after = Footprint.load(folder), load_footprint(REPO, revision=commit)
    assert same(before, after)
    assert after.record() == before.record()
    for a, b in zip(before.folds, after.folds, strict=True):
        assert same(a.tensors, b.tensors)
    assert commonweight.fisher_overlap(before, after) == 1
    assert set(hub.fetched) == {"footprint.json", *shards}
    hub.fetched.clear()
    load_footprint(REPO, revision=commit)
    assert hub.fetched == []  # from the cache


def test_the_card_says_what_it_is(hub, folder):
    push_footprint(folder, REPO)
    text = hub.at(REPO, "main")[1]["README.md"].decode()
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "library_name": "commonweight",
        "tags": ["commonweight", "footprint", "fisher"],
        "base_model": "org/bert",
    }
    record = json.loads((folder / "footprint.json").read_text(encoding="utf-8"))
    for shard in record["shards"].values():
        assert shard["sha256"] in text
    said = ("exact", "classification", "| data | films.csv |", "| examples | 8 |", "torch 2.13.0", "org/bert@v1")
    for words in (*said, "| fingerprint of the data | cd |", "| SHA-256 of the model's weights | ab |"):
        assert words in text
    assert "somebody" not in text
    assert f"load_footprint('{REPO}')" in text


def test_a_second_push_replaces_the_first_and_the_first_can_be_had_by_its_commit(hub, folder, tmp_path):
    first = push_footprint(folder, REPO)
    whole = Footprint("fisher", {"w": torch.rand(3)}, 3)
    second = push_footprint(whole.save(tmp_path / "other"), REPO)
    assert first != second
    assert [name for name in hub.at(REPO, "main")[1] if name.endswith(".safetensors")] == [
        "footprint-00000.safetensors"
    ]
    assert load_footprint(REPO).names == ("w",)
    assert load_footprint(REPO, revision=first).names == ("body.weight", "head.bias")


def test_only_its_own_shards_are_replaced_and_a_repository_of_a_model_is_left_alone(hub, folder, tmp_path):
    push_footprint(folder, REPO)
    hub.changed(REPO, "adapter.safetensors", b"of somebody else")
    push_footprint(Footprint("fisher", {"w": torch.rand(3)}, 3).save(tmp_path / "other"), REPO)
    assert sorted(hub.at(REPO, "main")[1]) == [
        ".gitattributes",
        "README.md",
        "adapter.safetensors",
        "footprint-00000.safetensors",
        "footprint.json",
    ]
    model = {"README.md": b"mine", "config.json": b"{}", "weights-00000.safetensors": b"weights"}
    hub.commits["people/model"] = []
    hub.commit("people/model", model)
    with pytest.raises(UsageError, match=r"it holds config\.json and no footprint\.json, so it is of something else"):
        push_footprint(folder, "people/model")
    assert hub.at("people/model", "main")[1] == model


def test_masks_go_there_and_back(hub, tmp_path):
    mask = Footprint("supermask", {"fc.weight": torch.tensor([[1, 0, 1], [0, 0, 1]])}, 4)
    push_footprint(mask.save(tmp_path / "mask"), REPO, private=False)
    assert hub.private[REPO] is False
    assert torch.equal(load_footprint(REPO)["fc.weight"].long(), mask["fc.weight"])


def changed_record(hub, **values):
    record = json.loads(hub.at(REPO, "main")[1]["footprint.json"])
    del record[SEAL]
    return hub.changed(REPO, "footprint.json", json.dumps(sealed(record | values)).encode())


def test_another_format_version_is_refused_before_tensors_are_fetched(hub, folder):
    push_footprint(folder, REPO)
    changed_record(hub, version=99)
    hub.fetched.clear()
    with pytest.raises(IntegrityError, match="has format version 99, this release reads version 5") as caught:
        load_footprint(REPO)
    assert "\n" not in str(caught.value)
    assert hub.fetched == ["footprint.json"]


def test_damage_is_refused(hub, folder):
    push_footprint(folder, REPO)
    name = "footprint-00000.safetensors"
    content = hub.at(REPO, "main")[1][name]
    hub.changed(REPO, name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=f"the SHA-256 of shard {name} is not the recorded one"):
        load_footprint(REPO)
    hub.changed(REPO, name, content[:-1])
    with pytest.raises(IntegrityError, match=f"shard {name} has {len(content) - 1} bytes, expected {len(content)}"):
        load_footprint(REPO)
    files = dict(hub.at(REPO, "main")[1])
    del files[name]
    hub.commit(REPO, files)
    with pytest.raises(IntegrityError, match=f"shard {name} is missing"):
        load_footprint(REPO)
    hub.changed(REPO, "footprint.json", b"{}")
    with pytest.raises(IntegrityError, match=r"footprint\.json is not a commonweight-footprint record"):
        load_footprint(REPO)


def test_shards_outside_the_folder_are_refused(hub, folder):
    push_footprint(folder, REPO)
    changed_record(hub, shards={"../run.safetensors": {"bytes": 1, "sha256": ""}})
    with pytest.raises(IntegrityError, match="is not a shard name: refusing to read outside the folder"):
        load_footprint(REPO)


def test_a_damaged_folder_is_not_pushed(hub, folder):
    shard = next(folder.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(IntegrityError, match="it was changed"):
        push_footprint(folder, REPO)
    assert hub.commits == {}


def test_what_the_hub_does_not_have_or_does_not_allow_is_said(hub, folder, monkeypatch):
    with pytest.raises(UsageError, match=r"there is no such repository, or the token may not read it$"):
        load_footprint(REPO)
    push_footprint(folder, REPO)
    load_footprint(REPO)
    with pytest.raises(
        UsageError, match=f"no footprint could be read from '{REPO}' on the Hub: it has no revision 'v9'$"
    ):
        load_footprint(REPO, revision="v9")
    hub.commits["people/model"] = []
    hub.commit("people/model", {"config.json": b"{}"})
    with pytest.raises(UsageError, match=r"it holds no footprint\.json$"):
        load_footprint("people/model")
    with pytest.raises(UsageError, match="no footprint could be read from 'not an id'"):
        load_footprint("not an id")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load_footprint(REPO)  # it is in the cache
    with pytest.raises(UsageError, match=r"it is not in the cache, and the Hub cannot be asked$"):
        load_footprint("people/never-seen")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError, match=rf"could not be pushed to '{REPO}': .*401"):
        push_footprint(folder, REPO, token="wrong")


def test_a_hub_that_is_not_there_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the attempts of huggingface_hub
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        for name, value in {"HF_HUB_OFFLINE": False, "ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path)}.items():
            monkeypatch.setattr(constants, name, value)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(UsageError, match=r"could not be pushed to .*Connection refused"):
            push_footprint(folder, REPO, token="a")
        with pytest.raises(UsageError, match="it is not in the cache, and the Hub cannot be asked"):
            load_footprint(REPO)


PROGRAM = """
import sys
from commonweight import Footprint
from commonweight.integrations import load_footprint, push_footprint
commit = push_footprint(sys.argv[1], sys.argv[2])
print(commit, load_footprint(sys.argv[2], revision=commit))
"""


@pytest.mark.slow
def test_through_the_environment_in_a_process_of_its_own(folder, tmp_path):
    with serving() as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": hub.token,
        }
        command = [sys.executable, "-c", PROGRAM, str(folder), REPO]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        commit, _, shown = done.stdout.partition(" ")
        assert commit == hub.at(REPO, "main")[0]
        assert shown == f"{Footprint.load(folder)}\n"
        assert Path(tmp_path / "home").is_dir()
