from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import jsonschema
import pytest

from kit.errors import ExitCode, KitError
from kit.examples import execution, recipe
from kit.examples.recipe import Run
from kit.manifests import record
from kit.manifests.diff import diff
from kit.manifests.verify import verify
from tests.unit.examples.local import MODEL, RELEASES, ROOT, Site, make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.images.engine import RunRequest
    from kit.manifests.record import Manifest

PROMPTS = recipe.find("gpt2-tiny").run.prompts


@dataclasses.dataclass
class Finished:
    """One run of every release in one project."""

    site: Site
    paths: dict[str, Path]
    manifests: dict[str, Manifest]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    site = Site.make(tmp_path_factory.mktemp("finished"))
    paths = {release: site.run(release=release) for release in RELEASES}
    return Finished(site, paths, {release: record.read(path) for release, path in paths.items()})


@pytest.mark.parametrize("release", RELEASES)
def test_run_leaves_a_whole_folder_that_verifies(finished: Finished, release: str) -> None:
    project, path = finished.site.project, finished.paths[release]
    manifest = finished.manifests[release]
    assert path.parent.parent == project.root / "runs" / "gpt2-tiny" / release
    assert manifest.release == release
    assert [output.prompt for output in manifest.outputs] == list(PROMPTS)
    assert all(output.text and 0 < len(output.token_ids) <= 24 for output in manifest.outputs)
    assert {file.path for file in manifest.model.files} == {p.name for p in MODEL.iterdir()}
    assert manifest.select("engine")
    assert manifest.select("checkpoint")
    assert not list(path.parent.rglob(".step.json"))
    assert not [p for p in path.parent.parent.iterdir() if p.name.startswith(".run-")]
    result = verify(project, path)
    assert result.ok, result.text()


def test_releases_agree_on_the_text(finished: Finished) -> None:
    texts = [[o.text for o in manifest.outputs] for manifest in finished.manifests.values()]
    assert texts[0] == texts[1] == texts[2]


def test_text_is_what_the_tokenizer_library_decodes(finished: Finished) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for output in finished.manifests["0.16.0"].outputs:
        assert tokenizer.encode(output.prompt).ids == list(output.prompt_token_ids or ())
        assert tokenizer.decode(list(output.token_ids)) == output.text


def test_measurements_are_those_of_the_command(finished: Finished) -> None:
    for command in finished.manifests["0.16.0"].commands:
        assert command.exit_code == 0
        assert 0.01 < command.seconds < 60
        assert 10 << 20 < command.peak_memory_bytes < 2 << 30
        assert "launcher" not in " ".join(command.argv)


def test_nothing_of_the_host_is_recorded(finished: Finished) -> None:
    text = finished.paths["0.16.0"].read_text()
    for secret in (str(finished.site.project.root), str(ROOT), os.uname().nodename, "PYTHONPATH"):
        assert secret not in text


@pytest.mark.parametrize("release", RELEASES)
def test_manifest_keeps_the_published_schema(finished: Finished, release: str) -> None:
    published = json.loads(record.PUBLISHED.read_bytes())
    jsonschema.validate(json.loads(finished.paths[release].read_bytes()), published)


def test_every_step_gets_a_closed_request(finished: Finished) -> None:
    probe, *steps = finished.site.engine.requests[:6]
    assert [mount.writable for mount in probe.mounts] == [False]
    for request in steps:
        assert [m.target for m in request.mounts if m.writable] == ["/kit/work"]
        assert request.workdir == "/opt/tensorrt_llm/0.5.0"
        assert request.image == finished.site.image.image_id.hex


def test_second_run_is_quick_and_probes_nothing(finished: Finished) -> None:
    site = finished.site
    before = len(site.engine.requests)
    start = time.monotonic()
    manifest = record.read(site.run())
    spent = time.monotonic() - start - sum(command.seconds for command in manifest.commands)
    assert len(site.engine.requests) == before + 3
    # 0.3 s are the kit's; this engine's share is the start of three launchers.
    assert spent < 0.3 + 3 * 0.15


def test_failing_step_is_explained_and_its_logs_are_kept(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    good = recipe.find("gpt2-tiny")
    bad = dataclasses.replace(good, run=Run(("Alice " * 200,), 24, None))
    with pytest.raises(KitError) as caught:
        site.run(bad)
    error = caught.value
    assert error.exit_code == ExitCode.CONTENT
    assert str(error).startswith("step run ended with exit code")
    place = site.project.root / "runs" / "gpt2-tiny" / "0.16.0"
    (kept,) = (p for p in place.iterdir() if not p.name.startswith("."))
    assert kept.name.endswith("-1-failed")
    log = kept / "logs" / "run.log"
    assert str(log) in str(error)
    last = log.read_text().splitlines()[-1]
    assert last in str(error)
    assert f"[run] {last}" in capsys.readouterr().err
    assert {p.name for p in (kept / "logs").iterdir()} == {"convert.log", "build.log", "run.log"}


def test_unknown_release_names_those_of_the_image(site: Site) -> None:
    with pytest.raises(KitError, match=r"does not hold release 0\.16\.1.*0\.16\.0") as caught:
        site.run(release="0.16.1")
    assert caught.value.exit_code == ExitCode.USAGE


def test_image_without_a_root_is_refused(site: Site) -> None:
    site.image = make_image(site.project, **{"org.trtllm-kit.root": "elsewhere"})
    with pytest.raises(KitError, match="expected an absolute path"):
        site.run()


def test_a_failure_names_the_whole_command_line(site: Site, tmp_path: Path) -> None:
    (site.engine.tree / "0.16.0" / "bin" / "trtllm-build").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(KitError) as caught:
        site.run(output=tmp_path / "my runs", gpus="0,1")
    assert caught.value.hint == (
        "kit run gpt2-tiny --stack rehearsal --release 0.16.0 --gpus 0,1 "
        f"--output '{tmp_path}/my runs' --resume"
    )


def test_gpus_that_were_asked_for_are_recorded(site: Site) -> None:
    assert record.read(site.run()).gpus == "none"
    assert record.read(site.run(gpus="0,1")).gpus == "0,1"
    assert {str(request.gpus) for request in site.engine.requests[-3:]} == {"0,1"}


def test_any_user_can_read_what_is_mounted_whatever_the_umask(site: Site) -> None:
    before = os.umask(0o077)
    try:
        path = site.run()
    finally:
        os.umask(before)
    assert verify(site.project, path).ok
    sources = {m.source for r in site.engine.requests for m in r.mounts if not m.writable}
    assert len(sources) == 3  # the probe, the launcher, the model
    for source in sources:
        assert site.project.home in source.parents
        for item in (source, *source.rglob("*")):
            wanted = 0o005 if item.is_dir() else 0o004
            assert item.stat().st_mode & 0o007 == wanted, item
    assert path.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "3", "null", "[" * 4000, '{"seconds": "1", "peak_memory_bytes": 1}',
        '{"seconds": 1.0}', '{"seconds": 1.0, "peak_memory_bytes": true}',
        '{"seconds": NaN, "peak_memory_bytes": 1}', '{"seconds": Infinity, "peak_memory_bytes": 1}',
        '{"seconds": -1.0, "peak_memory_bytes": 1}', '{"seconds": 1.0, "peak_memory_bytes": -1}',
        f'{{"seconds": 1.0, "peak_memory_bytes": {"9" * 4000}}}',
    ],
)  # fmt: skip
def test_a_report_of_another_shape_is_no_measurement(tmp_path: Path, content: str) -> None:
    report = tmp_path / ".step.json"
    report.write_text(content)
    assert execution.measurements(report) is None


def test_a_command_that_spoils_its_report_fails(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = site.engine.run

    def spoil(request: RunRequest, on_line: Callable[[str], None]) -> int:
        code = run(request, on_line)
        for mount in request.mounts:
            if mount.writable:
                (mount.source / ".step.json").write_text("[]")
        return code

    monkeypatch.setattr(site.engine, "run", spoil)
    with pytest.raises(KitError, match="step convert left no measurements") as caught:
        site.run()
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 0", "step build ended well but wrote nothing to /kit/work/engine"),
        ("exit 3", "step build ended with exit code 3\n"),
        ("kill -9 $$", "exit code 137 (killed, out of memory perhaps)"),
    ],
)
def test_misbehaving_build_fails(site: Site, script: str, message: str) -> None:
    (site.engine.tree / "0.16.0" / "bin" / "trtllm-build").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(KitError) as caught:
        site.run()
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_link_among_the_results_is_refused(site: Site) -> None:
    script = site.engine.tree / "0.16.0" / "bin" / "trtllm-build"
    real = script.read_text()
    script.with_name("real-build").write_text(real)
    script.write_text(
        "#!/usr/bin/env python3\n"
        "import os, subprocess, sys\n"
        "code = subprocess.call([sys.executable, os.path.dirname(__file__) + '/real-build', *sys.argv[1:]])\n"
        "os.symlink('/etc/passwd', sys.argv[sys.argv.index('--output_dir') + 1] + '/extra')\n"
        "raise SystemExit(code)\n"
    )
    with pytest.raises(KitError, match="regular files") as caught:
        site.run()
    assert caught.value.exit_code == ExitCode.CONTENT
    assert list((site.project.root / "runs").rglob("*-failed/logs/build.log"))


def test_killed_run_leaves_nothing_visible_and_the_next_run_cleans_up(
    site: Site, tmp_path: Path
) -> None:
    script = site.engine.tree / "0.16.0" / "bin" / "trtllm-build"
    real = script.read_text()
    script.write_text("#!/bin/sh\necho started; exec sleep 60\n")
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.unit.examples.local import LocalEngine, Site, make_image\n"
        "from kit.project import Project\n"
        f"base = Path({str(tmp_path)!r})\n"
        "project = Project(base / 'project', base / 'home')\n"
        "engine = LocalEngine.__new__(LocalEngine)\n"
        "engine.tree, engine.requests, engine.name = base / 'tree', [], 'local'\n"
        "Site(project, engine, make_image(project)).run()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "started" in line:
            break
    place = site.project.root / "runs" / "gpt2-tiny" / "0.16.0"
    # Still at work: the next run of the example leaves its folder alone.
    site.run(release="0.9.0")
    assert len(list(place.glob(".run-*"))) == 1
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not [p for p in place.iterdir() if not p.name.startswith(".")]
    assert len(list(place.glob(".run-*"))) == 1
    script.write_text(real)
    site.run()
    assert not list(place.glob(".run-*"))


def test_manifests_of_the_same_inputs_differ_in_what_is_volatile_only(finished: Finished) -> None:
    again = record.read(finished.site.run())
    result = diff(finished.manifests["0.16.0"], again)
    assert result.ok, result.text()
    assert {item.part for item in result.volatile} >= {"measurements"}
    assert "same inputs" in result.text()
