"""Triton itself, from the Python index, over the reference backend: runs that serve, and `kit triton`."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from kit.triton import session
from tests.conftest import ROOT
from tests.integration.conftest import kit
from tests.unit.examples.toys import llama

pytestmark = [pytest.mark.engine, pytest.mark.only("podman")]

PROMPTS = ["Alice was beginning", "The Queen said"]


@pytest.fixture(scope="module")
def built(selected, home):
    environment = selected | {"KIT_HOME": str(home)}
    for arguments in (
        ("build", "rehearsal", "--quiet"),
        ("fetch", "rehearsal-triton"),
        ("build", "rehearsal-triton", "--quiet"),
    ):
        done = kit(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
    return environment


@pytest.fixture(scope="module")
def folder(scratch):
    place = scratch / "triton"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def model(folder):
    return llama(folder / "llama")


@pytest.fixture(scope="module")
def recipe(folder, model):
    """A recipe that serves, on one rank unless more are asked for."""

    def make(name, triton=None, **checkpoint):
        document = {
            "schema": "kit.recipe/1",
            "name": name,
            "description": "a toy behind Triton",
            "family": "llama",
            "model": {"name": "toy", "directory": str(model)},
            "checkpoint": {"dtype": "float16", **checkpoint},
            "build": {"max_batch_size": 4, "max_input_len": 48, "max_output_len": 12,
                      "max_beam_width": 1, "in_flight_batching": True},
            "run": {"prompts": PROMPTS, "max_output_len": 6},
            "serve": {"triton": {"batching": "inflight", **(triton or {})}},
            "releases": ">=0.5.0,<=1.2.1",
        }  # fmt: skip
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return make


def arguments(config, release, folder):
    words = ["run", "--config", str(config), "--stack", "rehearsal", "--release", release]
    return [*words, "--output", str(folder / "runs")]


@pytest.fixture(scope="module")
def served(built, folder, recipe):
    """`kit run` of everything with a release, once; the run's folder and its manifest."""
    known = {}

    def make(release):
        if release not in known:
            done = kit(*arguments(recipe("plain"), release, folder), "--json", env=built)
            assert done.returncode == 0, done.stderr
            path = Path(json.loads(done.stdout)["manifest"])
            known[release] = (path.parent, json.loads(path.read_bytes()))
        return known[release]

    return make


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "0.16.0", "1.2.1"])
def test_a_run_ends_with_answers_that_are_those_of_run_py(served, built, release):
    run, manifest = served(release)
    server = manifest["server"]
    assert (server["stack"], server["name"]) == ("rehearsal-triton", "triton")
    assert server["version"] == "2.51.0"  # as dockerfiles/rehearsal-triton says it
    models = {item["name"]: item["ready"] for item in server["models"]}
    expected = {"preprocessing", "tensorrt_llm", "postprocessing", "ensemble"}
    expected |= set() if release == "0.5.0" else {"tensorrt_llm_bls"}
    assert models == dict.fromkeys(expected, True)
    said = {output["prompt"]: output["text"] for output in manifest["outputs"]}
    assert list(said) == PROMPTS
    assert len(set(said.values())) == 2
    for answer in server["answers"]:
        assert answer["text"] == answer["prompt"] + said[answer["prompt"]]
    assert [command["name"] for command in manifest["commands"]][-1] == "serve"
    assert kit("manifest", "verify", str(run), env=built).returncode == 0
    shown = kit("manifest", "show", str(run), env=built).stdout
    assert "triton 2.51.0 of rehearsal-triton, ready: ensemble, " in shown
    assert nothing_left(built)


def test_a_step_of_a_server_is_done_alone_and_nothing_twice(served, built, folder):
    config = folder / "plain.yaml"
    run, _ = served("0.16.0")
    done = kit(*arguments(config, "0.16.0", folder), "--only", "serve", "--json", env=built)
    assert done.returncode == 0, done.stderr
    again = json.loads(Path(json.loads(done.stdout)["manifest"]).read_bytes())
    fresh = [item["name"] for item in again["commands"] if not item.get("reused_from")]
    assert fresh == ["serve"]
    first = json.loads((run / "manifest.json").read_bytes())
    assert again["server"] == first["server"]


def test_ranks_of_two_kinds_answer_as_one_and_a_decoupled_one_too(served, built, folder, recipe):
    config = recipe("four", {"decoupled": True}, tp=2, pp=2)
    done = kit(*arguments(config, "0.16.0", folder), "--json", env=built)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path(json.loads(done.stdout)["manifest"]).read_bytes())
    assert manifest["server"]["answers"] == served("0.16.0")[1]["server"]["answers"]


def test_a_server_that_does_not_start_is_told_with_its_cause(built, folder, recipe):
    # The port of gRPC, which the script of this release gives by itself.
    config = recipe("taken", {"http_port": 8001})
    done = kit(*arguments(config, "0.16.0", folder), env=built)
    assert done.returncode == 4
    assert "step serve ended with exit code 1: the server has ended" in done.stderr
    assert "8001" in done.stderr
    assert "cuda" not in done.stderr.rpartition("error: ")[2]
    assert nothing_left(built)
    (log,) = (folder / "runs" / "taken" / "0.16.0").glob("*-failed/logs/serve.log")
    assert "requests at the same address and port 0.0.0.0:8001" in log.read_text()


def test_a_run_that_is_killed_while_it_serves_leaves_nothing(built, folder, recipe):
    config = recipe("killed")
    words = arguments(config, "0.16.0", folder)
    process = start(*words, env=built)
    wait_for(process.stderr, "KIT-TRITON ready")
    process.kill()
    process.wait()
    process.stderr.close()
    done = kit(*words, "--resume", "--json", env=built)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path(json.loads(done.stdout)["manifest"]).read_bytes())
    fresh = [item["name"] for item in manifest["commands"] if not item.get("reused_from")]
    assert fresh == ["serve"]
    assert nothing_left(built)


@pytest.fixture(scope="module")
def repository(served, built, folder, model):
    """A model repository for the engine of a run, with streams."""
    output = folder / "repository"
    run, _ = served("0.16.0")
    streams = [f"--set={name}.decoupled_mode=true" for name in ("tensorrt_llm", "tensorrt_llm_bls")]
    words = ["--engine", str(run / "engine"), "--tokenizer", str(model), "--output", str(output)]
    done = kit("triton", "repository", *words, *streams, "--json", env=built)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stack"] == "rehearsal-triton"
    return output


@pytest.fixture(scope="module")
def server(repository, built):
    """`kit triton serve` over it, stopped by a signal; its URL and the port of its metrics."""
    ports = [free_port() for _ in range(3)]
    names = ("--http-port", "--grpc-port", "--metrics-port")
    words = [word for pair in zip(names, map(str, ports), strict=True) for word in pair]
    process = start("triton", "serve", str(repository), *words, env=built)
    wait_for(process.stderr, "ready; kit triton check")
    yield f"http://127.0.0.1:{ports[0]}", ports[2]
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    assert process.wait(60) == 0
    process.stderr.close()
    assert nothing_left(built)


def check(target, *more, env):
    done = kit("triton", "check", target, "--max-tokens", "6", *more, "--json", env=env)
    return done, json.loads(done.stdout)


def test_a_server_is_asked_from_the_host(server, served, built):
    url, metrics = server
    said = served("0.16.0")[1]["server"]["answers"]
    words = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    end = json.loads((served("0.16.0")[0] / "output/questions.json").read_bytes())
    words += ["--end-id", str(end["questions"]["values"]["end_id"])]
    for model in ("ensemble", "tensorrt_llm_bls"):
        more = [*words, "--metrics-port", str(metrics), "--model-name", model]
        done, found = check(url, *more, env=built)
        assert done.returncode == 0, done.stderr
        assert found["schema"] == "kit.triton/1"
        assert [answer["text"] for answer in found["answers"]] == [item["text"] for item in said]
        limit = time.monotonic() + 30
        while found["metrics"][model] < 2 and time.monotonic() < limit:  # counted after the answer
            found = check(url, "--metrics-port", str(metrics), env=built)[1]
        assert found["metrics"][model] >= 2


def test_a_decoupled_server_streams_token_by_token(server, served, built):
    url, metrics = server
    for model in ("ensemble", "tensorrt_llm_bls"):
        more = ["--stream", "--prompt", PROMPTS[0], "--metrics-port", str(metrics)]
        done, found = check(url, *more, "--model-name", model, env=built)
        assert done.returncode == 0, done.stderr
        assert len(found["answers"][0]["text"]) == 6
    outputs = served("0.16.0")[1]["outputs"]
    assert found["answers"][0]["text"][0] == outputs[0]["text"][0]


def test_requests_in_flight_are_served_together_with_the_same_answers(server):
    url, _ = server
    address = url.removeprefix("http://").split(":")
    place = (address[0], int(address[1]))
    model = session.fetched(place, "GET", "/v2/models/ensemble")

    def ask(prompt):
        return session.generate(place, model, session.inputs(model, prompt, {"max_tokens": 12}))

    prompts = [f"{prompt} {number}" for number in range(6) for prompt in PROMPTS]
    alone = [ask(prompt) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, prompts)) == alone
    kinds = {item["name"]: item["datatype"] for item in model["inputs"]}
    assert kinds["max_tokens"] == "INT32"
    values = session.inputs(model, PROMPTS[0], {"max_tokens": 12})
    assert session.generate(place, model, values).startswith(PROMPTS[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 60}, "60: the engine has max_seq_len|max_seq_len"),
        ({"max_tokens": 3, "repetition_penalty": 1.5}, "does not compute the input repetition_pen"),
        ({"max_tokens": 3, "beam_width": 2}, "2 beams: the engine has max_beam_width 1"),
    ],
)
def test_what_the_engine_cannot_is_refused_by_the_server(server, values, message):
    url, _ = server
    body = json.dumps({"text_input": "Alice", **values}).encode()
    request = urllib.request.Request(f"{url}/v2/models/ensemble/generate", body)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert re.search(message, caught.value.read().decode())


def test_a_port_that_is_taken_and_a_url_that_nobody_answers(server, repository, built):
    url, _ = server
    port = url.rpartition(":")[2]
    done = kit("triton", "serve", str(repository), "--http-port", port, env=built)
    assert done.returncode == 3
    assert f"port {port} of the loopback" in done.stderr
    done = kit("triton", "check", f"http://127.0.0.1:{free_port()}", "--prompt", "x", env=built)
    assert done.returncode == 3
    assert "no server answers" in done.stderr


def test_what_does_not_fit_is_named_before_anything_starts(repository, served, built, folder):
    run, _ = served("0.9.0")
    done, found = check(str(repository), "--engine", str(run / "engine"), env=built)
    assert done.returncode == 4
    assert "expected an engine of release 0.16.0, found one of 0.9.0" in found["error"]["message"]
    broken = folder / "broken"
    shutil.copytree(served("0.16.0")[0] / "engine", broken)
    whole = (broken / "rank0.engine").read_bytes()
    (broken / "rank0.engine").write_bytes(whole[: len(whole) // 2])
    done, found = check(str(repository), "--engine", str(broken), "--prompt", "x", env=built)
    assert done.returncode == 4
    assert "engine rank damaged: " in found["error"]["message"]
    (broken / "rank0.engine").write_bytes(b"ftrt" + bytes(4096))
    config = json.loads((broken / "config.json").read_bytes())
    config["version"] = config["version"].partition("+")[0]
    (broken / "config.json").write_text(json.dumps(config))
    done, found = check(str(repository), "--engine", str(broken), "--prompt", "x", env=built)
    assert done.returncode in (2, 4)
    assert "rehearsal" in found["error"]["message"]


def test_a_repository_that_the_backend_refuses_is_diagnosed(repository, built, folder):
    bad = folder / "bad"
    shutil.copytree(repository, bad)
    path = bad / "tensorrt_llm" / "config.pbtxt"
    path.write_text(path.read_text().replace("inflight_fused_batching", "V2"))
    done, found = check(str(bad), "--prompt", "x", env=built)
    assert done.returncode == 4
    message = found["error"]["message"]
    assert "the server has ended" in message
    assert "triton-parameter-invalid" in message
    assert "Invalid gpt_model_type: 'V2'" in message


def nothing_left(environment):
    """Whether no container of the kit's, and no folder of a session, is there."""
    done = subprocess.run(
        ["podman", "ps", "--all", "--format", "{{.Names}}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return not [name for name in done.stdout.split() if name.startswith("kit-")]


def start(*arguments, env):
    return subprocess.Popen(
        [sys.executable, "-m", "kit", *arguments],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def wait_for(stream, text):
    end = time.monotonic() + 120
    said = []
    for line in stream:
        said.append(line)
        if text in line:
            return
        assert time.monotonic() < end
    pytest.fail("".join(said[-20:]))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
