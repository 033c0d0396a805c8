"""`kit inspect`: says what it is and what is inside, for people and for programs."""

import json
import os
import random
import shutil
import zipfile

import pytest

from kit import cli
from tests.unit.artifacts import folders


def inspect(capsys, path, *more):
    code = cli.run(["inspect", str(path), *more])
    said = capsys.readouterr()
    return code, said.out, said.err


def document(capsys, path, code=0):
    found, out, _ = inspect(capsys, path, "--json")
    assert found == code
    content = json.loads(out)
    assert (content["schema"], content["ok"]) == ("kit.inspect/1", code == 0)
    return content


def test_an_engine(tmp_path, capsys):
    folders.new_engine(tmp_path / "engine")
    content = document(capsys, tmp_path / "engine")
    assert content["kind"] == "engine"
    assert {"name": "tensorrt_llm", "version": "0.16.0", "how": "config.json",
            "where": str(tmp_path / "engine" / "config.json")} in content["versions"]  # fmt: skip
    assert content["details"]["config"]["parallelism"]["tp"] == 2
    assert content["details"]["config"]["precisions"] == ["fp16"]
    needs = " ".join(item["message"] for item in content["needs"])
    assert "TensorRT 10.7.0.23: that of 0.16.0" in needs
    assert "tritonserver:24.12-trtllm-python-py3" in needs
    assert content["problems"] == []
    code, out, _ = inspect(capsys, tmp_path / "engine")
    assert code == 0
    assert "engine directory" in out
    assert "10.7.0.23" in out
    assert "H100-SXM" in out


def test_a_real_plan(tmp_path, capsys):
    path = tmp_path / "rank0.engine"
    shutil.copy(folders.REAL_HEAD, path)
    content = document(capsys, path)
    assert content["kind"] == "plan"
    assert [item["version"] for item in content["versions"]] == ["8.6.0.12"]


@pytest.mark.parametrize("content", [b"", folders.plan()[:20], bytes(4096), b"<html>404</html>"])
def test_a_plan_that_is_none(tmp_path, capsys, content):
    (tmp_path / "rank0.engine").write_bytes(content)
    found = document(capsys, tmp_path / "rank0.engine", code=4)
    (problem,) = found["problems"]
    assert problem["is_corrupt"]
    assert "rank0.engine" in problem["message"]


def test_an_incomplete_engine_can_be_read(tmp_path, capsys):
    folders.new_engine(tmp_path)
    (tmp_path / "rank1.engine").unlink()
    content = document(capsys, tmp_path)
    assert [item["name"] for item in content["problems"]] == ["rank-missing"]
    assert "problems:" in inspect(capsys, tmp_path)[1]


def test_a_broken_config_json(tmp_path, capsys):
    folders.write(tmp_path, {"config.json": '{"version": "1"', "rank0.engine": folders.plan()})
    code, _, err = inspect(capsys, tmp_path)
    assert (code, err.count("error:"), "config.json:1:" in err) == (4, 1, True)
    content = json.loads(inspect(capsys, tmp_path, "--json")[1])
    assert (content["ok"], content["error"]["exit_code"]) == (False, 4)


@pytest.mark.parametrize("name", ["no", "no/such", "a\0b", "x" * 5000])
def test_nothing_there(tmp_path, capsys, name):
    code, out, err = inspect(capsys, tmp_path / name)
    assert (code, out) == (2, "")
    assert "there is no such file or folder" in err


def test_something_unknown(tmp_path, capsys):
    code, out, _ = inspect(capsys, folders.write(tmp_path, {"x": b"y"}))
    assert code == 4
    assert "looked for config.json" in out
    assert document(capsys, tmp_path, code=4)["kind"] == "unknown"


def test_pipes_and_dangling_links(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert inspect(capsys, tmp_path / "pipe")[0] == 4
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert inspect(capsys, tmp_path / "link")[0] == 2


def test_checkpoint_snapshot_pointer_and_tensors(tmp_path, capsys):
    config = {"architecture": "X", "dtype": "float16", "mapping": {"world_size": 1, "tp_size": 1}}
    folders.write(tmp_path / "c", {"config.json": config, "rank0.safetensors": folders.tensors()})
    folders.write(
        tmp_path / "s", {"config.json": {"model_type": "x"}, "m.safetensors": folders.tensors()}
    )
    folders.write(tmp_path, {"big.bin": folders.pointer()})
    assert document(capsys, tmp_path / "c")["details"]["files"] == 1
    assert document(capsys, tmp_path / "s")["details"]["weights"] == ["m.safetensors"]
    assert document(capsys, tmp_path / "big.bin")["details"]["size"] == 1234
    assert document(capsys, tmp_path / "s" / "m.safetensors")["details"]["dtypes"] == ["F16"]


def test_a_model_repository_and_the_engine_beside_it(tmp_path, capsys):
    folders.new_engine(tmp_path / "engines" / "llama")
    fill = folders.filled(engine_dir="/engines/llama", triton_max_batch_size="4")
    folders.repository(tmp_path / "models", "0.16.0", fill)
    content = document(capsys, tmp_path / "models")
    said = {item["name"]: item["version"] for item in content["versions"]}
    assert said == {
        "tensorrtllm_backend": "0.16.0",
        "tensorrt_llm": "0.16.0",
        "tensorrt": "10.7.0.23",
    }
    assert content["kind"] == "model-repository"


def test_control_characters_stay_off_the_terminal(tmp_path, capsys):
    folders.new_engine(tmp_path, release="0.16.0\x1b]0;title\x07", architecture="\x1b[2J\u202e")
    _, out, _ = inspect(capsys, tmp_path)
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J" in out


def test_a_lock(capsys):
    from kit import project

    content = document(capsys, project.find().lock_path("rehearsal"))
    assert content["kind"] == "lock"
    assert "numpy" in {item["name"] for item in content["versions"]}


def test_a_wheel_and_a_source_tree(tmp_path, capsys):
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            "demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
        )
        wheel.writestr("demo-1.0.dist-info/RECORD", "")
    assert document(capsys, path)["versions"][0]["version"] == "1.0"
    path.write_bytes(path.read_bytes()[:-30])
    assert inspect(capsys, path)[0] == 4
    folders.write(tmp_path / "t", {"tensorrt_llm/version.py": '__version__ = "0.16.0"\n'})
    content = document(capsys, tmp_path / "t")
    assert (content["kind"], content["versions"][0]["version"]) == ("source", "0.16.0")


def test_an_image_on_disk(tmp_path, capsys):
    layout = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": {"manifests": []}}
    code, _, err = inspect(capsys, folders.write(tmp_path, layout))
    assert code in (2, 4)
    assert "error:" in err


def test_no_damage_is_a_bug(tmp_path, capsys):
    """Whatever is cut or changed in whatever is read: one answer, and never exit 1."""
    chance = random.Random(5)
    config = {"architecture": "X", "dtype": "float16", "mapping": {"world_size": 1, "tp_size": 1}}
    places = [
        folders.new_engine(tmp_path / "engine"),
        folders.old_engine(tmp_path / "old"),
        folders.repository(tmp_path / "models", "0.16.0", folders.filled(engine_dir="/engine")),
        folders.write(
            tmp_path / "checkpoint",
            {"config.json": config, "rank0.safetensors": folders.tensors()},
        ),
        folders.write(
            tmp_path / "1-gpu", {"config.ini": "[gpt]\nn_head = 1\n", "model.a.bin": "x"}
        ),
        folders.write(
            tmp_path / "model",
            {"config.json": {"model_type": "x"}, "m.safetensors": folders.tensors()},
        ),
    ]
    for place in places:
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            whole = path.read_bytes()
            for _ in range(6):
                content = bytearray(whole[: chance.randrange(len(whole) + 1)])
                for _ in range(chance.randrange(3)):
                    if content:
                        content[chance.randrange(len(content))] = chance.randrange(256)
                path.write_bytes(content)
                code, out, err = inspect(capsys, place, "--json")
                assert code in (0, 4), (path, err)
                assert json.loads(out)["ok"] is (code == 0)
            path.write_bytes(whole)


def test_what_may_not_be_seen_is_not_said_to_be_absent(tmp_path, capsys):
    folder = tmp_path / "closed"
    folders.new_engine(folder / "engine")
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may see everything
        os.seteuid(65534)
    try:
        code, _, err = inspect(capsys, folder / "engine")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert code == 3
    assert "Permission denied" in err
