import pytest

from kit.data import releases
from kit.preflight import architectures


def states(intent_of, release, text):
    found = list(architectures.check(intent_of(release=release), {"CUDA_ARCHS": text}))
    return found, {finding.state for finding in found}


@pytest.mark.parametrize(
    ("release", "text", "state", "words"),
    [
        ("0.16.0", "80-real;90-real", "ok", "80-real, 90-real"),
        ("0.16.0", "90a-real", "ok", "90a-real"),
        ("0.5.0", "70-real;90", "ok", "70-real"),
        ("0.16.0", "", "ok", "80-real, 86-real"),
        ("1.2.1", "", "unknown", "could not be read"),
        ("0.16.0", "70-real", "failed", "releases 0.5.0 to 0.14.0 do"),
        ("0.17.0", "70", "failed", "its build refuses it"),
        ("0.16.0", "100", "failed", "it supports 8.0, 8.6, 8.9, 9.0"),
        ("0.16.0", "120-real", "failed", "releases 0.19.0 to"),
        ("0.18.0", "100-real", "ok", "100-real"),
        ("1.2.1", "103a-real;120f-virtual", "ok", "103a-real"),
        ("0.16.0", "75", "warning", "it supports"),
        ("0.15.0", "70-real", "warning", "compute capability 7.0"),
        ("0.16.0", "77", "unknown", "no table has a GPU of 7.7"),
        ("0.16.0", "native", "failed", "no GPU"),
        ("0.16.0", "all", "unknown", "every architecture"),
        ("0.16.0", "all-major", "unknown", "generation"),
        ("0.16.0", "80-real,90-real", "failed", "is no architecture"),
        ("0.16.0", "80;", "failed", "is no architecture"),
        ("0.16.0", "sm_80", "failed", "is no architecture"),
        ("0.16.0", "80-fake", "failed", "is no architecture"),
        ("9.9.9", "80", "unknown", "in no table"),
        ("1.3.0rc15", "80", "unknown", "could not be read"),
    ],
)
def test_asked_architectures(intent_of, release, text, state, words):
    found, seen = states(intent_of, release, text)
    assert seen == {state}
    assert any(words in finding.detail for finding in found)
    assert all(finding.remedy for finding in found if finding.state == "failed")


def test_only_what_is_wrong_is_said(intent_of):
    found, _ = states(intent_of, "0.16.0", "70-real;80-real;100-real;80-real")
    assert [finding.detail.split()[0] for finding in found] == ["70-real", "100-real"]
    assert "trtllm-0.17.0.post1" not in found[1].remedy
    assert "releases 0.18.0 to" in found[1].detail or "releases 0.17.0 to" in found[1].detail


def test_every_default_of_the_table_fits_its_release(intent_of):
    for release in releases.versions():
        default = releases.value(release, "cuda_architectures_default")
        if default is not None:
            _, seen = states(intent_of, release, ";".join(default))
            assert "failed" not in seen, release


def test_no_release_no_question(intent_of):
    assert list(architectures.check(intent_of(), {"CUDA_ARCHS": "70"})) == []
    assert list(architectures.check(intent_of(release="0.16.0"), {})) == []
