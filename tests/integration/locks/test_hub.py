import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.fetch import fetch
from kit.locks.resolve import resolve
from kit.store import Store
from tests.integration.locks.conftest import noise
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.hub import COMMIT, Hub

TOKEN = "hf_token-secret"
INTENT = """
models:
  - name: tiny
    repo: owner/model
    revision: main
    allow: ["*.json", "*.safetensors"]
"""
WEIGHTS = noise(200_000)


@pytest.fixture
def hub(monkeypatch, intend):
    intend(INTENT)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with FileServer() as storage, Hub(token=TOKEN, storage=storage) as found:
        found.small = {"config.json": b'{"a": 1}', "README.md": b"read me", "sub/x.json": b"{}"}
        found.large = {"model.safetensors": WEIGHTS}
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def test_a_model_is_pinned_and_fetched(hub, project, client, capfd):
    lock = resolve(project, "small", client=client)
    assert [item.file for item in lock.inputs] == ["config.json", "model.safetensors", "sub/x.json"]
    assert {item.version for item in lock.inputs} == {COMMIT}
    assert {item.location for item in lock.inputs} == {f"hf:owner/model@{COMMIT}"}
    assert lock.inputs[1].sha256 == Digest.of_bytes(WEIGHTS)
    assert not hub.storage.requests, "a large file is not downloaded to lock it"
    fetch(project, lock, client=client)
    store = Store(project.store)
    assert store.path(lock.inputs[1].sha256).read_bytes() == WEIGHTS
    assert "authorization" not in hub.storage.requests[0].headers, "the token stays with the hub"
    captured = capfd.readouterr()
    assert TOKEN not in lock.text() + captured.out + captured.err


def test_a_large_file_goes_on_where_it_stopped(hub, project, client):
    lock = resolve(project, "small", client=client)
    path = "/lfs/model.safetensors"
    hub.storage.faults[path] = [Fault(cut_after=50_000)]
    fetch(project, lock, client=client)
    assert [seen.range for seen in hub.storage.asked(path)] == [None, "bytes=50000-"]


@pytest.mark.parametrize("token", [None, "hf_wrong-secret"])
def test_without_the_token(hub, project, client, monkeypatch, token, tmp_path):
    lock = resolve(project, "small", client=client)
    monkeypatch.setenv("HF_TOKEN", token or "")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(KitError, match="there is no model repository owner/model, or no access"):
        resolve(project, "small", client=client)
    with pytest.raises(KitError, match="refuses with 401") as caught:
        fetch(project, lock, client=client)
    assert "HF_TOKEN" in str(caught.value)
    assert "secret" not in str(caught.value) + repr(caught.value.__cause__)


def test_no_such_revision_or_repository_or_file(hub, project, client, intend):
    intend(INTENT.replace("revision: main", "revision: nope"))
    with pytest.raises(KitError, match="has no revision nope") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.USAGE
    intend(INTENT.replace("owner/model", "owner/none"))
    with pytest.raises(KitError, match="there is no model repository owner/none"):
        resolve(project, "small", client=client)
    intend(INTENT.replace('["*.json", "*.safetensors"]', '["*.bin"]'))
    with pytest.raises(KitError, match=r"no file of owner/model at main matches \*.bin"):
        resolve(project, "small", client=client)


def test_a_vanished_file(hub, project, client):
    lock = resolve(project, "small", client=client)
    del hub.small["config.json"]
    with pytest.raises(KitError, match=r"has vanished from the hub: no config.json"):
        fetch(project, lock, client=client)


def test_offline(hub, project, client, monkeypatch):
    lock = resolve(project, "small", client=client)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for action in (
        lambda: resolve(project, "small", client=client),
        lambda: fetch(project, lock, client=client),
    ):
        with pytest.raises(KitError, match="HF_HUB_OFFLINE forbids it") as caught:
            action()
        assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_the_hub_is_down(hub, project, client, monkeypatch):
    with FileServer() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    with pytest.raises(KitError, match="cannot be reached") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_a_hub_that_answers_nonsense(hub, project, client):
    hub.routes.clear()
    hub.put("/api/models/owner/model/revision/main", b"<html>", "text/html")
    with pytest.raises(KitError, match="model repository owner/model"):
        resolve(project, "small", client=client)


def test_a_name_that_climbs_out(hub, project, client):
    hub.small["../../x.json"] = b"{}"
    with pytest.raises(KitError, match="outside its folder") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.CONTENT
