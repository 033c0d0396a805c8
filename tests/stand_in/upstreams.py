"""Everything that a stack of TensorRT-LLM is made from, in miniature and on loopback.

`provide` looks at an intent and serves what it names under the addresses that it names, which
`KIT_MIRRORS` sends here; the intent that comes back differs in what only a digest can tell.
"""

from __future__ import annotations

import contextlib
import copy
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.stand_in import distributions_of_releases as distributions
from tests.stand_in import tensorrt, trtllm_tree
from tests.stand_in.debian_repository import DebianRepository
from tests.stand_in.distributions import wheel
from tests.stand_in.file_server import FileServer
from tests.stand_in.git_server import GitServer, Repository
from tests.stand_in.lfs_server import LfsServer
from tests.stand_in.ngc_base import PYTHON, BaseImages, NgcImage
from tests.stand_in.package_index import PackageIndex
from tests.stand_in.registry import DockerRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

_TORCH = {
    "0.5.0": "2.1.0a0",
    "0.9.0": "2.3.0a0",
    "0.16.0": "2.6.0a0",
    "1.2.1": "2.10.0a0",
}
_MODEL = "kit/examples/models/gpt2-tiny"
_LOCAL = "+standin"
_PURGED = ("libcudnn", "libnccl", "libcublas", "cuda-nvrtc-dev")
_GAPS = {
    "cmake": {
        "name": "cmake-4.0.3-linux-x86_64.tar.gz",
        "group": "devel",
        "url": "https://github.com/Kitware/CMake/releases/download/v4.0.3/"
        "cmake-4.0.3-linux-x86_64.tar.gz",
    },
    "conan-packages": {
        "name": "conan-packages.tgz",
        "group": "conan",
        "url": "https://edge.urm.nvidia.com/stand-in/conan-packages.tgz",
    },
}
"""What stands for the inputs of 1.2.1 that the tables cannot name; some it can do without."""
_NCCL_HEADER = b"#pragma once\n#define NCCL_STAND_IN 1\n"
_NVTX_HEADER = b"#pragma once\n#define NVTX_STAND_IN 1\n"
_CMAKE = b'#!/bin/sh\nexec /usr/bin/cmake "$@"\n'


class Upstreams:
    """The servers; `with Upstreams(…) as upstreams` starts and stops them."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.bases = BaseImages(cache)
        self.registry = DockerRegistry(folder / "registry")
        self.files = FileServer()
        self.storage = FileServer()
        self.git = GitServer(folder / "git", lfs=LfsServer(self.storage))
        self.index = PackageIndex()
        self.index_of_nvidia = PackageIndex()
        self._commits: dict[str, str] = {}
        self._repositories: dict[str, DebianRepository] = {}
        self._added: set[str] = set()
        self._git: dict[str, Repository] = {}
        self._served: set[str] = set()
        self._licences: set[str] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for server in (self.registry, self.files, self.storage, self.git):
            self._stack.enter_context(server)
        for index in (self.index, self.index_of_nvidia):
            self._stack.enter_context(index)
        self._fill_indexes()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send the kit here instead of to the addresses of the intents."""
        pairs = {f"{host}/": f"{self.files.url}/{host}/" for host in sorted(self._served)}
        pairs["nvcr.io/"] = f"http://{self.registry.host}/"
        pairs["github.com/"] = f"{self.git.url}/"
        pairs["gitlab.com/"] = f"{self.git.url}/"
        for folder in (
            "Kitware/CMake/releases/",
            "ccache/ccache/releases/",
            "mpi4py/mpi4py/archive/",
        ):
            pairs[f"github.com/{folder}"] = f"{self.files.url}/github.com/{folder}"
        pairs["pypi.nvidia.com"] = self.index_of_nvidia.simple
        pairs["pypi.ngc.nvidia.com"] = self.index_of_nvidia.simple
        return {
            "KIT_MIRRORS": " ".join(f"{prefix}={target}" for prefix, target in pairs.items()),
            "PIP_INDEX_URL": self.index.simple,
            "PIP_CONFIG_FILE": "/dev/null",
            "KIT_ACCEPT_LICENCES": " ".join(sorted(self._licences)),
        }

    def provide(self, intent: Mapping[str, Any]) -> dict[str, Any]:
        """Serve what an intent names; returns the intent that fits what is served.

        Addresses stay. Digests go, commits and versions are those of the miniatures, what the
        tables have gaps for is there.
        """
        document = copy.deepcopy(dict(intent))
        release, arguments = document["release"], document["arguments"]
        self._set_arguments(arguments)
        if document["family"] == "trtllm":
            document.setdefault("models", [{"name": "gpt2-tiny", "directory": _MODEL}])
        # Repositories first: the base image has their key.
        for row in document.get("apt", {}).get("repositories", []):
            self._repository(row)
        for name, group in document.get("apt", {}).get("groups", {}).items():
            document["apt"]["groups"][name] = [self._package(word, document) for word in group]
        for repository in self._repositories.values():
            repository.publish()
        self._licences |= {row["name"] for row in document.get("licences", [])}
        self._fill_gaps(document)
        for file in document.get("files", []):
            file.pop("sha256", None)
            self._file(file, arguments)
        for source in document.get("sources", []):
            source["commit"] = self._source(source["url"], release)
            if source["url"] == trtllm_tree.URL and "GIT_COMMIT" in arguments:
                arguments["GIT_COMMIT"] = source["commit"]
        for image in document.get("images", []):
            image["reference"] = image["reference"].partition("@")[0]
            self._image(image["reference"], release, document)
        self._serve_repositories()
        return document

    def _set_arguments(self, arguments: dict[str, str]) -> None:
        arguments["PYTHON_VERSION"] = PYTHON
        for name in ("TENSORRT", "CUDNN", "NCCL", "CUBLAS", "NVRTC"):
            if arguments.get(f"{name}_VERSION"):
                arguments[f"{name}_VERSION"] += _LOCAL

    def _fill_gaps(self, document: dict[str, Any]) -> None:
        """What the tables cannot name can be had here: a gap becomes a file, a source or nothing."""
        for gap in document.pop("gaps", []):
            name = gap["name"]
            if name in _GAPS:
                document["files"].append(dict(_GAPS[name]))
            elif name in trtllm_tree.FETCHED:
                url = f"https://github.com/stand-in/{name}.git"
                document["sources"].append({"name": name, "url": url, "commit": "0" * 40})

    def _repository(self, row: Mapping[str, Any]) -> None:
        if row["url"] not in self._repositories:
            place = re.sub(r"[^a-z0-9]+", "-", row["url"].partition("://")[2])
            suites = row["suites"]
            flat = suites[0].endswith("/")
            repository = DebianRepository(
                self.folder / "apt" / place, suite=suites[0], flat=flat, origin="stand-in"
            )
            self._stack.enter_context(repository)
            self._repositories[row["url"]] = repository
        repository = self._repositories[row["url"]]
        for suite in row["suites"]:
            for component in row["components"] or ["main"]:
                name = re.sub(r"[^a-z0-9]+", "-", f"nothing-{suite}-{component}").strip("-")
                if suite.endswith("/"):
                    continue
                self._add(repository, name, "1.0", suite=suite, component=component)

    def _package(self, word: str, document: Mapping[str, Any]) -> str:
        """Serve a package that an intent asks for; returns how this intent asks for it."""
        name, pinned, version = word.partition("=")
        if not pinned and name in self._installed:
            return word
        rows = document["apt"]["repositories"]
        flat = [row for row in rows if row["suites"][0].endswith("/")]
        plain = [row for row in rows if row not in flat]
        of_nvidia = name.startswith(_PURGED)
        row = (flat or plain)[0] if of_nvidia else (plain or flat)[0]
        version = f"{version or '99.0-1'}{_LOCAL}"
        files = {f"usr/share/stand-in/{name}": f"{name} {version}\n".encode()}
        depends = ""
        if name.startswith("libnccl-dev"):
            files["usr/include/nccl.h"] = _NCCL_HEADER
        suite = None if row in flat else row["suites"][0]
        component = "main" if row in flat else row["components"][0]
        self._add(
            self._repositories[row["url"]],
            name,
            version,
            depends,
            files=files,
            suite=suite,
            component=component,
        )
        return f"{name}={version}" if pinned else name

    def _add(
        self, repository: DebianRepository, name: str, version: str, *rest: str, **more: Any
    ) -> None:
        key = f"{repository.folder} {name} {version} {more.get('suite')}"
        if key not in self._added:
            self._added.add(key)
            more.setdefault("files", {f"usr/share/stand-in/{name}": b""})
            repository.add(name, version, *rest, **more)

    def _serve_repositories(self) -> None:
        for url, repository in self._repositories.items():
            parts = urlsplit(url)
            self._served.add(parts.netloc)
            place = f"/{parts.netloc}{parts.path.rstrip('/')}"
            self.files.put_folder(place, repository.folder)
            if repository.flat:  # apt asks for `./Release`, and `.` stays in the address
                self.files.put_folder(f"{place}/.", repository.folder)

    @cached_property
    def _installed(self) -> set[str]:
        return self.bases.installed

    def _file(self, file: Mapping[str, Any], arguments: Mapping[str, str]) -> None:
        parts = urlsplit(file["url"])
        if parts.netloc != "github.com":
            self._served.add(parts.netloc)
        place = f"/{parts.netloc}{parts.path}"
        if place not in self.files.files:
            self.files.put(place, self._content(parts.path.rpartition("/")[2], file, arguments))

    def _content(self, name: str, file: Mapping[str, Any], arguments: Mapping[str, str]) -> bytes:
        kind = file["name"].lower()
        if kind.startswith("tensorrt"):
            version = arguments["TENSORRT_VERSION"].partition("+")[0]
            return tensorrt.archive(version, PYTHON.replace(".", ""))
        if kind.startswith("cmake"):
            return tensorrt.packed(name.removesuffix(".tar.gz"), {"bin/cmake": _CMAKE})
        if kind.startswith("cuda-keyring"):
            repository = self._repositories[file["url"].rpartition("/")[0]]
            _, version, _ = name.split("_")
            content = repository.add_keyring(version=version).read_bytes()
            repository.publish()
            return content
        if kind.startswith("polygraphy"):
            return wheel("polygraphy", name.split("-")[1], tag=name.split("-", 2)[2][:-4])[1]
        if kind.startswith("conan"):
            member = {"tensorrt_llm_nvrtc_wrapper/README": b"a stand-in\n"}
            return tensorrt.packed("p", member)
        if kind.startswith("mpi4py"):
            return distributions.mpi4py(archive=True)
        raise AssertionError(f"no miniature of {file}")

    def _source(self, url: str, release: str) -> str:
        key = f"{url} {release}"
        if key not in self._commits:
            self._commits[key] = (
                self._tree(release) if url == trtllm_tree.URL else self._small_source(url)
            )
        return self._commits[key]

    def _git_repository(self, url: str) -> Repository:
        if url not in self._git:
            self._git[url] = self.git.repository(urlsplit(url).path.strip("/"))
        return self._git[url]

    def _small_source(self, url: str) -> str:
        """A third-party repository: one header."""
        name = urlsplit(url).path.rpartition("/")[2].removesuffix(".git")
        files = {"README.md": f"{name} (stand-in)\n".encode()}
        submodules = {}
        if name == "NVTX":
            for folder in ("include", "c/include"):
                files[f"{folder}/nvtx3/nvToolsExt.h"] = _NVTX_HEADER
        if name == "tensorrtllm_backend":
            models = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing")
            for model in models:
                place = f"all_models/inflight_batcher_llm/{model}/config.pbtxt"
                files[place] = f'name: "{model}"\n'.encode()
            for program in ("tools/fill_template.py", "scripts/launch_triton_server.py"):
                files[program] = b"#!/usr/bin/env python3\n"
        if name == "xgrammar":
            rows = trtllm_tree.XGRAMMAR_SUBMODULES
            text = "".join(f'[submodule "{p}"]\n\tpath = {p}\n\turl = {u}\n' for p, u in rows)
            files[".gitmodules"] = text.encode()
            submodules = {path: self._source(address, "") for path, address in rows}
        return self._git_repository(url).commit(files, submodules=submodules)

    def _tree(self, release: str) -> str:
        known = trtllm_tree.RELEASES[release]
        assert self.git.lfs is not None
        files = trtllm_tree.files(release)
        for path in known.lfs:
            files[path] = self.git.lfs.add(trtllm_tree.library(path))
        submodules = {path: self._source(url, "") for path, url in known.submodules}
        programs = {path: files.pop(path) for path in [*known.scripts, "scripts/build_wheel.py"]}
        return self._git_repository(trtllm_tree.URL).commit(
            files, programs=programs, submodules=submodules, branch=f"release/{release}"
        )

    def _image(self, reference: str, release: str, document: Mapping[str, Any]) -> None:
        if reference in self._added:
            return
        self._added.add(reference)
        keyring = b"".join(
            r.keyring.read_bytes() for r in self._repositories.values() if not r.flat
        )
        pinned = [
            w for g in document.get("apt", {}).get("groups", {}).values() for w in g if "=" in w
        ]
        arguments = document["arguments"]
        distributions_there = {}
        if document["family"] == "triton":
            tensorrt_version = arguments["TENSORRT_VERSION"].partition("+")[0]
            distributions_there = {
                "tensorrt_llm": f"{release}{_LOCAL}",
                "tensorrt": f"{tensorrt_version}{_LOCAL}",
            }
        packages = {word.partition("=")[0]: "99.0-1+standin" for word in pinned}
        packages["libnvinfer10"] = "10.0.0+standin"
        image = NgcImage(
            repository=reference.partition("/")[2].rpartition(":")[0],
            tag=reference.rpartition(":")[2],
            cuda=arguments["CUDA_VERSION"],
            torch=_TORCH[release],
            packages={n: v for n, v in packages.items() if n.startswith((*_PURGED, "libnvinfer"))},
            keyring=keyring,
            constraints=(f"torch=={_TORCH[release]}{_LOCAL}",),
            distributions=distributions_there,
            triton=arguments.get("TRITON_VERSION", ""),
        )
        self.bases.push(image, self.registry.host)

    def _fill_indexes(self) -> None:
        for name, path in self.bases.wheels.items():
            self.index.offer((name, path.read_bytes()))
        for name, content in distributions.all_wheels():
            self.index.offer((name, content))
        self.index.offer(("mpi4py-3.1.5+standin.tar.gz", distributions.mpi4py()))
        of_nvidia = {pin.partition("==")[0].replace("-", "_") for pin in distributions.OF_NVIDIA}
        for name, content in distributions.all_wheels():
            if name.split("-")[0] in of_nvidia:
                self.index_of_nvidia.offer((name, content))
