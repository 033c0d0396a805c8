import pytest

from kit.errors import ExitCode, KitError
from kit.locks.base_image import STATUS, BaseImage
from kit.project import Project
from kit.store import Store
from tests.stand_in import locked_image
from tests.stand_in.locked_image import hardlink, layer, link
from tests.stand_in.stored import damage, stored


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path, tmp_path / "home")


@pytest.fixture
def put(project, tmp_path):
    """Put an image of these layers into the store."""

    def make(*layers, **options):
        packed = [one if isinstance(one, bytes) else layer(one) for one in layers]
        return locked_image.put_image(Store(project.store), tmp_path, packed, **options)

    return make


def stanza(name, version, status="install ok installed"):
    return f"Package: {name}\nStatus: {status}\nVersion: {version}\n".encode()


def test_the_newest_layer_wins(project, put):
    inputs = put(
        {STATUS: stanza("old", "1"), "usr/share/keyrings/a.gpg": b"a", "etc/os-release": b"1"},
        layer({f"./{STATUS}": stanza("new", "2"), "usr/share/keyrings/b.gpg": b"b"}, packed=False),
        {"usr/share/keyrings/.wh.a.gpg": b"", "usr/share/unrelated": b"x" * 1000},
    )
    image = BaseImage(project, inputs, "base")
    assert image.packages == {"new": "2"}
    assert image.names("usr/share/keyrings/") == ("usr/share/keyrings/b.gpg",)
    assert image.read("usr/share/keyrings/b.gpg") == b"b"
    assert image.read("/usr/share/keyrings/a.gpg") is None
    assert image.read("etc/os-release") == b"1"


def test_a_status_of_blanks_is_read_in_time(project, put):
    """Sixteen million of them would take a pattern that looks back for years."""
    long = b"Package: x\nStatus: install ok installed\nVersion: 1" + b" " * 4_000_000 + b"x\n"
    assert list(BaseImage(project, put({STATUS: long}), "base").packages) == ["x"]


@pytest.mark.parametrize("name", ['i386";x', "a b/c", "../x", "-x", "I386"])
def test_what_is_no_architecture(project, put, name):
    inputs = put({STATUS: stanza("x", "1"), "var/lib/dpkg/arch": f"amd64\n{name}\n".encode()})
    image = BaseImage(project, inputs, "base")
    with pytest.raises(KitError, match="no architecture") as caught:
        print(image.foreign_architectures)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_an_opaque_folder_hides_what_is_below(project, put):
    inputs = put(
        {"etc/apt/keyrings/a.gpg": b"a", STATUS: stanza("x", "1")},
        {"etc/apt/.wh..wh..opq": b"", "etc/apt/keyrings/b.gpg": b"b"},
    )
    image = BaseImage(project, inputs, "base")
    assert image.names("etc/apt/keyrings/") == ("etc/apt/keyrings/b.gpg",)


def test_links_are_followed(project, put):
    inputs = put(
        {
            "usr/lib/os-release": b"noble",
            "etc/os-release": link("../usr/lib/os-release"),
            "usr/lib/sysimage/dpkg/status": stanza("far", "3"),
            "var/lib/dpkg": link("/usr/lib/sysimage/dpkg"),
            "opt/one": b"shared",
            "opt/two": hardlink("opt/one"),
            "opt/circle": link("circle"),
        }
    )
    image = BaseImage(project, inputs, "base", also=["opt/two", "opt/circle"])
    assert image.read("etc/os-release") == b"noble"
    assert image.packages == {"far": "3"}
    assert image.read("opt/two") == b"shared"
    with pytest.raises(KitError, match="links lead in a circle"):
        image.read("opt/circle")


def test_a_second_look_reads_no_layer(project, put):
    inputs = put({STATUS: stanza("x", "1"), "opt/a": b"a", "opt/b": b"b"})
    BaseImage(project, inputs, "base", also=["opt/a"])
    for digest in stored(Store(project.store)):
        Store(project.store).discard(digest)
    again = BaseImage(project, inputs, "base", also=["opt/a"])
    assert (again.packages, again.read("opt/a")) == ({"x": "1"}, b"a")
    with pytest.raises(KitError, match="not in the store") as caught:
        BaseImage(project, inputs, "base", also=["opt/b"])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_what_is_asked_for_later_is_remembered_too(project, put):
    inputs = put({STATUS: stanza("x", "1"), "opt/a": b"a", "opt/b": b"b"})
    assert BaseImage(project, inputs, "base", also=["opt/a"]).read("opt/b") == b"b"
    for digest in stored(Store(project.store)):
        Store(project.store).discard(digest)
    again = BaseImage(project, inputs, "base")
    assert (again.read("opt/a"), again.read("opt/b")) == (b"a", b"b")


def test_a_spoilt_memory_counts_as_none(project, put):
    inputs = put({STATUS: stanza("x", "1")})
    BaseImage(project, inputs, "base")
    (memo,) = (project.home / "base-images").glob("*.json")
    for content in (b"", b"[]", b'{"schema": "another"}', memo.read_bytes()[:-20]):
        memo.write_bytes(content)
        assert BaseImage(project, inputs, "base").packages == {"x": "1"}


def test_packages_that_are_not_installed(project, put):
    status = b"\n".join(
        [
            stanza("here", "1:2.0~rc1+b2-3"),
            stanza("held", "2", "hold ok installed"),
            stanza("gone", "3", "deinstall ok config-files"),
        ]
    )
    image = BaseImage(project, put({STATUS: status}), "base")
    assert image.packages == {"here": "1:2.0~rc1+b2-3", "held": "2"}


def test_an_image_without_a_dpkg(project, put):
    folder = f"{STATUS}.d"
    inputs = put(
        {
            f"{folder}/base-files": b"Package: base-files\nVersion: 12\n",
            f"{folder}/tzdata": b"Package: tzdata\nVersion: 2024a\n\n",
            f"{folder}/tzdata.md5sums": b"0  usr/share\n",
        }
    )
    assert BaseImage(project, inputs, "base").packages == {"base-files": "12", "tzdata": "2024a"}


def test_an_image_without_packages(project, put):
    with pytest.raises(
        KitError, match=r"no var/lib/dpkg/status in registry.example/base"
    ) as caught:
        _ = BaseImage(project, put({"etc/passwd": b""}), "base").status
    assert caught.value.exit_code == ExitCode.USAGE


def test_foreign_architectures(project, put):
    inputs = put({"var/lib/dpkg/arch": b"amd64\ni386\n"})
    assert BaseImage(project, inputs, "base").foreign_architectures == ("i386",)


@pytest.mark.parametrize(
    ("members", "environment", "expected"),
    [
        ({"usr/bin/python3": link("python3.12"), "usr/bin/python3.12": b"\x7fELF"}, [], "3.12"),
        (
            {
                "usr/bin/python3": link("/etc/alternatives/python3"),
                "etc/alternatives/python3": link("/usr/bin/python3.10"),
                "usr/bin/python3.10": b"\x7fELF",
            },
            [],
            "3.10",
        ),
        (
            {
                "usr/bin/python3": link("python3.12"),
                "usr/bin/python3.12": b"",
                "opt/conda/bin/python3": link("python3.8"),
                "opt/conda/bin/python3.8": b"",
            },
            ["PATH=/opt/conda/bin:/usr/bin"],
            "3.8",
        ),
        ({"usr/bin/perl": b""}, [], None),
    ],
)
def test_which_python(project, put, members, environment, expected):
    inputs = put(members, environment=environment)
    image = BaseImage(project, inputs, "base")
    assert image.python == expected
    assert BaseImage(project, inputs, "base").python == expected, "from memory, too"


def test_a_damaged_layer(project, put):
    inputs = put({STATUS: stanza("x", "1")})
    damage(Store(project.store), inputs[-1].sha256, 30)
    with pytest.raises(KitError, match="damaged") as caught:
        BaseImage(project, inputs, "base")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert not (project.home / "base-images").exists(), "nothing is remembered of it"


def test_a_compression_that_is_not_read(project, put):
    inputs = put(b"\x28\xb5\x2f\xfd" + b"x" * 600)
    with pytest.raises(KitError, match="layer 1 of 1 is compressed by zstd") as caught:
        BaseImage(project, inputs, "base")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_no_such_image(project, put):
    with pytest.raises(KitError, match="image other: the lock has 0 manifests") as caught:
        BaseImage(project, put({}), "other", stack="small")
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.USAGE, "kit lock small")


def test_a_file_that_is_far_too_large(project, put, monkeypatch):
    monkeypatch.setattr("kit.locks.base_image._FILE_LIMIT", 100)
    image = BaseImage(project, put({STATUS: b"x" * 101}), "base")
    with pytest.raises(KitError, match="expected at most 100 B") as caught:
        image.read(STATUS)
    assert caught.value.exit_code == ExitCode.CONTENT
