from __future__ import annotations

import pytest

from kit.diagnose.lines import LONGEST, bare, pieces, redacted, severity, without_prefixes


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b'{"log":"a \\u001b[31mb\\n","stream":"stderr"}', "a b"),
        (b'2026-11-20T13:06:14Z {"level":"error","message":"it broke"}', "it broke"),
        (b'{"not json}', '{"not json}'),
        (b"a\0b\r\n", "ab"),
        (b"10%\r20%", "10%\n20%"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_bare(raw: bytes, text: str) -> None:
    assert bare(raw) == text


@pytest.mark.parametrize(
    "prefix",
    [
        "2026-11-20 13:06:14,123 ", "2026/11/20 13:06:14 ", "[2026-11-20T13:06:14.123Z] ",
        "[11/20/2026-13:06:14] ", "13:06:14.5 ", "[   12.345678] ", "Nov 20 13:06:14 host sshd[1]: ",
        "E1120 07:31:13.009883 4933 file.cc:634] ", "#7 ", "#7 12.5 ", "#7 [wheel 3/5] ", "12.5 ",
        "stderr F ", "[1,0]<stderr>:", "[host-1:4711] ", "[rank3]:", "12: ", "triton-1  | ",
        "##[error]", "E   ",
    ],
)  # fmt: skip
def test_prefixes_go(prefix: str) -> None:
    assert without_prefixes(prefix + "Error: it broke") == "Error: it broke"
    assert without_prefixes(f"{prefix}[rank0]: Error: it broke") == "Error: it broke"


@pytest.mark.parametrize(
    "text", ["[TensorRT-LLM][ERROR] x", "[TRT] [E] x", "make[1]: *** x", "| a | b |", "3rdparty: x"]
)
def test_what_belongs_to_the_message_stays(text: str) -> None:
    assert without_prefixes(text) == text


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("[TRT] [E] x", "error"), ("E1120 07:31:13.0 1 a.cc:1] x", "error"), ("ERROR: x", "error"),
        ("x NCCL WARN y", "error"), ("[TRT] [W] x", "warning"), ("UserWarning: x", "warning"),
        ("INFO: x", "info"), ("[TRT-LLM] [I] x", "info"), ("NCCL_DEBUG=INFO", None), ("x", None),
    ],
)  # fmt: skip
def test_severity(text: str, level: str | None) -> None:
    assert severity(text) == level


@pytest.mark.parametrize(
    "secret",
    [
        "hf_abcdefghijklmnop", "nvapi-abcdef-123456", "ghp_abcdefghijklmnop",
        "https://user:pass1word@host/x", "Authorization: Bearer abcdefgh", "HF_TOKEN=abcdefgh",
        "password=abcdefgh", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.abcdefgh",
    ],
)  # fmt: skip
def test_secrets_never_get_through(secret: str) -> None:
    text = redacted(f"fatal: {secret} was refused")
    assert "[redacted]" in text
    assert not any(part in text for part in ("abcdef", "pass1word", "eyJ"))
    assert text.endswith("was refused")


def test_pieces_overlap_and_lose_nothing() -> None:
    text = "".join(map(str, range(5000)))
    cut = pieces(text)
    assert all(len(piece) <= LONGEST for piece in cut)
    assert all(any(text[at : at + 400] in piece for piece in cut) for at in range(0, len(text), 97))
