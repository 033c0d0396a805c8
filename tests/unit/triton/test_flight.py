"""Sequences in flight against the same prompts alone, on one rank and on two."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest
from kit_rehearsal import engine_directory
from kit_rehearsal.communicator import SingleRank
from kit_rehearsal.errors import BackendError
from kit_rehearsal.generation import generate
from kit_rehearsal.sampling import GREEDY, NO_WORDS, Sampling, Words

from kit_rehearsal_triton import engine_model, tensors  # isort: skip
from kit_rehearsal_triton.flight import Crew, Flight, Job, follow  # isort: skip

PROMPTS = [[5, 9, 17], [40, 41], [7, 8, 9, 10, 11], [33], [250, 3], [12, 60, 61]]


@pytest.fixture
def loaded(pipeline):
    directory = engine_directory.read("0.16.0", pipeline("0.16.0"))
    return directory, directory.load("0.16.0", SingleRank())


def jobs(count=9):
    return [Job(prompt, count, None, GREEDY, NO_WORDS) for prompt in PROMPTS]


def test_each_gets_what_it_would_get_alone(loaded) -> None:
    directory, model = loaded
    flight = Flight(model, directory.limits, Crew(1))
    heard: dict[int, list[int]] = {number: [] for number in range(len(PROMPTS))}

    def listener(number):
        return lambda token: heard[number].append(token) or True

    asked = [flight.ask(job, listener(number)) for number, job in enumerate(jobs())]
    for number, (prompt, future) in enumerate(zip(PROMPTS, asked, strict=True)):
        alone = generate(model, prompt, 9, None)
        (made,) = future.result(timeout=60)
        assert made.tokens == alone.tokens == heard[number]
        assert np.array_equal(made.log_probs, alone.log_probs)
        assert np.array_equal(made.generation_logits, alone.generation_logits)
    flight.end()


def test_as_many_fly_together_as_the_engine_was_built_for(loaded) -> None:
    directory, model = loaded
    flight = Flight(model, directory.limits, Crew(1))
    order: list[int] = []
    start = threading.Event()

    def hear(number):
        def on_token(_token):
            start.wait(30)
            order.append(number)
            return True

        return on_token

    asked = [flight.ask(job, hear(number)) for number, job in enumerate(jobs(4))]
    start.set()
    for future in asked:
        future.result(timeout=60)
    flight.end()
    # Four at a time, each a token in its turn; the fifth only joins when one has ended.
    assert len(set(order[:8])) > 1
    assert order.index(4) > max(order.index(number) for number in range(4))
    assert sorted(order) == sorted(list(range(6)) * 4)


def test_one_that_is_not_wanted_any_more_is_dropped(loaded) -> None:
    directory, model = loaded
    flight = Flight(model, directory.limits, Crew(1))
    assert flight.ask(jobs()[0], lambda _token: False).result(timeout=60) == []
    assert flight.ask(jobs()[1]).result(timeout=60)[0].tokens
    flight.end()


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job([999999], 3, None, GREEDY, NO_WORDS), "a token id is not one of the"),
        (Job([5], 3, None, Sampling(num_beams=4), NO_WORDS), "4 beams: the engine has"),
        (Job([5] * 101, 3, None, GREEDY, NO_WORDS), "max_input_len 100"),
        (Job([], 3, None, GREEDY, NO_WORDS), "empty prompt"),
    ],
)
def test_what_the_engine_was_not_built_for(loaded, job, message) -> None:
    directory, model = loaded
    flight = Flight(model, directory.limits, Crew(1))
    with pytest.raises(BackendError, match=message):
        flight.ask(job)
    flight.end()


class Told(Crew):
    """A crew whose ranks are threads: what the first says goes through a queue."""

    def __init__(self, others) -> None:
        self.others = others

    def tell(self, action) -> None:
        for other in self.others:
            other.put(action)

    def told(self):
        return self.others[0].get(timeout=60)


def test_two_ranks_do_alike(pipeline, world, loaded) -> None:
    directory = engine_directory.read("0.16.0", pipeline("0.16.0", tp=2, name="two"))
    said: queue.SimpleQueue = queue.SimpleQueue()

    def work(rank):
        model = directory.load("0.16.0", rank)
        if rank.rank:
            follow(model, Told([said]))
            return None
        flight = Flight(model, directory.limits, Told([said]))
        found = [flight.ask(job) for job in jobs(5)]
        tokens = [future.result(timeout=60)[0].tokens for future in found]
        flight.end()
        return tokens

    tokens, _ = world(2).run(work)
    assert tokens == [generate(loaded[1], prompt, 5, None).tokens for prompt in PROMPTS]


def test_words_go_to_tensors_and_back() -> None:
    rows = tensors.of_words([[1, 2], [3]])
    assert rows.shape == (1, 2, 3)
    assert tensors.word_lists(rows) == ((1, 2), (3,))
    assert tensors.word_lists(tensors.of_words([])) == ()


def test_a_request_becomes_a_job() -> None:
    given = {
        "input_ids": np.array([4, 5]),
        "request_output_len": np.array([7]),
        "end_id": np.array([383]),
        "runtime_top_p": np.array([0.5], dtype=np.float32),
        "seed": np.array([3], dtype=np.uint64),
        "stop_words_list": tensors.of_words([[9]])[0],
        "embedding_bias": np.zeros(0),
        "repetition_penalty": np.array([1.0]),
    }
    found = engine_model.job(given)
    assert found == Job(
        [4, 5], 7, 383, Sampling(top_k=0, top_p=0.5, random_seed=3), Words(stop=((9,),))
    )
    for name, value in (("repetition_penalty", 1.5), ("lora_config", 1), ("embedding_bias", 2.0)):
        with pytest.raises(BackendError, match=f"does not compute the input {name}"):
            engine_model.job(given | {name: np.array([value])})
