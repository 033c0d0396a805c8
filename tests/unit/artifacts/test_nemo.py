from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.artifacts import nemo
from kit.errors import ExitCode, KitError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = b"""\
num_layers: 2
hidden_size: 64
num_attention_heads: 4
encoder_seq_length: 128
max_position_embeddings: ${.encoder_seq_length}
tokenizer:
  library: sentencepiece
  model: nemo:tokenizer.model
"""


def pieces(count: int) -> bytes:
    """A SentencePiece model as far as its pieces go, with a trainer's settings behind them."""
    piece = b"\x0a\x03abc\x15\x00\x00\x00\x00"
    return (b"\x0a" + bytes([len(piece)]) + piece) * count + b"\x12\x02\x18\x01"


def archive(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_configuration_tokenizer_and_names_of_weights(tmp_path: Path, mode: str) -> None:
    members = {
        "./model_config.yaml": CONFIG,
        "./abc_tokenizer.model": pieces(300),
        "./model_weights.ckpt": b"x" * 100_000,
    }
    found = nemo.look(archive(tmp_path / "m.nemo", members, mode))

    assert found.config["num_layers"] == 2
    assert found.config["max_position_embeddings"] == 128  # what the reference stands for
    assert found.config["tokenizer"] == {
        "library": "sentencepiece",
        "model": "nemo:tokenizer.model",
    }
    assert found.vocabulary == 300
    assert found.tokenizers == ("abc_tokenizer.model",)
    assert found.weights == ("model_weights.ckpt",)


class Trap:
    """Loading it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    pickled = pickle.dumps(Trap(str(trap)))
    assert pickle.loads(pickled).close() is None
    assert trap.exists()
    trap.unlink()

    members = {"model_config.yaml": CONFIG, "model_weights.ckpt": pickled, "x.model": pieces(1)}
    nemo.look(archive(tmp_path / "m.nemo", members))

    assert not trap.exists()


def test_two_tokenizers_say_no_vocabulary(tmp_path: Path) -> None:
    members = {"model_config.yaml": CONFIG, "a.model": pieces(3), "b.model": pieces(4)}
    found = nemo.look(archive(tmp_path / "m.nemo", members))

    assert found.vocabulary is None
    assert found.tokenizers == ("a.model", "b.model")
    assert found.weights == ()


def refused(path: Path, code: ExitCode = ExitCode.CONTENT) -> str:
    with pytest.raises(KitError) as caught:
        nemo.look(path)
    assert caught.value.exit_code == code
    return str(caught.value)


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "m.nemo"
    assert "no such file" in refused(path, ExitCode.USAGE)
    path.write_bytes(b"PK\x03\x04" + bytes(2000))
    assert "expected a tar archive" in refused(path)
    path.write_bytes(b"")
    assert "expected a tar archive" in refused(path)
    path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 4506787840\n"
    )
    assert "a Git LFS pointer to a file of 4506787840 bytes" in refused(path)
    path.write_bytes(gzip.compress(b"no tar at all" * 100))
    assert "no tar archive" in refused(path)


def test_an_archive_without_a_configuration(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", {"model_weights.ckpt": b"x"})
    assert "no model_config.yaml in it" in refused(path)


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", {"a": bytes(5000), "model_config.yaml": CONFIG})
    path.write_bytes(path.read_bytes()[:4000])
    assert "cut short" in refused(path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"a: [", "not valid YAML"),
        (b"- 1\n", "expected a mapping"),
        (b"a: !!python/object/apply:os.system [id]\n", "cannot be read as plain data"),
        (b"a: 1\na: 2\n", "stands twice"),
        (b"a: " + b"[" * 200 + b"]" * 200, "nested deeper"),
        (b"#" * ((1 << 20) + 1), "expected at most 1048576"),
    ],
)
def test_hostile_configurations(tmp_path: Path, config: bytes, said: str) -> None:
    assert said in refused(archive(tmp_path / "m.nemo", {"model_config.yaml": config}))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x12\x02\x18\x01", b"\x08\x01", b"\x0a\xff", b"\x0a\xff\xff\xff\xff", b"\xff" * 40],
)
def test_what_is_no_sentencepiece_model(tmp_path: Path, content: bytes) -> None:
    members = {"model_config.yaml": CONFIG, "tokenizer.model": content}
    assert "no SentencePiece model" in refused(archive(tmp_path / "m.nemo", members))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10239), byte=st.integers(0, 255))
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, place: int, byte: int) -> None:
    path = tmp_path / "m.nemo"
    if not path.exists():
        archive(
            path, {"model_config.yaml": CONFIG, "tokenizer.model": pieces(30), "w": bytes(5000)}
        )
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    content[place % len(content)] = byte
    path.unlink()  # another file: what is known of the one before does not count
    path.write_bytes(content)
    with contextlib.suppress(KitError):
        assert nemo.look(path).config


def test_an_archive_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", {"model_config.yaml": CONFIG})
    assert nemo.look(path).config["num_layers"] == 2
    other = archive(tmp_path / "n.nemo", {"model_config.yaml": b"num_layers: 3\n"})
    other.replace(path)
    assert nemo.look(path).config["num_layers"] == 3
