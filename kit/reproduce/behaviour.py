"""L6 and L7, what the engine does: the tokens it gives, its logits, how well it does by scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.examples.evaluation import ENGINE
from kit.reproduce import logits
from kit.reproduce.ladder import LEVELS, Difference, Measured, Rung
from kit.reproduce.side import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.manifests.record import Evaluation, Manifest, Output
    from kit.reproduce.side import Side

ROUGE_POINTS = 1.0
"""How far ROUGE may be from the recorded one, in points of a hundred: what two engines of one
checkpoint are from each other, and much less than NVIDIA's own acceptance threshold of 15.
"""
_SHOWN = 24


def same_tokens(first: Side, second: Side, *, is_promised: bool) -> Rung:
    """L6: the tokens of every prompt; a difference is a failure only where it `is_promised`."""
    level = LEVELS[6]
    one, other = first.manifest.outputs, second.manifest.outputs
    files = list(_files(first, second))
    servers = [side.manifest.server for side in (first, second)]
    if not (one or other or any(server and server.answers for server in servers)):
        return _without_tokens(first, files)
    differences = [*_outputs(one, other), *_served(first.manifest, second.manifest), *files]
    count = sum(len(output.token_ids) for output in other)
    evidence: tuple[str, ...] = (f"{len(other)} prompts, {count} new tokens",) if other else ()
    if (server := servers[1]) is not None:
        evidence += (f"{len(server.answers)} answers of {server.name} {server.version}",)
    if not any(item.counts for item in differences):
        reason = "the engine says the same"
        return Rung(level, "passed", reason, evidence, tuple(differences))
    if is_promised:
        return Rung(level, "failed", "the engine says something else", evidence, tuple(differences))
    reason = "the engine says something else, as it may unless the platform is known to be the same"
    return Rung(level, "differs", reason, evidence, tuple(differences))


def _without_tokens(first: Side, files: list[Difference]) -> Rung:
    """Of a run that records no answers, such as that of a program, what it wrote."""
    level, count = LEVELS[6], len(first.select("output"))
    if not count and not files:
        return Rung(level, "absent", "the engine was asked nothing")
    if files:
        reason = "what it wrote is not the same; what it means the kit does not know"
        return Rung(level, "differs", reason, (), tuple(files))
    return Rung(level, "passed", "what it wrote is the same", (f"{count} files",))


def within_bounds(first: Side, second: Side, tokens: Rung, tolerance: float | None = None) -> Rung:
    """L7: logits and scores against recorded ones; the same tokens are within any bounds.

    Args:
        first: the record.
        second: the new run.
        tokens: what L6 has found.
        tolerance: share of the largest logit that a logit may be off; None for that of its type.
    """
    level = LEVELS[7]
    subjects = {
        "logits": logits.compare(first, second, tolerance),
        "scores": _against_bounds(first.manifest, second.manifest),
    }
    evidence = tuple(line for found in subjects.values() for line in found.evidence)
    gaps = tuple(line for found in subjects.values() for line in found.gaps)
    told = tuple(line for found in subjects.values() for line in found.told)
    differences = tuple(item for found in subjects.values() for item in found.differences)
    good = " and ".join(name for name, found in subjects.items() if found.evidence)
    if differences:
        bad = " and ".join(name for name, found in subjects.items() if found.differences)
        reason = f"{bad} out of bounds"
        return Rung(level, "failed", reason, (*evidence, *gaps, *told), differences)
    if gaps:
        rest = (f"what else there is of {good} is within its bounds",) if good else ()
        return Rung(level, "unchecked", "; ".join((*gaps, *rest)), (*evidence, *told))
    if good:
        reason = f"rests on {good}, which are within their bounds"
        return Rung(level, "passed", reason, (*evidence, *told))
    if tokens.state == "passed":
        reason = (
            "rests on the tokens, which are the same (L6); the record has neither logits nor a "
            "score of the engine to measure besides"
        )
        return Rung(level, "passed", reason, told)
    reason = (
        "the record has neither scores of the engine nor logits to hold anything against; an "
        "example with `evaluate` records ROUGE and perplexity, one with `gather_logits` its logits"
    )
    return Rung(level, "unchecked", reason, told)


def _against_bounds(first: Manifest, second: Manifest) -> Measured:
    """Scores against those of the record and the bounds that it has.

    Only the engine's carry anything; those of the model's own implementation can but be wrong.
    """
    recorded, found = _scores(first), _scores(second)
    evidence: list[str] = []
    gaps: list[str] = []
    differences: list[Difference] = []
    told: list[str] = []
    bounded = {
        (item.step, item.metric)
        for item in first.evaluations
        if item.subject.startswith(ENGINE) and (item.least, item.most) != (None, None)
    }
    for key, one in recorded.items():
        other = found.get(key)
        if other is None:
            differences.append(Difference(key, f"{one.value:g}", None))
            continue
        held = _held(key, one, other)
        differences += held.differences
        if one.subject.startswith(ENGINE):
            evidence += held.evidence
            # A bound stands for the first beam, which speaks for all of them.
            (told if (one.step, one.metric) in bounded else gaps).extend(held.gaps)
        else:
            told += [f"{line}; not the engine's" for line in (*held.evidence, *held.gaps)]
    return Measured(tuple(evidence), tuple(gaps), tuple(differences), tuple(told))


def _held(key: str, one: Evaluation, other: Evaluation) -> Measured:
    """One score of both."""
    distance = abs(other.value - one.value)
    bound = ROUGE_POINTS if one.metric.startswith("rouge") else None
    bounds = [f"{one.least:g} or more"] if one.least is not None else []
    bounds += [f"{one.most:g} or less"] if one.most is not None else []
    bounds += [f"{bound:g} from the recorded one"] if bound is not None else []
    expected = f"expected {' and '.join(bounds)}"
    is_good = (one.least is None or other.value >= one.least) and (
        one.most is None or other.value <= one.most
    )
    shown = f"{key}: {one.value:g} → {other.value:g}"
    if not is_good or (bound is not None and distance > bound):
        difference = Difference(key, f"{one.value:g}", f"{other.value:g}", expected)
        return Measured((), (), (difference,))
    if bounds:
        return Measured((f"{shown}, {expected}",), (), ())
    if distance == 0:
        return Measured((f"{key}: {other.value:g}, the same",), (), ())
    return Measured((), (f"{shown}, without a bound in the record",), ())


def _scores(manifest: Manifest) -> dict[str, Evaluation]:
    return {f"{item.step} {item.subject} {item.metric}": item for item in manifest.evaluations}


def _files(first: Side, second: Side) -> Iterator[Difference]:
    """Files of answers that differ: they do not count where the tokens in them are read."""
    one, other = first.select("output"), second.select("output")
    for path in sorted({*one, *other}):
        recorded, found = digest(one.get(path)), digest(other.get(path))
        if recorded != found:
            yield Difference(path, recorded, found, counts=False)


def _outputs(first: tuple[Output, ...], second: tuple[Output, ...]) -> Iterator[Difference]:
    for number in range(max(len(first), len(second))):
        one = first[number] if number < len(first) else None
        other = second[number] if number < len(second) else None
        known = one or other
        assert known is not None
        what = f"prompt {number + 1} {known.prompt!r}"
        if one is None or other is None:
            yield Difference(what, _shown(one), _shown(other))
        elif one.token_ids != other.token_ids:
            pairs = zip(one.token_ids, other.token_ids, strict=False)
            same = next(
                (place for place, (left, right) in enumerate(pairs) if left != right),
                min(len(one.token_ids), len(other.token_ids)),
            )
            note = f"the first {same} of {len(one.token_ids)} tokens are the same"
            yield Difference(what, _shown(one), _shown(other), note)
        elif one.prompt != other.prompt:
            yield Difference(f"prompt {number + 1}", repr(one.prompt), repr(other.prompt))
        elif one.text != other.text:
            yield Difference(
                what, repr(one.text), repr(other.text), "other words for the same tokens"
            )


def _served(first: Manifest, second: Manifest) -> Iterator[Difference]:
    """What the server said otherwise, or one of them did not say."""
    one, other = (
        {answer.prompt: answer.text for answer in manifest.server.answers}
        if manifest.server
        else {}
        for manifest in (first, second)
    )
    for prompt in dict.fromkeys([*one, *other]):
        recorded = repr(one[prompt]) if prompt in one else None
        found = repr(other[prompt]) if prompt in other else None
        if recorded != found:
            yield Difference(f"the server's answer to {prompt!r}", recorded, found)


def _shown(output: Output | None) -> str | None:
    if output is None:
        return None
    tokens = " ".join(map(str, output.token_ids[:_SHOWN]))
    more = " …" if len(output.token_ids) > _SHOWN else ""
    text = f" ({output.text!r})" if output.text is not None else ""
    return f"{tokens}{more}{text}"
