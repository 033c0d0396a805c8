"""Debian packages made in memory, good ones and hostile ones."""

from __future__ import annotations

import io
import lzma
import tarfile


def deb(path, name, members, version="1.0", compress=lzma.compress, suffix=".xz"):
    """Write a package: `members` are (path, kind, content or link target, mode)."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n".encode()
    parts = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", lzma.compress(_tar([("./control", "file", control, 0o644)]))),
        (f"data.tar{suffix}", compress(_tar(members))),
    ]
    body = b"!<arch>\n"
    for member, content in parts:
        body += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        body += content + b"\n" * (len(content) % 2)
    path.write_bytes(body)
    return path


def _tar(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, value, mode in members:
            member = tarfile.TarInfo(name)
            member.mode = mode
            member.type = {
                "file": tarfile.REGTYPE,
                "directory": tarfile.DIRTYPE,
                "symlink": tarfile.SYMTYPE,
                "hardlink": tarfile.LNKTYPE,
            }[kind]
            if kind == "file":
                member.size = len(value)
                archive.addfile(member, io.BytesIO(value))
            else:
                member.linkname = value
                archive.addfile(member)
    return stream.getvalue()
