import pytest

from kit.digest import Digest
from kit.locks.intent import Intent, Licence, SourceTree
from kit.locks.lock import Input, Lock
from kit.project import Project


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project", tmp_path / "home")


@pytest.fixture
def intent_of():
    def make(**given):
        return Intent(
            stack="small",
            family="trtllm",
            platform=given.pop("platform", "linux/amd64"),
            epoch=1,
            debian=None,
            python=None,
            files=(),
            models=(),
            **given,
        )

    return make


@pytest.fixture
def lock_of():
    def make(intent, *inputs, **given):
        return Lock("small", intent.digest, tuple(sorted(inputs)), **given)

    return make


def source(name="trtllm", commit="0" * 40, **given):
    return SourceTree(
        name,
        "https://github.com/NVIDIA/TensorRT-LLM.git",
        commit,
        **{"submodules": True, "lfs": ()} | given,
    )


def git(name, version, group="trtllm"):
    digest = Digest.of_bytes(f"{group}{name}{version}".encode())
    return Input(
        "git", group, name, version, f"{group}/{name}.tar", "https://git.example/x", digest, 10
    )


def lfs(path, oid, size, group="trtllm"):
    return Input("lfs", group, path, "", f"lfs/{oid}", "https://git.example/x", Digest(oid), size)


def licence(name):
    return Licence(name, f"https://terms.example/{name}")
