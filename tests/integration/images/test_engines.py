"""What every engine keeps to: containers are closed, builds have no network, nothing is left over."""

from __future__ import annotations

import json
import os
import socket
import textwrap
import threading

import pytest

from kit.errors import ExitCode, KitError
from kit.images import base
from kit.images.engine import BuildRequest, Mount, RunRequest
from kit.images.family import Family, load_family
from kit.images.oci import Layout
from kit.locks import lock
from kit.store import Store
from tests.conftest import ROOT

pytestmark = pytest.mark.engine

SECRETS = ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")


@pytest.fixture(scope="module")
def image(place, engine):
    """The base image: Python, a shell and Open MPI."""
    pins = lock.load(place.lock_path("rehearsal"))
    store = Store(place.store)
    family = load_family(ROOT / "dockerfiles" / "rehearsal" / "family.yaml")
    packages = {
        group.name: {
            item.file: store.path(item.sha256) for item in pins.select(kind="deb", group=group.name)
        }
        for group in family.groups[:1]
    }
    only_base = Family(
        family.context, family.environment, family.exclude, family.keep, family.groups[:1]
    )
    return base.assemble(
        Layout(place.home / "engines-test"),
        only_base,
        packages,
        platform="linux/amd64",
        epoch=1,
        name=lambda group: f"localhost/kit-test/{group}:1",
    )[0]


@pytest.fixture(scope="module")
def reference(engine, image):
    return engine.load(image, "localhost/kit-test/base:1")


def _run(engine, reference, *argv, **options):
    lines = []
    code = engine.run(RunRequest(image=reference, argv=argv, **options), lines.append)
    return code, lines


def test_image_id_is_the_digest_of_its_configuration(engine, image, reference):
    assert reference.removeprefix("sha256:") == image.image_id.hex
    assert engine.has(image.image_id.hex)
    assert not engine.has("f" * 64)


def test_container_is_closed(engine, reference, monkeypatch):
    script = """
        import json, os, socket
        status = dict(l.split(":", 1) for l in open("/proc/self/status"))
        answer = {
            "uid": os.getuid(),
            "capabilities": int(status["CapEff"], 16),
            "no_new_privileges": status["NoNewPrivs"].strip(),
            "interfaces": sorted(os.listdir("/sys/class/net")),
            "routes": open("/proc/net/route").read().count("\\n") - 1,
            "secrets": sorted(n for n, v in os.environ.items() if "s3cret" in v),
            "given": os.environ.get("GIVEN"),
        }
        for name, path in {"root": "/x", "usr": "/usr/x"}.items():
            try:
                open(path, "w"); answer[name] = "written"
            except OSError as error:
                answer[name] = error.strerror
        open("/tmp/program", "w").write("#!/bin/sh\\necho works\\n")
        os.chmod("/tmp/program", 0o755)
        answer["tmp"] = os.popen("/tmp/program").read().strip()
        try:
            socket.create_connection(("192.0.2.1", 9), 2); answer["network"] = "reached"
        except OSError as error:
            answer["network"] = error.strerror
        print(json.dumps(answer))
    """
    for name in SECRETS:
        monkeypatch.setenv(name, "http://user:s3cret@127.0.0.1:9")
    code, lines = _run(
        engine,
        reference,
        "python3",
        "-c",
        textwrap.dedent(script),
        environment={"GIVEN": "a b"},
    )
    assert code == 0, lines
    answer = json.loads(lines[-1])
    uid = 1000 if os.geteuid() == 0 else os.geteuid()
    assert answer == {
        "uid": uid,
        "capabilities": 0,
        "no_new_privileges": "1",
        "interfaces": ["lo"],
        "routes": 0,
        "secrets": [],
        "given": "a b",
        "root": "Read-only file system",
        "usr": "Read-only file system",
        "tmp": "works",
        "network": "Network is unreachable",
    }


def test_only_writable_mounts_are_written_and_stay_ours(engine, reference, tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir(mode=0o700 if name == "out" else 0o755)
    (tmp_path / "in" / "text").write_text("hello")
    (tmp_path / "out" / "old").write_text("mine")
    mounts = (
        Mount(tmp_path / "in", "/kit/in"),
        Mount(tmp_path / "out", "/kit/out", writable=True),
    )
    script = (
        "cat in/text > out/new; echo more >> out/old; mkdir out/d; (echo no > in/x) 2>&- || echo ro"
    )
    code, lines = _run(engine, reference, "sh", "-c", script, workdir="/kit", mounts=mounts)
    assert code == 0, lines
    assert "ro" in lines
    assert (tmp_path / "out" / "new").read_text() == "hello"
    assert (tmp_path / "out" / "old").read_text() == "mine" + "more\n"
    owners = {path.stat().st_uid for path in (tmp_path / "out").rglob("*")}
    assert owners == {os.geteuid()}


def test_exit_code_and_every_line_in_order(engine, reference):
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 7"
    code, lines = _run(engine, reference, "sh", "-c", script)
    assert code == 7
    assert [line for line in lines if line.startswith("out")] == ["out 1", "out 2", "out 3"]
    assert [line for line in lines if line.startswith("err")] == ["err 1", "err 2", "err 3"]
    assert _run(engine, reference, "printf", "a\\nno newline") == (0, ["a", "no newline"])


def test_two_ranks_talk_without_a_network(engine, reference):
    code, lines = _run(
        engine,
        reference,
        "mpirun",
        "-n",
        "2",
        "sh",
        "-c",
        "echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE",
        environment={"OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_plm_rsh_agent": "false"},
    )
    assert code == 0, lines
    ranks = sorted(line for line in lines if line.startswith("rank"))
    assert ranks == ["rank 0 of 2", "rank 1 of 2"]


def test_program_that_is_not_there(engine, reference):
    """Engines answer with 127 or with an error of their own; never with success."""
    caught = None
    try:
        code, lines = _run(engine, reference, "no-such-program")
    except KitError as error:
        caught, code, lines = error, 127, [str(error)]
    assert caught is None or caught.exit_code is ExitCode.ENVIRONMENT
    assert (code, "no-such-program" in " ".join(lines)) == (127, True)


def test_interrupted_run_leaves_no_container(engine, reference, tmp_path):
    (tmp_path / "out").mkdir()
    mount = Mount(tmp_path / "out", "/kit/out", writable=True)
    script = "echo started; i=0; while :; do i=$((i+1)); echo $i > /kit/out/i; sleep 0.1; done"

    def interrupt(_line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(
            RunRequest(image=reference, argv=("sh", "-c", script), mounts=(mount,)), interrupt
        )
    counter = tmp_path / "out" / "i"
    before = counter.read_text() if counter.exists() else ""
    threading.Event().wait(0.6)
    assert (counter.read_text() if counter.exists() else "") == before


def _build(engine, base_name, folder, script, log):
    folder.mkdir()
    (folder / "script.sh").write_text(script)
    (folder / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE} AS release\n"
        "RUN --mount=type=bind,source=.,target=/context sh /context/script.sh\n"
    )
    request = BuildRequest("localhost/kit-test/out:1", "release", {"BASE": base_name}, log.append)
    engine.build(folder, folder / "Dockerfile", request)


def test_build_step_cannot_reach_the_network(engine, reference, tmp_path):
    """A server on the host's own loopback, which a step with the host's network would reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"""echo "interfaces: $(ls /sys/class/net)"
            python3 -c 'import socket; socket.create_connection(("127.0.0.1", {port}), 3)'
        """
        log = []
        with pytest.raises(KitError, match="Connection refused") as caught:
            _build(engine, "localhost/kit-test/base:1", tmp_path / "refused", connect, log)
    assert caught.value.exit_code is ExitCode.CONTENT
    assert any(line.endswith("interfaces: lo") for line in log), log
    _build(engine, "localhost/kit-test/base:1", tmp_path / "fine", "touch /opt/built", log)
    assert engine.has("localhost/kit-test/out:1")
    saved = b"".join(engine.save("localhost/kit-test/out:1"))
    assert b"opt/built" in saved
    engine.remove("localhost/kit-test/out:1")
    assert not engine.has("localhost/kit-test/out:1")
    engine.remove("localhost/kit-test/out:1")
    assert reference


def test_build_step_sees_no_login_of_a_proxy(engine, reference, tmp_path, monkeypatch):
    """Neither from the environment nor from the client's own configuration."""
    assert reference
    login = "http://user:s3cret@127.0.0.1:9"
    for name in SECRETS:
        monkeypatch.setenv(name, login)
    configuration = tmp_path / "docker"
    configuration.mkdir()
    proxies = {"default": {"httpProxy": login, "httpsProxy": login}}
    (configuration / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(configuration))
    log = []
    _build(engine, "localhost/kit-test/base:1", tmp_path / "context", "env; echo done", log)
    assert any(line.endswith("done") for line in log)
    assert not [line for line in log if "s3cret" in line]
    assert b"s3cret" not in b"".join(engine.save("localhost/kit-test/out:1"))


def test_cached_step_is_not_taken_for_other_inputs(engine, reference, tmp_path):
    """Files that are mounted into a step count: what changed in them is built again."""
    assert reference
    for number in ("1", "2"):
        folder = tmp_path / number
        folder.mkdir()
        (folder / "input").write_text(number)
        (folder / "Dockerfile").write_text(
            "ARG BASE\nFROM ${BASE} AS release\n"
            "RUN --mount=type=bind,source=.,target=/context cp /context/input /opt/input\n"
        )
        request = BuildRequest(
            f"localhost/kit-test/cache:{number}",
            "release",
            {"BASE": "localhost/kit-test/base:1"},
            lambda _line: None,
        )
        engine.build(folder, folder / "Dockerfile", request)
        code, lines = _run(engine, f"localhost/kit-test/cache:{number}", "cat", "/opt/input")
        assert (code, lines) == (0, [number])
