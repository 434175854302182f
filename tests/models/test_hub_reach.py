"""An id that cannot be read is refused at once; one that can is left to the real loading code."""

import http.server
import socket
import threading
import time

import pytest
from huggingface_hub import constants

from commonweight.base import UsageError
from commonweight.models import hub
from commonweight.models.hub import out_of_reach
from commonweight.models.load import load_model
from commonweight.models.options import LoadOptions


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with models in it."""
    for name in ("bert-large-films", "gpt", "zebra"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_loading(monkeypatch):
    """The libraries are not asked."""

    def refuse(*_, **__):
        raise AssertionError("the loading code was called")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)


@pytest.fixture
def online(monkeypatch):
    """Not offline; the Hub is at an address the test chooses."""

    def at(address):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return at


class NotFound(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A Hub that has nothing."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as found:
        found.asked = []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_offline_an_unknown_id_is_refused_with_what_was_expected(here, no_loading):
    with pytest.raises(UsageError) as caught:
        load_model("bert-bse")
    assert str(caught.value) == (
        "'bert-bse' is no local model folder, and as a Hugging Face id it is not in the local cache, and "
        "HF_HUB_OFFLINE forbids asking the Hub. Expected a folder (of similar name: 'bert-large-films'), an id "
        "'org/name' that is in the cache or can be asked for, or module:function"
    )
    with pytest.raises(UsageError, match=r"'org/name@v1' is no local .* Expected a folder \(none has a similar name\)"):
        load_model("org/name@v1")


def test_without_a_connection_it_is_refused_with_the_reason(here, no_loading, online):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        online(address)
        with pytest.raises(UsageError, match=rf"{address} cannot be reached \(Connect\w*: .*Connection refused"):
            load_model("surely-absent")


def test_a_hub_that_does_not_answer_is_not_waited_for(here, no_loading, online, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        online(f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(UsageError, match=r"did not answer within 0\.3 seconds|cannot be reached \(\w*Timeout"):
            load_model("surely-absent")


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(online, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_session", lambda: time.sleep(2))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    online("http://hub")
    assert out_of_reach("surely-absent") == (
        "it is not in the local cache, and http://hub did not answer within 0.1 seconds"
    )


def test_a_hub_that_answers_leaves_the_id_to_the_loading_code(here, online, server, monkeypatch):
    online(f"http://127.0.0.1:{server.server_port}")
    assert out_of_reach("org/name", "v1") is None
    assert server.asked == ["/org/name/resolve/v1/config.json"]

    def from_pretrained(where, **options):
        raise OSError(f"asked for {where} at {options['revision']}")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", from_pretrained)
    with pytest.raises(UsageError, match="could not be loaded: asked for org/name at v1"):
        load_model("org/name@v1")


def test_what_is_in_the_cache_is_in_reach_and_what_is_no_id_is_left_to_the_loading_code(tmp_path, monkeypatch):
    asked = []

    def cached(where, name, revision):
        asked.append((where, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    monkeypatch.setattr(hub, "_ask", lambda *_: pytest.fail("asked"))
    assert out_of_reach("org/name") is None
    assert asked == [("org/name", "config.json", "main")]
    monkeypatch.undo()
    assert out_of_reach("org/not--allowed") is None


def test_the_base_of_an_adapter_is_looked_at_too(tmp_path):
    peft = pytest.importorskip("peft")
    peft.LoraConfig(task_type="SEQ_CLS", base_model_name_or_path="org/absent").save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(UsageError, match=r"the base of .*, 'org/absent', is no local folder, .* HF_HUB_OFFLINE"):
        load_model(str(tmp_path), LoadOptions())
