"""The script that runs inside: settings of the image, what counts as installed, the way out."""

import socket
import subprocess
import sys
import threading
from importlib.metadata import distributions
from pathlib import Path

from kit.locks.container import pip_report


def test_the_image_decides_what_is_chosen_but_not_where_from(tmp_path, monkeypatch):
    image = {
        "PIP_CONSTRAINT": "/etc/pip/constraint.txt",
        "PIP_PRE": "1",
        "PIP_EXTRA_INDEX_URL": "https://image.example",
        "PIP_NO_INDEX": "1",
        "PIP_PROXY": "http://proxy.example",
        "pip_cert": "/x",
        "https_proxy": "http://proxy.example",
        "ALL_PROXY": "http://proxy.example",
        "PYTHONPATH": "/opt/lib",
        "CUDA_HOME": "/usr/local/cuda",
    }
    for name, value in image.items():
        monkeypatch.setenv(name, value)
    found = pip_report._environment(tmp_path, ["/w/devel"], constrained=True)
    assert found["PIP_CONSTRAINT"] == "/etc/pip/constraint.txt"
    assert found["PIP_PRE"] == "1"
    assert found["CUDA_HOME"] == "/usr/local/cuda"
    assert found["PYTHONPATH"] == "/w/devel:/opt/lib"
    assert found["PIP_NO_INDEX"] == "0"
    assert not [name for name in found if "proxy" in name.lower() or name == "pip_cert"]
    assert "PIP_EXTRA_INDEX_URL" not in found, "set for each run of pip"
    assert "PIP_CONSTRAINT" not in pip_report._environment(tmp_path, [], constrained=False)


def test_what_counts_as_installed_is_found_by_python(tmp_path):
    metadata = {
        "name": "My-Package",
        "version": "1.0+local",
        "requires_dist": ["a>1", 'b; extra == "x"'],
        "provides_extra": ["x"],
    }
    pip_report._pretend(
        [{"metadata": metadata}, {"metadata": {"name": "p", "version": "2"}}], tmp_path
    )
    found = {dist.metadata["Name"]: dist for dist in distributions(path=[str(tmp_path)])}
    assert found["My-Package"].version == "1.0+local"
    assert found["My-Package"].requires == ["a>1", 'b; extra == "x"']
    assert found["My-Package"].metadata.get_all("Provides-Extra") == ["x"]
    assert found["p"].requires is None


def test_bytes_go_both_ways_until_a_side_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(pip_report, "SOCKET", str(tmp_path / "socket"))
    outside = socket.socket(socket.AF_UNIX)
    outside.bind(str(tmp_path / "socket"))
    outside.listen()

    def answer():
        far, _ = outside.accept()
        with far:
            asked = b""
            while piece := far.recv(1 << 16):
                asked += piece
            far.sendall(asked[::-1])

    threading.Thread(target=answer, daemon=True).start()
    sent = bytes(range(256)) * 5000
    with socket.create_connection(("127.0.0.1", pip_report._forward()), 10) as near:
        near.sendall(sent)
        near.shutdown(socket.SHUT_WR)
        got = b""
        while piece := near.recv(1 << 16):
            got += piece
    assert got == sent[::-1]


def test_it_says_who_is_there(tmp_path):
    """As a process, without anything of the kit, as in a container."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "job.json").write_text('{"arguments": []}')
    script = Path(pip_report.__file__)
    subprocess.run([sys.executable, "-I", script, given, tmp_path], check=True)
    assert (
        f'"python": "{sys.version_info[0]}.{sys.version_info[1]}"'
        in (tmp_path / "result.json").read_text()
    )
