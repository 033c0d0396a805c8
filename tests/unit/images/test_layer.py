"""A layer's bytes depend on its content alone."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.digest import Digest
from kit.images.layer import (
    CAPABILITY,
    Entry,
    LayerWriter,
    clean,
    dump_index,
    entry_of,
    load_index,
    text_file,
)


def _layer(entries, epoch=0):
    stream = io.BytesIO()
    writer = LayerWriter(stream, epoch)
    for entry, content in entries:
        writer.add(entry, text_file(content))
    digest, size = writer.close()
    return stream.getvalue(), digest, size, writer.entries


def test_tar_reads_back_with_every_attribute():
    long_name = "usr/" + "x" * 150 + "/é"
    capability = Entry("usr/bin/ping", "file", 0o755, size=2, capability="\x01\x02")
    content, digest, size, _ = _layer(
        [
            (Entry("usr", "directory", 0o755), b""),
            (capability, b"hi"),
            (Entry(long_name, "symlink", 0o777, link="y" * 120), b""),
            (Entry("usr/bin/pong", "hardlink", 0o755, link="usr/bin/ping"), b""),
        ],
        epoch=1_700_000_000,
    )
    assert (Digest.of_bytes(content), len(content)) == (digest, size)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {m.name: m for m in archive}
    assert members["usr/bin/ping"].pax_headers[CAPABILITY] == "\x01\x02"
    assert members[long_name].linkname == "y" * 120
    assert members["usr/bin/pong"].islnk()
    assert {m.mtime for m in members.values()} == {1_700_000_000}
    assert {(m.uid, m.uname) for m in members.values()} == {(0, "")}


def test_bytes_do_not_depend_on_owner_names_or_times_of_the_source():
    def source(mtime, uname):
        member = tarfile.TarInfo("./etc/x")
        member.size, member.mode, member.mtime, member.uname = 3, 0o644, mtime, uname
        return entry_of(member, clean(member.name))

    assert _layer([(source(1, "a"), b"abc")])[1] == _layer([(source(9, "b"), b"abc")])[1]


def test_shorter_content_than_promised_is_an_error():
    with pytest.raises(EOFError):
        _layer([(Entry("x", "file", 0o644, size=5), b"abc")])


@given(
    st.dictionaries(
        st.text("abc/.é", min_size=1, max_size=12).map(clean).filter(bool),
        st.binary(max_size=2000),
        max_size=8,
    )
)
def test_index_round_trip(tmp_path_factory, files):
    entries = [(Entry(name, "file", 0o644, size=len(body)), body) for name, body in files.items()]
    index = _layer(entries)[3]
    path = tmp_path_factory.mktemp("index") / "index.json"
    path.write_bytes(dump_index(index))
    assert load_index(path) == index
    assert {name: entry.sha256 for name, entry in index.items()} == {
        name: Digest.of_bytes(body).hex for name, body in files.items()
    }
