"""Docker: everything through its API, the build through the BuildKit of its command line."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import environment_error
from kit.images import cdi, process
from kit.images.confinement import handed_over, user_arguments
from kit.images.ledger import Ledger
from kit.images.oci import archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import DockerClient

    from kit.images.engine import BuildRequest, Gpus, RunRequest
    from kit.images.oci import Image

_SOCKET = Path("/var/run/docker.sock")
_PATIENCE = 10
"""Seconds until a socket that does not answer counts as no daemon."""
_TIMEOUT = 3600
"""Seconds without a byte from the daemon: building and loading of large images are slow."""


@dataclass(frozen=True, slots=True)
class _Passed:
    """What makes GPUs visible in a container."""

    requests: list[Any] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    mounts: list[Any] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


class Docker:
    """A reachable Docker daemon."""

    name = "docker"

    def __init__(self, client: DockerClient, address: str, home: Path) -> None:
        self._client = client
        self._address = address
        self._ledger = Ledger(home / "engines" / "docker-containers")

    @classmethod
    def reach(cls, home: Path) -> Docker | None:
        """Connect to the daemon that DOCKER_HOST names, else to the usual socket; or None."""
        if "DOCKER_HOST" not in os.environ and not _SOCKET.exists():
            return None
        return cls.reach_at(None, home)

    @classmethod
    def reach_at(cls, address: str | None, home: Path) -> Docker | None:
        """Connect to the daemon at an address, by default the environment's; None if none."""
        import docker
        from docker.errors import DockerException
        from docker.utils import kwargs_from_env

        address = address or os.environ.get("DOCKER_HOST") or f"unix://{_SOCKET}"
        try:
            options = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": address})
            docker.DockerClient(timeout=_PATIENCE, **options).ping()
            client = docker.DockerClient(timeout=_TIMEOUT, **options)
        except (DockerException, OSError):
            return None
        return cls(client, address, home)

    def version(self) -> str:
        """The daemon's version."""
        with _explained("version"):
            return str(self._client.version()["Version"])

    def has(self, reference: str) -> bool:
        """Whether storage has the image."""
        from docker.errors import ImageNotFound

        with _explained("inspect image"):
            try:
                self._client.images.get(reference)
            except ImageNotFound:
                return False
            return True

    def load(self, image: Image, name: str) -> str:
        """Load what the daemon lacks; returns the image's id.

        A daemon that keeps layers by diff id takes an archive without those it has; one that
        keeps blobs wants all of them.
        """
        image = image.in_oci_form()
        wanted = {str(image.image_id), str(image.manifest_digest)}
        answers: list[str] = []
        for skipped in dict.fromkeys([self._present(image), frozenset()]):
            with _explained("load"):
                loading: Any = self._client.api
                chunks = archive(image, name, skip=skipped)
                answers += [str(answer) for answer in loading.load_image(chunks)]
            # The name may still be that of an older image.
            if self.has(name) and (found := str(self._client.images.get(name).id)) in wanted:
                return found
        raise environment_error(f"docker load of {name} failed: {' '.join(answers[-3:])}")

    def build(self, context: Path, dockerfile: Path, request: BuildRequest) -> None:
        """`docker build` with BuildKit and network none; finished steps stay cached."""
        argv = [_buildkit(), "build", "--network=none", "--progress=plain", "--tag", request.tag]
        argv += ["--target", request.target, *(["--no-cache"] if request.fresh else [])]
        # The client hands proxies of its own configuration to every build, logins and all.
        proxies = [f"{name}_proxy" for name in ("http", "https", "ftp", "all", "no")]
        blank = dict.fromkeys([*proxies, *map(str.upper, proxies)], "")
        for key, value in {**blank, **request.arguments}.items():
            argv += ["--build-arg", f"{key}={value}"]
        argv += ["--file", str(dockerfile), str(context)]
        environment = {
            "DOCKER_HOST": self._address,
            "DOCKER_BUILDKIT": "1",
            "BUILDX_BUILDER": "default",
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        }
        code, tail = process.stream(argv, request.log, environment)
        if code != 0:
            self.version()  # a daemon that is gone says so, and not the build
            raise request.failed(code, tail)

    def inspect(self, reference: str) -> dict[str, Any]:
        """What `docker image inspect` says."""
        with _explained("inspect image"):
            attributes: dict[str, Any] = self._client.images.get(reference).attrs
            return attributes

    def save(self, reference: str) -> Iterator[bytes]:
        """The image as a docker-archive stream."""
        with _explained("save"):
            yield from self._client.images.get(reference).save(named=False)

    def run(self, request: RunRequest, on_line: Callable[[str], None]) -> int:
        """Create, start, follow and remove a closed container."""
        from docker.types import LogConfig

        user, is_root = user_arguments()
        with (
            _explained("run"),
            self._ledger.container(self._remove_container) as name,
            handed_over(request, active=is_root and request.node is None),
        ):
            passed = self._devices(request.gpus)
            container = self._client.containers.create(
                request.image,
                command=list(request.argv[1:]),
                entrypoint=[request.argv[0]],
                name=name,
                network_mode="none" if request.node is None else "host",
                hostname=request.node,
                log_config=LogConfig(type=LogConfig.types.NONE),
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges", "label=disable"],
                use_config_proxy=False,
                tmpfs={"/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108
                user=user,
                shm_size=request.shm_bytes,
                working_dir=request.workdir,
                environment=passed.environment | dict(request.environment),
                mounts=[
                    *passed.mounts,
                    *[_mount(m.target, str(m.source), m.writable) for m in request.mounts],
                ],
                device_requests=passed.requests,
                devices=passed.nodes,
            )
            try:
                # Attached before the start: reading the log while it is written can lose its end.
                output = container.attach(stdout=True, stderr=True, stream=True)
                container.start()
                for line in _lines(output):
                    on_line(line)
                return int(container.wait()["StatusCode"])
            finally:
                self._remove_container(name)

    def remove(self, reference: str) -> None:
        """Untag or delete an image."""
        from docker.errors import ImageNotFound

        with _explained("remove image"), contextlib.suppress(ImageNotFound):
            self._client.images.remove(reference, force=True)

    def _devices(self, gpus: Gpus) -> _Passed:
        """GPUs the way this daemon can: NVIDIA's runtime, CDI, or the parts of a CDI document."""
        from docker.types import DeviceRequest

        if not gpus:
            return _Passed()
        cdi.check(list(gpus.devices))
        wanted = ["all"] if gpus.all else list(gpus.devices)
        information = self._client.info()
        if "nvidia" in information.get("Runtimes", {}):
            chosen = {"count": -1} if gpus.all else {"device_ids": wanted}
            return _Passed(requests=[DeviceRequest(capabilities=[["gpu"]], **chosen)])
        if information.get("CDISpecDirs") and cdi.is_specified():
            names = [f"{cdi.KIND}={name}" for name in wanted]
            return _Passed(requests=[DeviceRequest(driver="cdi", device_ids=names)])
        edits = cdi.edits(wanted)
        return _Passed(
            nodes=[f"{node}:{node}:rwm" for node in edits.nodes],
            mounts=[_mount(target, source, False) for target, source in edits.mounts],
            environment=dict(edits.environment),
        )

    def _remove_container(self, name: str) -> None:
        """Remove a container if it is there; what a dead daemon keeps, the ledger remembers."""
        import requests
        from docker.errors import DockerException

        with contextlib.suppress(DockerException, requests.exceptions.RequestException):
            self._client.api.remove_container(name, force=True)

    def _present(self, image: Image) -> frozenset[Any]:
        """Layers of images that the daemon has, as far as they are the first layers of this one."""
        from docker.errors import ImageNotFound

        chain = [str(layer.diff_id) for layer in image.layers]
        known = 0
        with _explained("list images"):
            client: Any = self._client.api
            for listed in client.images():
                try:
                    other = client.inspect_image(listed["Id"])
                except ImageNotFound:  # somebody else has removed it since it was listed
                    continue
                layers = other.get("RootFS", {}).get("Layers") or []
                same = 0
                for mine, theirs in zip(chain, layers, strict=False):
                    if mine != theirs:
                        break
                    same += 1
                known = max(known, same)
        # The same layer may stand once more above those that are there.
        later = {layer.digest for layer in image.layers[known:]}
        return frozenset(layer.digest for layer in image.layers[:known]) - later


@contextlib.contextmanager
def _explained(action: str) -> Iterator[None]:
    """Turn what the API raises into one error of the environment."""
    import requests
    import urllib3
    from docker.errors import DockerException

    try:
        yield
    except (
        DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    ) as error:
        text = getattr(error, "explanation", None) or str(error) or type(error).__name__
        raise environment_error(f"docker {action} failed: {text}", hint="docker info") from error


@functools.cache
def _buildkit() -> str:
    """A `docker` command that builds with BuildKit: newer ones need the buildx plugin for it."""
    tried = []
    for folder in os.get_exec_path():
        found = shutil.which("docker", path=folder)
        if found is None or found in tried:
            continue
        tried.append(found)
        version = process.capture([found, "--version"]).stdout
        digits = "".join(c for c in version.partition("version ")[2] if c.isdigit() or c == ".")
        is_old = digits.partition(".")[0].isdecimal() and int(digits.partition(".")[0]) < 23
        if is_old or process.capture([found, "buildx", "version"]).returncode == 0:
            return found
    raise environment_error(
        f"no docker command builds with BuildKit (on PATH: {', '.join(tried) or 'none'})",
        hint="install the docker-buildx plugin, or use Podman: KIT_ENGINE=podman",
    )


def _mount(target: str, source: str, writable: bool) -> Any:
    from docker.types import Mount

    return Mount(target, source, type="bind", read_only=not writable)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
