"""Small real wheels and source distributions, made from a few words; the same bytes every time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DATE = (2020, 1, 1, 0, 0, 0)
_EPOCH = 1_577_836_800
_BACKEND = '''\
"""A build backend of nothing but the standard library."""

import base64
import hashlib
import os
import zipfile

NAME, VERSION, EXTRA_REQUIRES, IMPORTS = {name!r}, {version!r}, {dynamic!r}, {imports!r}


def get_requires_for_build_wheel(config_settings=None):
    return EXTRA_REQUIRES


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    for module in IMPORTS:
        __import__(module)
    folder = f"{{NAME}}-{{VERSION}}.dist-info"
    os.mkdir(os.path.join(metadata_directory, folder))
    for member, text in _information():
        with open(os.path.join(metadata_directory, folder, member), "w") as stream:
            stream.write(text)
    return folder


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    for module in IMPORTS:
        __import__(module)
    file, folder = f"{{NAME}}-{{VERSION}}-py3-none-any.whl", f"{{NAME}}-{{VERSION}}.dist-info"
    members = [(f"{{folder}}/{{member}}", text.encode()) for member, text in _information()]
    for top, folders, files in os.walk("src"):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(top, name)
            with open(path, "rb") as stream:
                members.append((os.path.relpath(path, "src"), stream.read()))
    rows = []
    with zipfile.ZipFile(os.path.join(wheel_directory, file), "w") as archive:
        for member, content in members:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            rows.append(f"{{member}},sha256={{digest.decode()}},{{len(content)}}\\n")
            archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), content)
        rows.append(f"{{folder}}/RECORD,,\\n")
        archive.writestr(
            zipfile.ZipInfo(f"{{folder}}/RECORD", (2020, 1, 1, 0, 0, 0)), "".join(rows)
        )
    return file


def build_sdist(sdist_directory, config_settings=None):
    raise RuntimeError("this is one")


def _information():
    with open("PKG-INFO", encoding="utf-8") as stream:
        yield "METADATA", stream.read()
    yield "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
'''


def wheel(
    name: str,
    version: str,
    content: bytes = b"",
    tag: str = "py3-none-any",
    *,
    requires: Sequence[str] = (),
    extras: Mapping[str, Sequence[str]] | None = None,
    requires_python: str = "",
    scripts: Mapping[str, str] | None = None,
    files: Mapping[str, bytes | str] | None = None,
) -> tuple[str, bytes]:
    """A small real wheel: its file name and its bytes.

    Args:
        name: of the distribution.
        version: any, also a local one (`1.0+standin`).
        content: of the package's `__init__.py`.
        tag: interpreter, ABI and platform.
        requires: what it depends on.
        extras: extra → what that depends on.
        requires_python: which Python it wants.
        scripts: command → `module:function`.
        files: more members, such as `alpha/data.txt` or `alpha-1.0.data/scripts/tool`.
    """
    stem = _stem(name)
    folder = f"{stem}-{version}.dist-info"
    members: dict[str, bytes] = {f"{stem}/__init__.py": content}
    members |= {path: _bytes(text) for path, text in (files or {}).items()}
    members[f"{folder}/METADATA"] = metadata(name, version, requires, extras, requires_python)
    members[f"{folder}/WHEEL"] = (
        f"Wheel-Version: 1.0\nRoot-Is-Purelib: {'true' if tag.endswith('-any') else 'false'}\n"
        f"Tag: {tag}\n"
    ).encode()
    if scripts:
        rows = "".join(f"{command} = {target}\n" for command, target in scripts.items())
        members[f"{folder}/entry_points.txt"] = f"[console_scripts]\n{rows}".encode()
    record = ""
    for path, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    members[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in members.items():
            member = zipfile.ZipInfo(path, _DATE)
            member.external_attr = (0o755 if ".data/scripts/" in path else 0o644) << 16
            archive.writestr(member, data)
    return f"{stem}-{version}-{tag}.whl", buffer.getvalue()


def sdist(
    name: str,
    version: str,
    content: bytes = b"",
    *,
    requires: Sequence[str] = (),
    extras: Mapping[str, Sequence[str]] | None = None,
    build_requires: Sequence[str] = (),
    dynamic_build_requires: Sequence[str] = (),
    files: Mapping[str, bytes | str] | None = None,
) -> tuple[str, bytes]:
    """A small real source distribution that builds itself into a wheel: file name and bytes.

    Args:
        name: of the distribution.
        version: of it.
        content: of the package's `__init__.py`.
        requires: what it depends on.
        extras: extra → what that depends on.
        build_requires: what its build has to be able to import, by the project's name.
        dynamic_build_requires: the same, but only the backend itself tells of them.
        files: more members, or others in the place of `pyproject.toml` and `setup.py`.
    """
    stem = _stem(name)
    imports = [
        _stem(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0])
        for requirement in (*build_requires, *dynamic_build_requires)
    ]
    backend = _BACKEND.format(
        name=stem, version=version, dynamic=list(dynamic_build_requires), imports=imports
    )
    members: dict[str, bytes] = {
        "PKG-INFO": metadata(name, version, requires, extras),
        "backend.py": backend.encode(),
        f"src/{stem}/__init__.py": content,
        "pyproject.toml": (
            f'[build-system]\nrequires = {list(build_requires)!r}\nbuild-backend = "backend"\n'
            'backend-path = ["."]\n'
        ).encode(),
    }
    members |= {path: _bytes(text) for path, text in (files or {}).items()}
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in sorted(members.items()):
            member = tarfile.TarInfo(f"{stem}-{version}/{path}")
            member.size, member.mtime = len(data), _EPOCH
            archive.addfile(member, io.BytesIO(data))
    outer = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=outer, mtime=0) as stream:
        stream.write(inner.getvalue())
    return f"{stem}-{version}.tar.gz", outer.getvalue()


def metadata(
    name: str,
    version: str,
    requires: Sequence[str] = (),
    extras: Mapping[str, Sequence[str]] | None = None,
    requires_python: str = "",
) -> bytes:
    """The text of METADATA or PKG-INFO."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    for extra, more in (extras or {}).items():
        lines += [f"Provides-Extra: {extra}"]
        lines += [f'Requires-Dist: {requirement}; extra == "{extra}"' for requirement in more]
    return ("\n".join(lines) + "\n").encode()


def metadata_of(content: bytes) -> bytes:
    """The METADATA inside a wheel."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (member,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(member)


def project_of(file: str) -> str:
    """`my-project` of `My_project-1.0-py3-none-any.whl` or `my-project-1.0.tar.gz`."""
    stem = file.removesuffix(".whl").removesuffix(".tar.gz").removesuffix(".zip")
    name = stem.split("-")[0] if file.endswith(".whl") else stem.rpartition("-")[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _stem(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name)


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
