import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.digest import CHUNK, Digest


@given(st.binary())
def test_bytes_and_file_and_text_agree(content):
    digest = Digest.of_bytes(content)
    assert digest.hex == hashlib.sha256(content).hexdigest()
    assert Digest.parse(str(digest)) == Digest.parse(digest.hex) == digest
    assert str(digest).startswith("sha256:")
    assert digest.hex.startswith(digest.short)
    assert len(digest.short) == 12


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_file_of_any_length(tmp_path, size):
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    path = tmp_path / "file"
    path.write_bytes(content)
    assert Digest.of_file(path) == Digest.of_bytes(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "0" * 63,
        "0" * 65,
        "A" * 64,
        "0" * 64 + "\n",
        "sha512:" + "0" * 64,
        "sha256:sha256:" + "0" * 64,
        "g" * 64,
        "\u0660" * 64,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="not a sha256 digest"):
        Digest.parse(text)


@given(st.dictionaries(st.text(), st.integers()))
def test_order_of_keys_does_not_matter(document):
    turned = dict(reversed(list(document.items())))
    assert Digest.of_document(turned) == Digest.of_document(document)


def test_documents_that_differ_have_other_digests():
    assert Digest.of_document({"a": 1}) != Digest.of_document({"a": "1"})
    assert Digest.of_document(["ä"]) == Digest.of_bytes('["ä"]'.encode())


def test_digests_sort_and_serve_as_keys():
    first, second = Digest("0" * 64), Digest("1" * 64)
    assert sorted([second, first]) == [first, second]
    assert {first: 1}[Digest("0" * 64)] == 1
