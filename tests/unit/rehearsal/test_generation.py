"""How tokens are chosen: greedy, drawn, beam search, words that stop or are banned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit_rehearsal.errors import BackendError, NotComputedError
from kit_rehearsal.generation import beams, generate
from kit_rehearsal.sampling import Chooser, Sampling, Words, log_softmax

from tests.conftest import peer

ROW = np.array([0.1, 3.0, 2.0, 2.5, -1.0], dtype=np.float32)
WORDS = st.floats(-20, 20, width=32)


class Cache:
    def __init__(self) -> None:
        self.tokens: list[int] = []


class Chain:
    """A model of which the logits are a function of the last token alone."""

    def __init__(self, table) -> None:
        self.table = np.array(table, dtype=np.float32)
        self.shape = type("Shape", (), {"vocab_size": len(table)})()

    def cache(self, capacity: int) -> Cache:
        return Cache()

    def logits(self, tokens, cache, *, last_only, virtual=None):
        cache.tokens += tokens
        rows = self.table[np.asarray(tokens)]
        return rows[-1:] if last_only else rows


def drawn(sampling: Sampling, count: int = 4000) -> np.ndarray:
    chooser = Chooser(sampling)
    return np.bincount([chooser.choose(ROW, []) for _ in range(count)], minlength=len(ROW)) / count


def test_greedy_draws_nothing() -> None:
    assert Chooser(Sampling()).choose(ROW, []) == 1
    assert Chooser(Sampling(top_k=0, top_p=0.0)).choose(ROW, []) == 1
    assert Chooser(Sampling()).choose(np.array([1, 2, 2], dtype=np.float32), []) == 1
    assert Chooser(Sampling(temperature=9.0)).choose(ROW, []) == 1


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=2), [1, 3]),
        (Sampling(top_k=0, top_p=0.6), [1, 3]),
        (Sampling(top_k=0, top_p=0.4), [1]),
        (Sampling(top_k=3, top_p=1.0), [1, 2, 3]),
        (Sampling(top_k=3, temperature=2.0), [1, 2, 3]),
        (Sampling(top_k=0, top_p=1.0), [0, 1, 2, 3, 4]),
    ],
)
def test_drawn_as_often_as_the_probabilities_say(sampling: Sampling, kept: list[int]) -> None:
    shares = np.zeros(len(ROW))
    shares[kept] = np.exp(ROW[kept].astype(float) / sampling.temperature)
    assert np.allclose(drawn(sampling), shares / shares.sum(), atol=0.03)


def test_the_seed_decides() -> None:
    def tokens(seed: int) -> list[int]:
        chooser = Chooser(Sampling(top_k=5, random_seed=seed))
        return [chooser.choose(ROW, []) for _ in range(30)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


@given(
    st.lists(WORDS, min_size=1, max_size=40), st.integers(0, 50), st.floats(0, 1), st.integers(0)
)
def test_any_logits_give_a_token_of_the_best(row, top_k, top_p, seed) -> None:
    logits = np.array(row, dtype=np.float32)
    sampling = Sampling(top_k=top_k, top_p=top_p, random_seed=seed % 2**32)
    token = Chooser(sampling).choose(logits, [])
    most = top_k or len(row)
    assert (logits > logits[token]).sum() < most


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"temperature": 0.0}, "--temperature 0.0: expected more than 0"),
        ({"top_k": -1}, "--top_k -1"),
        ({"top_p": 1.5}, "--top_p 1.5"),
        ({"num_beams": 0}, "--num_beams 0"),
    ],
)
def test_values_that_mean_nothing(wrong, text) -> None:
    with pytest.raises(BackendError, match=text):
        Sampling(**wrong)


def test_never_stopping_early_is_not_computed() -> None:
    with pytest.raises(NotComputedError, match="--early_stopping 2"):
        Sampling(early_stopping=2)


def test_words() -> None:
    words = Words(stop=((1, 2),), bad=((3,), (4, 0)))
    assert words.ends([0, 1, 2])
    assert not words.ends([2])
    assert np.isinf(words.allowed(ROW, [1])[3])
    assert not np.isinf(words.allowed(ROW, [1])[0])
    assert np.isinf(words.allowed(ROW, [4])[0])
    cycle = Chain([[0, 9, 0, 0], [0, 0, 9, 5], [0, 0, 0, 9], [9, 0, 0, 0]])
    assert generate(cycle, [0], 6, None).tokens == [1, 2, 3, 0, 1, 2]
    assert generate(cycle, [0], 6, None, words=Words(stop=((2, 3),))).tokens == [1, 2, 3]
    assert generate(cycle, [0], 4, None, words=Words(bad=((1, 2),))).tokens == [1, 3, 0, 1]


def test_a_beam_search_finds_what_greed_misses() -> None:
    # From 0 the likelier step leads to tokens that are all unlikely, the other to a sure one.
    logs = np.log(
        np.array(
            [
                [0.01, 0.5, 0.4, 0.08, 0.01],
                [0.2, 0.2, 0.2, 0.2, 0.2],
                [0.01, 0.01, 0.01, 0.96, 0.01],
                [0.96, 0.01, 0.01, 0.01, 0.01],
                [0.2, 0.2, 0.2, 0.2, 0.2],
            ]
        )
    )
    model = Chain(logs)
    assert generate(model, [0], 2, None).tokens[0] == 1
    best, second = beams(model, [0], 2, None, Sampling(num_beams=2))
    assert best.tokens == [2, 3]
    assert np.isclose(best.log_probs.sum(), np.log(0.4 * 0.96), atol=1e-5)
    assert second.log_probs.sum() <= best.log_probs.sum()
    assert len(best.generation_logits) == len(best.log_probs) == 2


def test_log_softmax() -> None:
    assert np.isclose(np.exp(log_softmax(ROW)).sum(), 1)


@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize(("penalty", "early"), [(1.0, 1), (0.0, 1), (2.0, 1), (1.0, 0)])
def test_beams_are_those_of_transformers(
    width, penalty, early, pipeline, model, monkeypatch
) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    from kit_rehearsal.communicator import SingleRank
    from kit_rehearsal.engine_directory import read
    from kit_rehearsal.tokens import Tokenizer

    engine = pipeline("0.16.0", dtype="float32", build=["--max_beam_width", "5"])
    decoder = read("0.16.0", engine).load("0.16.0", SingleRank())
    oracle = transformers.AutoModelForCausalLM.from_pretrained(model).float().eval()
    tokenizer = Tokenizer(str(model))
    # A token that comes up now and then stands for the end, so that beams end at different times.
    for text, end in (
        ("Alice was", tokenizer.end_id),
        ("The Queen", tokenizer.encode(",", special=False)[0]),
    ):
        prompt = tokenizer.encode(text, special=False)
        sampling = Sampling(num_beams=width, length_penalty=penalty, early_stopping=early)
        found = beams(decoder, prompt, 16, end, sampling)
        with torch.no_grad():
            theirs = oracle.generate(
                torch.tensor([prompt]), max_new_tokens=16, num_beams=width, do_sample=False,
                num_return_sequences=width, length_penalty=penalty, early_stopping=bool(early),
                eos_token_id=end, pad_token_id=383,
            )  # fmt: skip
        for ours, row in zip(found, theirs[:, len(prompt) :].tolist(), strict=True):
            expected = row[: row.index(end)] if end in row else row
            assert ours.tokens == [token for token in expected if token != 383 or end == 383]
