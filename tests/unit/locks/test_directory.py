import pytest

from kit.errors import ExitCode, KitError
from kit.locks.directory import DirectorySource, resolve_directory
from kit.locks.intent import Model
from kit.store import Store

MODEL = Model("tiny", "models/tiny", None, None, ())


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models" / "tiny"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(b"w" * 100)
    (folder / ".hidden").write_text("no")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("no")
    return tmp_path


def bring(root, item, store):
    with store.receive(item.sha256, item.size) as reception:
        DirectorySource(root, "small").bring(item, reception)


def test_every_file_is_locked_and_brought(root):
    items = resolve_directory(root, MODEL)
    assert [item.file for item in items] == ["config.json", "sub/weights"]
    assert {item.location for item in items} == {"directory:models/tiny"}
    store = Store(root / "store")
    for item in items:
        bring(root, item, store)
        assert store.path(item.sha256).stat().st_size == item.size


def test_a_changed_file_is_refused(root):
    item = resolve_directory(root, MODEL)[0]
    (root / "models" / "tiny" / "config.json").write_text("[]")
    with pytest.raises(KitError, match="changed since it was locked") as caught:
        bring(root, item, Store(root / "store"))
    assert caught.value.exit_code == ExitCode.CONTENT
    assert caught.value.hint == "kit lock small"
    (root / "models" / "tiny" / "config.json").unlink()
    with pytest.raises(KitError, match="there is no"):
        bring(root, item, Store(root / "store"))


def test_what_is_no_model(root):
    with pytest.raises(KitError, match="there is no folder models/none"):
        resolve_directory(root, Model("none", "models/none", None, None, ()))
    (root / "models" / "empty").mkdir()
    with pytest.raises(KitError, match="is empty"):
        resolve_directory(root, Model("empty", "models/empty", None, None, ()))
    (root / "models" / "tiny" / "link").symlink_to("/etc/passwd")
    with pytest.raises(KitError, match="is a link") as caught:
        resolve_directory(root, MODEL)
    assert caught.value.exit_code == ExitCode.USAGE
