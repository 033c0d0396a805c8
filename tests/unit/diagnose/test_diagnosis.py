from __future__ import annotations

import pytest

from tests.unit.diagnose.conftest import answered, diagnosed

CONSEQUENCES = """Traceback (most recent call last):
  File "/app/run.py", line 503, in <module>
TypeError: a bytes-like object is required, not 'NoneType'
[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine (/src/tllmRuntime.cpp:72)
error: creating server: Internal - failed to load all models
mpirun detected that one or more processes exited with non-zero status, thus causing
[node:4933] Signal: Segmentation fault (11)
"""
TAGS = "Version tag does not match. Note: Current Version: 226, Serialized Engine Version: 228\n"


@pytest.mark.parametrize(("symptom", "text"), answered())
def test_what_follows_never_outranks_the_cause(symptom: str, text: str) -> None:
    (alone,) = diagnosed(text).matches[:1]
    best = diagnosed(f"{text}\n{CONSEQUENCES}").matches[0]
    if alone.kind != "consequence":
        assert best.id == symptom


def test_consequences_alone_are_labelled() -> None:
    diagnosis = diagnosed(CONSEQUENCES)
    assert diagnosis.matches
    assert {match.kind for match in diagnosis.matches} == {"consequence"}


def test_the_first_of_several_causes_comes_first_and_all_are_listed() -> None:
    log = f"step\n{TAGS}step\nCUDA driver version is insufficient for CUDA runtime version\n"
    assert [match.line for match in diagnosed(log).matches] == [2, 4]


def test_the_specific_hides_the_general_on_its_lines() -> None:
    log = "Current Version: 228, Serialized Engine Version: 237\n"
    assert [match.id for match in diagnosed(log).matches] == [
        "trt-serialization-version-mismatch-10"
    ]


def test_a_warning_ranks_behind_an_error() -> None:
    log = (
        "[TRT] [W] Using an engine plan file across different models of devices is not recommended\n"
        f"{TAGS}"
    )
    assert [match.kind for match in diagnosed(log).matches] == ["cause", "warning"]


def test_what_a_cause_explains_is_a_consequence() -> None:
    log = (
        "[TRT] [E] 2: Requested amount of GPU memory (34359738368 bytes) could not be allocated.\n"
        "[TRT] [E] 10: Error Code 10: Internal Error (Could not find any implementation for node x.)\n"
    )
    diagnosis = diagnosed(log)
    assert [match.id for match in diagnosis.matches] == ["oom-gpu-engine-build"]
    assert [match.id for match in diagnosis.consequences] == ["trt-no-implementation"]


def test_numbers_are_named_in_the_cause() -> None:
    (match,) = diagnosed(TAGS).matches
    assert "TensorRT 9.1" in match.cause
    assert {number.name: number.value for number in match.numbers} == {
        "current": "226",
        "engine": "228",
    }
    assert match.evidence == f"line 1: {TAGS.strip()}"


@pytest.mark.parametrize(
    ("release", "part"),
    [("0.9.0", "takes --max_output_len"), ("0.11.0", "takes both"), ("0.16.0", "--max_seq_len =")],
)
def test_the_fix_is_the_releases(release: str, part: str) -> None:
    log = "trtllm-build: error: unrecognized arguments: --max_output_len\n"
    assert part in diagnosed(log, release).matches[0].fix


def test_the_fix_names_what_the_release_has() -> None:
    assert "10.7.0.23" in diagnosed(TAGS, "0.16.0").matches[0].fix


@pytest.mark.parametrize(
    ("line", "release"),
    [
        ("[TensorRT-LLM] TensorRT-LLM version: 0.12.0", "0.12.0"),
        ("Downloading tensorrt_llm-0.16.0-cp312-cp312-linux_x86_64.whl", "0.16.0"),
        ("docker run nvcr.io/nvidia/tritonserver:24.12-trtllm-python-py3", "0.16.0"),
        ("TensorRT-LLM version: 77.1.2", None),
    ],
)
def test_the_release_is_read_from_the_log(line: str, release: str | None) -> None:
    diagnosis = diagnosed(f"x\n{line}\n{TAGS}")
    assert diagnosis.release == release
    assert diagnosis.release_from == (release and "the log, line 2")


def test_the_release_that_is_asked_for_counts_more() -> None:
    diagnosis = diagnosed(f"TensorRT-LLM version: 0.12.0\n{TAGS}", "0.16.0")
    assert (diagnosis.release, diagnosis.release_from) == ("0.16.0", "--release")


def test_unknown_failures_are_shown_and_not_guessed() -> None:
    diagnosis = diagnosed("fine\n[ERROR] the flux was not frobnicated in time\nfine\n")
    assert diagnosis.matches == ()
    assert diagnosis.suspects == ("line 2: [ERROR] the flux was not frobnicated in time",)


def test_secrets_stay_out_of_evidence_and_numbers() -> None:
    log = "fatal: unable to access 'https://me:s3cretpw@git.example/x.git': nothing\n"
    (match,) = diagnosed(log).matches
    assert "s3cretpw" not in f"{match}"
