"""L7 by numbers: what NumPy computes of two files, and engines that are a little or far off."""

from __future__ import annotations

import io
import json
import shutil
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes

from kit.cli import run
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.examples import recipe
from kit.examples.options import Options
from kit.manifests import record
from kit.manifests.record import Output
from kit.reproduce import again, arrays, logits, page, side, text
from tests.unit.examples.local import LocalEngine, Site
from tests.unit.reproduce import sides

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.images.engine import RunRequest

TINY = recipe.find("gpt2-tiny")
# Questions that the model is in doubt about: a little turns an answer.
PROMPTS = ("'Curiouser and", "Once upon a time", "Paris", "kit")
EXAMPLE = replace(
    TINY,
    options=Options(gather_logits="all"),
    run=replace(TINY.run, prompts=PROMPTS, max_output_len=40),
)


def write(path: Path, values: Any) -> arrays.Logits:
    np.save(path, values)
    return arrays.read(path)


def softmax(values: Any) -> Any:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


PAIRS = st.integers(0, 10**6).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(
    chosen=PAIRS,
    shape=shapes.array_shapes(min_dims=2, max_dims=3, max_side=6),
    dtype=st.sampled_from(["<f2", "<f4", "<f8"]),
    noise=st.sampled_from([0.0, 1e-4, 0.3]),
)
def test_the_numbers_are_numpys(
    tmp_path_factory: pytest.TempPathFactory, chosen: Any, shape: Any, dtype: str, noise: float
) -> None:
    folder = tmp_path_factory.mktemp("logits")
    one = (chosen.normal(size=shape) * 5).astype(dtype)
    two = (one + chosen.normal(size=shape) * noise).astype(dtype)
    first, second = write(folder / "a.npy", one), write(folder / "b.npy", two)
    found = logits.measured("x", first, second, logits.rows(first, None, None), 0.01)
    a, b = (item.astype(np.float64).reshape(-1, shape[-1]) for item in (one, two))
    gaps = np.abs(a - b)
    assert found.rows == found.of == len(a)
    assert found.largest == pytest.approx(gaps.max(), rel=1e-9)
    assert found.mean == pytest.approx(gaps.mean(), rel=1e-9)
    assert found.scale == pytest.approx(np.abs(a).max())
    p, q = softmax(a), softmax(b)
    divergence = (p * (np.log(p) - np.log(q))).sum(axis=-1)
    assert found.divergence == pytest.approx(divergence.max(), rel=1e-6, abs=1e-12)
    assert found.agreeing == (a.argmax(axis=-1) == b.argmax(axis=-1)).sum()
    assert found.is_good == (gaps.max() <= 0.01 * np.abs(a).max())
    if found.worst is not None:
        place = (found.worst.row, found.worst.token)
        assert (found.worst.recorded, found.worst.found) == (a[place], b[place])


def test_what_is_no_number_is_never_within_bounds(tmp_path: Path) -> None:
    one = np.ones((3, 4), dtype=np.float32)
    for odd in (np.nan, np.inf, -np.inf):
        two = one.copy()
        two[1, 2] = odd
        first, second = write(tmp_path / "a.npy", one), write(tmp_path / "b.npy", two)
        for left, right in ((first, second), (second, first)):
            found = logits.measured("x", left, right, [0, 1, 2], 1.0)
            assert not found.is_good
            assert found.worst is not None
            assert (found.worst.row, found.worst.token) == (1, 2)


def test_of_many_rows_that_differ_those_at_equal_distances_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits, "_NUMBERS_LIMIT", 100)
    one = np.ones((50, 10), dtype=np.float32)
    first, second = write(tmp_path / "a.npy", one), write(tmp_path / "b.npy", one + 1)
    found = logits.measured("x", first, second, range(50), 0.01)
    assert (found.rows, found.of, found.measured) == (50, 50, 10)
    assert "50 of 50 rows compared, 0 have the same bytes, 10 of 50 others were measured" in str(
        found
    )


def test_a_row_that_is_off_is_found_among_many_that_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits, "_NUMBERS_LIMIT", 100)
    one = np.ones((50, 10), dtype=np.float32)
    two = one.copy()
    two[1] = 9
    first, second = write(tmp_path / "a.npy", one), write(tmp_path / "b.npy", two)
    found = logits.measured("x", first, second, range(50), 0.01)
    assert not found.is_good
    assert found.worst is not None
    assert found.worst.row == 1
    assert (found.rows, found.seen.equal, found.measured) == (50, 49, 1)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_whether_a_row_is_finite_is_what_numpy_says(tmp_path: Path, dtype: str) -> None:
    largest = np.finfo(dtype).max
    for value in (1.0, -1.0, 0.0, largest, -largest, np.inf, -np.inf, np.nan, -np.nan):
        found = write(tmp_path / "a.npy", np.array([[1.0, value, 2.0]], dtype=dtype))
        with found.file.open("rb") as stream:
            assert found.is_finite(found.row(stream, 0)) == np.isfinite(value)


def test_the_digest_of_what_is_no_number_is_no_agreement(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([[[1.0, np.nan]]], dtype="<f4"))
    files = {"engine/config.json": sides.CONFIG, logits.CONTEXT: stream.getvalue()}
    one, other = sides.side(tmp_path / "1", files), sides.side(tmp_path / "2", files)
    found = logits.compare(sides.without(one, logits.CONTEXT), other, None)
    assert not found.evidence
    assert "not finite" in found.gaps[0]


def answer(*tokens: int, prompt: tuple[int, ...] | None = ()) -> Output:
    return Output("", prompt, tokens, None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((answer(1, 2, 3),), (answer(1, 2, 3),), [0, 1, 2, 3]),
        ((answer(1, 2, 3),), (answer(1, 9, 3),), [0, 1]),
        ((answer(1, 2, 3),), (answer(9, 2, 3),), [0]),
        ((answer(1),), (answer(1, 2, 3),), [0, 1]),
        ((answer(1, prompt=None),), (answer(2, prompt=None),), []),
        ((answer(1, 2, prompt=None),), (answer(1, 2, prompt=None),), [0, 1, 2]),
        ((answer(1), answer(2)), (answer(1),), []),
        ((), (), []),
    ],
)
def test_answers_are_compared_up_to_the_first_other_token(
    tmp_path: Path, first: Any, second: Any, expected: list[int]
) -> None:
    found = write(tmp_path / "a.npy", np.zeros((1, 4, 2), dtype=np.float32))
    assert logits.rows(found, first, second) == expected


def header(**changes: Any) -> bytes:
    document = {"descr": "<f4", "fortran_order": False, "shape": (2, 2), **changes}
    text_ = repr(document).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text_)) + text_ + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        header()[:-1],
        header() + b"\0",
        header(descr="|O"),
        header(descr=[("a", "<f4")]),
        header(fortran_order=True),
        header(shape=(4,)),
        header(shape=(0, 4)),
        header(shape=(-2, -2)),
        header(shape="22"),
        header(shape=(True, 4)),
        header(more=1),
        header().replace(b"(2, 2)", b"(2, 2"),
        header().replace(b"(2, 2)", b"f(2,2)"),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70000,
        b"\x93NUMPY\x01\x00\x00\x0f" + b"(" * 3840,
    ],
)
def test_what_is_no_file_of_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(KitError) as caught:
        arrays.read(tmp_path / "a.npy")
    assert caught.value.exit_code == ExitCode.CONTENT


@dataclass
class Perturbed(LocalEngine):
    """An engine whose builder is a little off, as another GPU's is: each weight by its share."""

    share: float = 0.0
    seed: int = 3

    def run(self, request: RunRequest, on_line: Callable[[str], None]) -> int:
        code = super().run(request, on_line)
        if self.share and any("trtllm-build" in word for word in request.argv):
            (work,) = [mount.source for mount in request.mounts if mount.writable]
            self.perturb(Path(work) / "engine" / "rank0.engine")
        return code

    def perturb(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        start = 24 + int.from_bytes(content[20:24], "little")
        start += 8 + int.from_bytes(content[start : start + 8], "little")
        weights = np.frombuffer(content[start:], dtype="<f4")
        noise = np.random.default_rng(self.seed).normal(size=weights.shape)
        content[start:] = (weights * (1 + self.share * noise)).astype("<f4").tobytes()
        path.write_bytes(content)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("logits")
    made = Site.make(folder)
    return replace(made, engine=Perturbed(folder / "tree"))


@pytest.fixture(scope="module")
def recorded(site: Site) -> Path:
    return site.run(EXAMPLE)


def made_again(site: Site, recorded: Path, share: float, **more: Any) -> again.Reproduction:
    assert isinstance(site.engine, Perturbed)
    site.engine.share = share
    try:
        return again.reproduce(site.project, site.engine, site.image, recorded, EXAMPLE, **more)
    finally:
        site.engine.share = 0.0


def states(found: again.Reproduction) -> str:
    return "".join(rung.state[0] for rung in found.ladder.rungs)


def test_the_record_has_them_with_digests(recorded: Path) -> None:
    manifest = record.read(recorded)
    (command,) = [item for item in manifest.commands if item.name == "run"]
    assert "--output_logits_npy" in command.argv
    files = {item.path: item for item in manifest.select("output")}
    for name in (logits.CONTEXT, logits.GENERATION):
        assert Digest.of_file(recorded.parent / name).hex == files[name].sha256
    found = arrays.read(recorded.parent / logits.GENERATION)
    assert found.shape[:2] == (len(PROMPTS), 40)


def test_the_same_engine_rests_on_its_logits(site: Site, recorded: Path) -> None:
    found = made_again(site, recorded, 0.0)
    assert states(found) == "ppppppppp"
    rung = found.ladder.rungs[7]
    assert "rests on logits" in rung.reason
    assert "off by 0 at most" in " ".join(rung.evidence)


def test_a_little_off_is_the_same_within_bounds_and_no_more(site: Site, recorded: Path) -> None:
    found = made_again(site, recorded, 0.001)
    assert states(found) == "ppppppfpf"
    assert found.ladder.holds(7)
    assert str(found.ladder.reached) == "L7"
    rung = found.ladder.rungs[7]
    assert rung.reason == "rests on logits, which are within their bounds"
    context, generation = rung.evidence
    assert "bound" in context
    assert "0.01 of the largest logit" in context
    # Rows behind a token that is another one answer to something else, and are left out.
    assert f"of {len(PROMPTS) * 40} rows" not in generation
    written = page.page(found)
    assert "rests on logits" in written.lower()
    assert "KL divergence" in written


def test_far_off_is_not_the_same(site: Site, recorded: Path) -> None:
    found = made_again(site, recorded, 0.01)
    assert states(found) == "ppppppfff"
    rung = found.ladder.rungs[7]
    assert rung.reason == "logits out of bounds"
    by_file = {item.what.partition(":")[0]: item for item in rung.differences}
    for name in (logits.CONTEXT, logits.GENERATION):
        item = by_file[name]
        one = arrays.read(recorded.parent / name)
        place = item.what.partition("row ")[2].split(", token ")
        values = np.load(one.file).reshape(-1, one.width)
        assert item.recorded == f"{values[int(place[0]), int(place[1])]:.9g}"
        assert item.found != item.recorded
        assert "off by" in item.note
    assert item.recorded in text.text(found)


def test_how_far_off_it_may_be_can_be_said(site: Site, recorded: Path) -> None:
    assert made_again(site, recorded, 0.01, tolerance=0.2).ladder.rungs[7].state == "passed"
    found = made_again(site, recorded, 0.0005, tolerance=1e-6)
    assert found.ladder.rungs[7].state == "failed"
    assert "1e-06 of the largest logit" in found.ladder.rungs[7].differences[0].note


def test_a_share_that_is_none_is_refused(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--tolerance", "1.5"], ["--tolerance", "-1"], ["--tolerance", "nan"]):
        assert run(["reproduce", str(recorded), *words]) == ExitCode.USAGE
        assert "--tolerance" in capsys.readouterr().err


def altered(site: Site, recorded: Path, folder: Path, change: Callable[[Path], Any]) -> Any:
    """What is found where a recorded run was changed on the way."""
    shutil.copytree(recorded.parent, folder)
    change(folder)
    manifest = record.read(folder)
    new = made_again(site, recorded, 0.0)
    assert new.again is not None
    assert new.again_path is not None
    return logits.compare(
        side.of_run(manifest, folder), side.of_run(new.again, new.again_path.parent), None
    )


def test_of_a_record_without_its_files_the_digests_count(
    site: Site, recorded: Path, tmp_path: Path
) -> None:
    found = altered(
        site, recorded, tmp_path / "r", lambda folder: (folder / logits.CONTEXT).unlink()
    )
    assert f"{logits.CONTEXT}: the same by its digest" in found.evidence
    assert not found.differences


def test_a_record_with_something_else_in_place_of_rows(
    site: Site, recorded: Path, tmp_path: Path
) -> None:
    def spoil(folder: Path) -> None:
        content = b"\x93NUMPY no"
        (folder / logits.CONTEXT).chmod(0o644)
        (folder / logits.CONTEXT).write_bytes(content)
        document = json.loads((folder / "manifest.json").read_bytes())
        for item in document["artifacts"]:
            if item["path"] == logits.CONTEXT:
                item |= {"sha256": Digest.of_bytes(content).hex, "size": len(content)}
        (folder / "manifest.json").write_text(json.dumps(document))

    (item,) = altered(site, recorded, tmp_path / "r", spoil).differences
    assert item.what == logits.CONTEXT
    assert "NumPy" in item.note
