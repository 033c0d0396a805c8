from __future__ import annotations

import pytest
from packageurl import PackageURL

from kit.digest import Digest
from kit.locks.lock import Input, Kind
from kit.manifests import purl

COMMIT = "42a7b0922fc9e095f173eab9a7efa0bcdceadd0d"


def made(kind: Kind, name: str, version: str, file: str, location: str) -> Input:
    return Input(kind, "group", name, version, file, location, Digest.of_bytes(b""), 1)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            made("deb", "bash", "5.2.15-2+b13", "bash_5.2.15-2+b13_amd64.deb", "pool/main/b.deb"),
            "pkg:deb/debian/bash@5.2.15-2%2Bb13?arch=amd64",
        ),
        (
            made(
                *("deb", "libc6", "1:2.35", "libc6_2.35_all.deb"),
                "http://archive.ubuntu.example/ubuntu/pool/libc6.deb",
            ),
            "pkg:deb/ubuntu/libc6@1:2.35?arch=all",
        ),
        (
            made("wheel", "PyYAML", "6.0.2", "PyYAML-6.0.2-cp311.whl", ""),
            "pkg:pypi/pyyaml@6.0.2?file_name=PyYAML-6.0.2-cp311.whl",
        ),
        (
            made("sdist", "zope.interface", "1+local", "z-1.tar.gz", ""),
            "pkg:pypi/zope-interface@1%2Blocal?file_name=z-1.tar.gz",
        ),
        (
            made(
                "git", "trtllm", COMMIT, "trtllm.tar", "https://github.com/NVIDIA/TensorRT-LLM.git"
            ),
            f"pkg:github/nvidia/tensorrt-llm@{COMMIT}",
        ),
        (
            made("git", "x", COMMIT, "x.tar", "https://git.example.org/a/x.git"),
            f"pkg:generic/x@{COMMIT}?vcs_url=git%2Bhttps://git.example.org/a/x.git%40{COMMIT}",
        ),
        (
            made(
                "oci", "base", "sha256:" + "a" * 64, "blob", "oci:registry.example/nvidia/pytorch"
            ),
            "pkg:oci/pytorch@sha256:"
            + "a" * 64
            + "?repository_url=registry.example/nvidia/pytorch",
        ),
        (
            made("model", "llama", COMMIT, "config.json", f"hf:meta-llama/Llama-2-7b@{COMMIT}"),
            f"pkg:huggingface/meta-llama/Llama-2-7b@{COMMIT}",
        ),
        (made("file", "x.tar", "", "x.tar", "https://example.org/x.tar"), None),
        (made("model", "tiny", "", "config.json", "directory:models/tiny"), None),
    ],
)
def test_package_urls_are_what_their_own_library_writes(item: Input, expected: str | None) -> None:
    found = purl.of_input(item)
    if expected is not None and found is not None:
        assert PackageURL.from_string(found) == PackageURL.from_string(expected)
        assert PackageURL.from_string(found).to_string() == found
    assert (found is None) == (expected is None)
