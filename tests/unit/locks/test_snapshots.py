import pytest

from kit.errors import ExitCode, KitError
from kit.locks import mirror, snapshots

STAMP = "20241120T010203Z"


@pytest.fixture(autouse=True)
def moment(monkeypatch):
    monkeypatch.setenv("KIT_SNAPSHOT", STAMP)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "http://archive.ubuntu.com/ubuntu",
            f"https://snapshot.ubuntu.com/ubuntu/{STAMP}",
        ),
        (
            "http://security.ubuntu.com/ubuntu/pool/main/c/curl/curl_8.5.0-2ubuntu10.5_amd64.deb",
            f"https://snapshot.ubuntu.com/ubuntu/{STAMP}/pool/main/c/curl/curl_8.5.0-2ubuntu10.5_amd64.deb",
        ),
        ("https://de.archive.ubuntu.com/ubuntu/", f"https://snapshot.ubuntu.com/ubuntu/{STAMP}/"),
        (
            "http://ports.ubuntu.com/ubuntu-ports/pool",
            f"https://snapshot.ubuntu.com/ubuntu/{STAMP}/pool",
        ),
        (
            "https://mirror.debian.org/debian-security/x",
            f"https://snapshot.debian.org/archive/debian-security/{STAMP}/x",
        ),
        ("http://mirror.debian.org/debian", f"https://snapshot.debian.org/archive/debian/{STAMP}"),
    ],
)
def test_archives_with_a_past(url, expected):
    assert snapshots.snapshot(url) == expected
    assert snapshots.has_service(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64",
        "http://archive.ubuntu.com/ubuntu-other/x",
        "http://archive.ubuntu.com.example/ubuntu/x",
        "file:///archive.ubuntu.com/ubuntu/x",
    ],
)
def test_others_are_asked_as_always(url):
    assert snapshots.snapshot(url) == url
    assert not snapshots.has_service(url)


@pytest.mark.parametrize("given", [None, ""])
def test_without_a_moment(monkeypatch, given):
    monkeypatch.delenv("KIT_SNAPSHOT")
    if given is not None:
        monkeypatch.setenv("KIT_SNAPSHOT", given)
    assert snapshots.stamp() is None
    url = "http://archive.ubuntu.com/ubuntu"
    assert snapshots.snapshot(url) == url


@pytest.mark.parametrize("value", ["2024-11-20", "yesterday", "20241120", f"{STAMP}/../x"])
def test_no_moment(monkeypatch, value):
    monkeypatch.setenv("KIT_SNAPSHOT", value)
    with pytest.raises(KitError, match="KIT_SNAPSHOT: expected a time") as caught:
        snapshots.stamp()
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_debian_mirror(monkeypatch):
    monkeypatch.delenv("KIT_DEBIAN_MIRROR", raising=False)
    monkeypatch.delenv("KIT_MIRRORS", raising=False)
    past = f"snapshot.debian.org/archive/debian/{STAMP}"
    assert mirror.debian_mirror("bookworm") == f"https://{past}"
    monkeypatch.setenv("KIT_MIRRORS", "https://snapshot.debian.org/=http://127.0.0.1:1/s/")
    assert mirror.debian_mirror("bookworm") == f"http://127.0.0.1:1/s/archive/debian/{STAMP}"
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", "http://127.0.0.1/debian")
    assert mirror.debian_mirror("bookworm") == "http://127.0.0.1/debian"
