import pytest

from kit.errors import ExitCode, KitError
from kit.preflight import licences, require
from tests.unit.preflight.conftest import licence


def found(intent):
    return list(licences.check(intent))


@pytest.mark.parametrize(
    "said", [None, "", "nvidia-tensorrt-8", "NVIDIA-TENSORRT", "yes", "1", "all", "nvidia-cuda"]
)
def test_nothing_else_counts_as_acceptance(intent_of, monkeypatch, said):
    monkeypatch.delenv("KIT_ACCEPT_LICENCES", raising=False)
    if said is not None:
        monkeypatch.setenv("KIT_ACCEPT_LICENCES", said)
    intent = intent_of(licences=(licence("nvidia-tensorrt"), licence("nvidia-cuda")))
    with pytest.raises(KitError) as caught:
        require(found(intent))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "https://terms.example/nvidia-tensorrt" in str(caught.value)
    assert ("https://terms.example/nvidia-cuda" in str(caught.value)) == (said != "nvidia-cuda")
    assert 'KIT_ACCEPT_LICENCES="nvidia-tensorrt nvidia-cuda"' in caught.value.hint


@pytest.mark.parametrize("said", ["a b", "b,a", " a,\tb  c\n", "a, b"])
def test_accepted_by_name(intent_of, monkeypatch, said):
    monkeypatch.setenv("KIT_ACCEPT_LICENCES", said)
    assert [one.state for one in found(intent_of(licences=(licence("a"), licence("b"))))] == ["ok"]


def test_a_stack_without_any(intent_of):
    assert found(intent_of()) == []
