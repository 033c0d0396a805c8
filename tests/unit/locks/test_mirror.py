import stat
from types import SimpleNamespace

import pytest

from kit.errors import ExitCode, KitError
from kit.locks import mirror


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with these programs only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.delenv("KIT_DEBIAN_MIRROR", raising=False)
    monkeypatch.delenv("KIT_SNAPSHOT", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(mirror, "_host_codename", lambda: "trixie")

    def program(name, text):
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def apt(*rows):
        lines = "\n".join(rows)
        program(
            "apt-get",
            f"#!/bin/sh\nwhile read -r row; do echo \"$row\"; done <<'EOF'\n{lines}\nEOF\n",
        )

    return SimpleNamespace(program=program, apt=apt)


def test_the_environment_decides(host, monkeypatch):
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", "http://127.0.0.1/debian/")
    assert mirror.debian_mirror("bookworm") == "http://127.0.0.1/debian"
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", "cdrom:x")
    with pytest.raises(KitError, match="KIT_DEBIAN_MIRROR"):
        mirror.debian_mirror("bookworm")


def test_the_hosts_apt(host):
    host.apt(
        "http://third/party/|bookworm|main|Packages|Somebody",
        "http://other/repo/|stable|main|Packages|$(ORIGIN)",
        "http://m/debian-security/|bookworm-security|main|Packages|Debian",
        "http://m/debian/|bookworm|contrib|Packages|Debian",
        "cdrom://x/debian/|bookworm|main|Packages|Debian",
        "http://m/debian/|bookworm|main|Translations|Debian",
        "http://good/debian/|bookworm|main|Packages|Debian",
    )
    assert mirror.debian_mirror("bookworm") == "http://good/debian"
    assert mirror.debian_mirror() == "http://good/debian"


def test_before_the_first_update(host):
    host.apt("http://m/pool-of-debian/|trixie|main|Packages|$(ORIGIN)")
    assert mirror.debian_mirror("bookworm") == "http://m/pool-of-debian"


def test_before_the_first_update_with_apt_3(host):
    """It lists no targets without downloaded lists, but says what an update would download."""
    host.program(
        "apt-get",
        "#!/bin/sh\n"
        '[ "$1" = update ] || exit 0\n'
        "echo \"'http://m/debian-security/dists/trixie-security/InRelease' a 0 \"\n"
        "echo \"'http://m/third/dists/stable/InRelease' a 0 \"\n"
        "echo \"'http://m/debian/dists/trixie/InRelease' a 0 \"\n"
        "echo \"'http://m/debian/dists/trixie/main/binary-amd64/Packages.xz' b 0 \"\n",
    )
    assert mirror.debian_mirror("bookworm") == "http://m/debian"


def test_ubuntu_is_not_debian(host, monkeypatch):
    monkeypatch.setattr(mirror, "_host_codename", lambda: None)
    host.apt("http://m/ubuntu/|noble|main|Packages|Ubuntu")
    host.program("mmdebstrap", "my $mirror    = 'http://default/debian';\n")
    assert mirror.debian_mirror("bookworm") == "http://default/debian"
    host.program("debootstrap", 'DEF_MIRROR="http://first/debian"\nDEF_HTTPS_MIRROR="x"\n')
    assert mirror.debian_mirror("bookworm") == "http://first/debian"


def test_nothing_known_says_so(host):
    with pytest.raises(KitError, match="no Debian mirror is known") as caught:
        mirror.debian_mirror("bookworm")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "KIT_DEBIAN_MIRROR" in caught.value.hint


def test_the_keyring(monkeypatch, tmp_path):
    key = tmp_path / "key.gpg"
    key.touch()
    monkeypatch.setenv("KIT_DEBIAN_KEYRING", str(key))
    assert mirror.debian_keyring() == key
    monkeypatch.setenv("KIT_DEBIAN_KEYRING", str(tmp_path / "absent"))
    with pytest.raises(KitError, match="no keys") as caught:
        mirror.debian_keyring()
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
