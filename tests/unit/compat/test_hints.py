"""Every hint of these areas is a command that works as it stands: `kit` itself can parse it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kit.arguments import parser
from kit.artifacts import engine as engine_reader
from kit.compat import facts
from kit.compat.gather import Request, of_gpu, of_stack
from kit.compat.rules import concerned
from kit.compat.verdict import verify
from kit.errors import KitError
from kit.examples import dialect, recipe
from kit.examples.model import materialise
from kit.examples.run import image_plan
from kit.locks import lock as locks
from kit.manifests import record
from kit.store import Store
from tests.unit.compat.test_verdict import (
    PLAN_HEAD,
    engine,
    image,
    lock_file,
    plan_head,
    rehearsal_head,
)
from tests.unit.examples.local import Site, make_image
from tests.unit.manifests.test_record import small

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = f"sha256:{'f' * 64}"


def must_parse(hint: str | None) -> None:
    assert hint
    for line in hint.split("; "):
        program, *words = shlex.split(line)
        assert not [word for word in words if "STACK" in word or "EXAMPLE" in word]
        assert program in ("kit", "rm")
        if program == "kit":
            parser().parse_args(words)


def engines(folder: Path) -> list[Path]:
    tp2: dict[str, Any] = {"version": "0.9.0", "world": (2, 1)}
    bare = folder / "bare"
    bare.mkdir()
    (bare / "rank0.engine").write_bytes(rehearsal_head("0.9.0", 0, 1))
    return [
        bare,
        engine(folder / "old", version=None),
        engine(folder / "rank lacks", **tp2, heads=[PLAN_HEAD]),
        engine(folder / "mixed", **tp2, heads=[PLAN_HEAD, plan_head("10.6.0.1")]),
        engine(folder / "cut", **tp2, heads=[PLAN_HEAD[:20], b""]),
        engine(folder / "swapped", **tp2, heads=[rehearsal_head("0.8.0", r, 2) for r in (1, 0)]),
    ]


@pytest.mark.parametrize("gpus", ["none", "0,1"])
@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("triton", [None, "24.11", "23.11", "24.12-py3"])
def test_of_every_finding(
    tmp_path: Path, gpus: str, with_manifest: bool, with_image: bool, triton: str | None
) -> None:
    seen = set()
    for folder in engines(tmp_path):
        known = facts.Facts(
            release="0.16.0",
            triton=facts.container(triton) if triton else None,
            stack=image(releases=("0.17.0",), manifest_digest=OTHER, tensorrt="10.6.0.26")
            if with_image
            else None,
            engine=engine_reader.look(folder),
            manifest=record.parse({**small(), "gpus": gpus}, "x") if with_manifest else None,
            manifest_path=str(tmp_path / "my runs" / "manifest.json"),
            lock=lock_file(),
            gpu=of_gpu("T4"),
        )
        for rule in concerned(known):
            for finding in rule.check(known):
                if finding.status != "ok":
                    must_parse(finding.hint)
                    seen.add(rule.name)
    wanted = {"engine-release", "engine-files", "tensorrt-ranks", "gpu-release"}
    wanted |= {"image-release", "tensorrt-plan", "lock-image"} if with_image else set()
    wanted |= {"engine-manifest", "lock-manifest"} if with_manifest else set()
    wanted |= {"triton-release"} if triton else set()
    assert seen >= wanted


def _release(**changes: Any) -> Callable[[Site], object]:
    made = dataclasses.replace(recipe.find("gpt2-tiny"), **changes)
    return lambda _site: dialect.commands(made, "0.5.0")


def _without_model_file(site: Site) -> object:
    lock = locks.load(site.project.lock_path("rehearsal"))
    Store(site.project.store).discard(lock.select(kind="model")[0].sha256)
    return site.run()


def _altered_model_file(site: Site) -> object:
    lock = locks.load(site.project.lock_path("rehearsal"))
    path = Store(site.project.store).path(lock.select(kind="model")[0].sha256)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    return materialise(site.project, lock, "gpt2-tiny")


def _failing_build(site: Site) -> object:
    (site.engine.tree / "0.16.0" / "bin" / "trtllm-build").write_text("exit 1\n")
    return site.run(gpus="0", output=site.project.home / "my runs")


def _image(site: Site, **labels: str) -> object:
    made = make_image(site.project, **{f"org.trtllm-kit.{k}": v for k, v in labels.items()})
    return image_plan(made, recipe.find("gpt2-tiny"), "0.16.0")


@pytest.mark.parametrize(
    "fail",
    [
        _release(checkpoint=recipe.Checkpoint("float16", 1, 2)),
        _release(run=recipe.Run(("x",), 1, 7)),
        _release(releases=("0.16.0",)),
        _release(releases=()),
        lambda site: recipe.find("gpt3"),
        lambda site: site.run(dataclasses.replace(recipe.find("gpt2-tiny"), model="other")),
        _without_model_file,
        _altered_model_file,
        _failing_build,
        lambda site: _image(site, releases="0.9.0"),
        lambda site: _image(site, releases=""),
        lambda site: _image(site, root="elsewhere"),
        lambda site: record.locate(Path("nowhere")),
        lambda site: verify(site.project, Request()),
        lambda site: of_stack(site.project, "rehearsal"),
        lambda site: facts.container("latest"),
        lambda site: of_gpu("H1000"),
    ],
)
def test_of_every_error(site: Site, fail: Callable[[Site], object]) -> None:
    with pytest.raises(KitError) as caught:
        fail(site)
    must_parse(caught.value.hint)
