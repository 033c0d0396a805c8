import json

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import pypi
from kit.locks.http import Client
from kit.locks.intent import Pin, Python, PythonGroup
from kit.locks.pip_settings import PipSettings
from kit.locks.pypi import PythonIndex, resolve_python, target_tags

ZERO = "0" * 64


@pytest.fixture
def folder_index(tmp_path):
    """An index on the disk, as `file://` URLs name it."""

    def make(project, *names, requires=None):
        page = tmp_path / "simple" / project
        page.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files").mkdir(exist_ok=True)
        links = []
        for name in names:
            (tmp_path / "files" / name).write_bytes(name.encode())
            attribute = f' data-requires-python="{requires}"' if requires else ""
            links.append(f'<a href="../../files/{name}"{attribute}>{name}</a>')
        (page / "index.html").write_text("\n".join(links))
        settings = PipSettings((f"file://{tmp_path}/simple",), (), None)
        return PythonIndex(Client(back_off=0.01), settings)

    return make


def resolve(index, *pins, kind="wheels", python="3.11", glibc="2.36", architecture="amd64"):
    found = tuple(Pin(*pin.split("==")) for pin in pins)
    group = PythonGroup("g", found if kind == "wheels" else (), found if kind == "sdists" else ())
    wanted = Python(python, None, (group,))
    return resolve_python(wanted, glibc, architecture, index, Client(back_off=0.01))


def test_tags_are_the_targets():
    tags = [str(tag) for tag in target_tags("3.9", "2.31", "arm64")]
    assert tags[0] == "cp39-cp39-manylinux_2_31_aarch64"
    assert "cp39-cp39-manylinux2014_aarch64" in tags
    assert "cp38-abi3-manylinux_2_17_aarch64" in tags
    assert "py3-none-any" in tags
    assert not [tag for tag in tags if "x86_64" in tag or "2_32" in tag or "cp310" in tag]
    assert "cp311-cp311-manylinux1_x86_64" in [
        str(tag) for tag in target_tags("3.11", "2.36", "amd64")
    ]


def test_the_best_wheel_for_the_target(folder_index):
    index = folder_index(
        "x",
        "x-1.0-cp310-cp310-manylinux_2_17_x86_64.whl",
        "x-1.0-cp311-cp311-manylinux_2_17_aarch64.whl",
        "x-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "x-1.0-cp311-cp311-manylinux_2_39_x86_64.whl",
        "x-1.0-cp311-cp311-musllinux_1_1_x86_64.whl",
        "x-1.0-py3-none-any.whl",
        "x-1.1-cp311-cp311-manylinux_2_17_x86_64.whl",
        "x-1.0.tar.gz",
        "nonsense.whl",
    )
    (found,) = resolve(index, "x==1.0")
    assert found.file == "x-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert found.sha256 == Digest.of_bytes(found.file.encode()), "measured: the page has no digest"
    assert found.size == len(found.file)
    assert found.location == ""
    (found,) = resolve(index, "x==1.0", glibc="2.40")
    assert "2_39" in found.file
    (found,) = resolve(index, "x==1.0", architecture="arm64")
    assert "aarch64" in found.file
    (found,) = resolve(index, "x==1.0", python="3.12")
    assert found.file == "x-1.0-py3-none-any.whl"
    (found,) = resolve(index, "X==1", kind="sdists")
    assert found.file == "x-1.0.tar.gz"
    assert (found.kind, found.version) == ("sdist", "1.0")


def test_no_such_version_and_no_fitting_file(folder_index):
    index = folder_index("x", "x-1.0-cp310-cp310-win_amd64.whl")
    with pytest.raises(KitError, match=r"no file fits Python 3.11 of the target; there are x-1.0"):
        resolve(index, "x==1.0")
    with pytest.raises(KitError, match="no such version at file:") as caught:
        resolve(index, "x==2.0")
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(KitError, match=r"sdist y==1.0: there is no such version"):
        resolve(index, "y==1.0", kind="sdists")


def test_a_wheel_for_other_pythons_does_not_fit(folder_index):
    index = folder_index("x", "x-1.0-py3-none-any.whl", requires="&gt;=3.12")
    with pytest.raises(KitError, match=r"no file fits Python 3.11"):
        resolve(index, "x==1.0")
    assert resolve(index, "x==1.0", python="3.12")


def test_folders_of_find_links(tmp_path):
    (tmp_path / "a_b-1.0-py3-none-any.whl").write_bytes(b"x")
    index = PythonIndex(Client(), PipSettings((), (tmp_path,), None))
    (found,) = resolve(index, "A.b==1.0")
    assert found.sha256 == Digest.of_bytes(b"x")


def test_a_page_of_json():
    page = {
        "files": [
            {
                "filename": "x-1.0.tar.gz",
                "url": "../../f/x-1.0.tar.gz",
                "hashes": {"sha256": ZERO},
                "size": 7,
                "requires-python": ">=3.8",
                "yanked": False,
            },
            {"filename": "x-1.1.tar.gz", "url": "https://h/x", "hashes": {}},
        ]
    }
    first, second = pypi._json_links(json.dumps(page).encode(), "http://h/simple/x/")
    assert first.url == "http://h/f/x-1.0.tar.gz"
    assert (first.sha256, first.size, first.requires_python) == (Digest(ZERO), 7, ">=3.8")
    assert (second.sha256, second.size) == (None, None)


@pytest.fixture
def page_of(tmp_path):
    """An index whose page of `x` is this JSON text."""
    (tmp_path / "simple" / "x").mkdir(parents=True)

    def make(text):
        class Told(Client):
            def read(self, url, headers=None, **more):
                return text.encode(), "application/vnd.pypi.simple.v1+json", url

        return PythonIndex(Told(), PipSettings(("https://me:s3cret@h.example/simple",), (), None))

    return make


def file_of(**changes):
    entry = {"filename": "x-1.0.tar.gz", "url": "/f/x-1.0.tar.gz", "hashes": {}, **changes}
    return json.dumps({"files": [entry]})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        file_of(filename=7),
        file_of(url=["/x"]),
        file_of(hashes={"sha256": "no"}),
        file_of(hashes=[]),
    ],
)
def test_a_page_that_is_none(page_of, text):
    with pytest.raises(KitError, match="not the page of a package index") as caught:
        list(page_of(text).links("x"))
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("changes", [{"size": "7"}, {"size": -1}, {"requires-python": 3}])
def test_what_a_page_says_oddly_counts_as_not_said(page_of, changes):
    (link,) = page_of(file_of(**changes)).links("x")
    assert (link.size, link.requires_python) == (None, None)


@pytest.mark.parametrize(
    "name", ["../x-1.0.tar.gz", "a/x-1.0.tar.gz", "x-1.0\n.tar.gz", "\x1b[2Jx", "x" * 256, "x\0"]
)
def test_names_that_no_file_has_are_no_links(page_of, name):
    assert list(page_of(file_of(filename=name)).links("x")) == []


@pytest.mark.parametrize(
    ("url", "gets"),
    [
        ("/f/x", True),
        ("https://h.example/f/x", True),
        ("http://h.example/f/x", False),
        ("https://h.example:444/f/x", False),
        ("https://evil.example/f/x", False),
    ],
)
def test_who_gets_the_login_of_an_index(page_of, url, gets):
    (link,) = page_of(file_of(url=url)).links("x")
    assert ("s3cret" in link.url) == gets


def test_a_page_of_html():
    page = f"""<!DOCTYPE html><html><head><base href="http://other/base/"></head><body>
    <a href="x-1.0%2Blocal.tar.gz#sha256={ZERO}" data-requires-python="&gt;=3.8">x</a>
    <a href="/abs/x-1.1.tar.gz#md5=abc">y</a> <a name="no-link">z</a></body></html>"""
    first, second = pypi._html_links(page.encode(), "http://h/simple/x/")
    assert first.url == "http://other/base/x-1.0%2Blocal.tar.gz"
    assert first.filename == "x-1.0+local.tar.gz"
    assert first.requires_python == ">=3.8"
    assert second.url == "http://other/abs/x-1.1.tar.gz"
    assert second.sha256 is None


def test_a_page_of_the_network_cannot_reach_into_the_disk():
    assert not pypi._may_link("https://h/simple/x/", "file:///etc/passwd")
    assert pypi._may_link("https://h/simple/x/", "https://files/x")
    assert pypi._may_link("file:///simple/x/", "file:///files/x")
