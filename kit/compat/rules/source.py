"""A checkout: its commit, submodules, LFS objects, prebuilt libraries, and its examples."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.claim import reference
from kit.compat.rule import Result, Rule
from kit.console import size
from kit.data import releases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.artifacts.source import Submodule
    from kit.compat.facts import Facts

_SHOWN = 3
_MACHINES = ("x86_64", "aarch64")


def _commit(facts: Facts) -> Iterable[Result]:
    source = facts.source
    release = reference(facts)
    if source is None or source.commit is None or release not in releases.order():
        return
    fact = releases.fact(release or "", "commit")
    component, where = "source commit", source.folder
    if fact.value is None:
        message = f"the commit of release {release} is not known: {fact.hole}"
        yield Result("unknown", component, None, source.commit, where, message)
        return
    same = fact.value == source.commit
    message = (
        f"{where} is at {source.commit[:12]}, release {release} is {fact.value[:12]}: other "
        "examples and flags are possible; check out the release"
    )
    yield Result(
        "ok" if same else "warning",
        component,
        fact.value,
        source.commit,
        where,
        "" if same else message,
        None,
        fact.source,
    )


def _submodules(facts: Facts) -> Iterable[Result]:
    source = facts.source
    if source is None:
        return
    release = reference(facts)
    table = releases.value(release, "submodules") if release in releases.order() else None
    pinned = {row["path"]: row["commit"] for row in table or ()}
    for module in source.submodules:
        yield _submodule(module, source.folder, pinned.get(module.path))
        if module.url_kind in ("ssh", "internal") and module.state == "absent":
            message = (
                f"{module.path} comes from {module.url}, which needs "
                f"{'a key' if module.url_kind == 'ssh' else 'another network'}: set its URL to a "
                "mirror (git config submodule.PATH.url) before git submodule update"
            )
            component = f"submodule {module.path}"
            yield Result("warning", component, "a public URL", module.url, source.folder, message)


def _submodule(module: Submodule, folder: str, pinned: str | None) -> Result:
    component, where = f"submodule {module.path}", f"{folder}/{module.path}"
    wanted = module.recorded or pinned
    update = shlex.join(["git", "-C", folder, "submodule", "update", "--init", "--recursive"])
    if module.state == "absent":
        message = f"{module.path} is empty: {update}"
        return Result("mismatch", component, wanted or "its files", "nothing", where, message)
    if wanted is None or module.commit is None:
        message = f"{module.path}: which commit it is at is not known"
        return Result("unknown", component, wanted, module.commit, where, message)
    if module.commit == wanted:
        return Result("ok", component, wanted, module.commit, where)
    message = f"{module.path} is at {module.commit[:12]}, the tree wants {wanted[:12]}: {update}"
    return Result("mismatch", component, wanted, module.commit, where, message)


def _objects(facts: Facts) -> Iterable[Result]:
    source = facts.source
    if source is None:
        return
    missing, where = source.missing, source.folder
    if not missing:
        yield Result("ok", "source LFS objects", "none missing", "none missing", where)
        return
    names = ", ".join(item.path for item in missing[:_SHOWN])
    names += " …" if len(missing) > _SHOWN else ""
    total = size(sum(item.size or 0 for item in missing))
    message = (
        f"{len(missing)} files in {where} are Git LFS pointers, not their content ({names}; "
        f"{total}): the linker fails at the end of the build; git -C {where} lfs pull"
    )
    yield Result(
        "mismatch", "source LFS objects", "none missing", f"{len(missing)} missing", where, message
    )


def _libraries(facts: Facts) -> Iterable[Result]:
    """A prebuilt library in a folder named for a machine is for that machine."""
    source = facts.source
    for library in source.libraries if source else ():
        named = next((m for m in _MACHINES if m in library.path), None)
        if library.machine is None or named is None or library.machine == named:
            continue
        message = f"{library.path} is for {library.machine}, its folder for {named}"
        yield Result("mismatch", "source library", named, library.machine, library.path, message)


def _examples(facts: Facts) -> Iterable[Result]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    source, release = facts.source, reference(facts)
    if source is None or release is None:
        return
    for pin in source.pins:
        try:
            fits = SpecifierSet(pin.requirement).contains(release, prereleases=True)
        except InvalidSpecifier:
            continue
        if not fits:
            message = (
                f"{pin.path} is of examples that want tensorrt_llm{pin.requirement}, not "
                f"{release}: take the examples of release {release}"
            )
            yield Result("mismatch", "source examples", pin.requirement, release, pin.path, message)


_TREE = "NVIDIA/TensorRT-LLM, the tree at the commit of the release"

RULES = (
    Rule(
        "source-commit",
        "A release is one commit of NVIDIA/TensorRT-LLM; branches go on after it.",
        ("triton-inference-server/tensorrtllm_backend, submodule at the tag of the release",),
        _commit,
    ),
    Rule(
        "source-submodules",
        "Every submodule is there, at the commit that the tree records; without git data, at the "
        "one that the release's table has.",
        (_TREE, "kit: C4"),
        _submodules,
    ),
    Rule(
        "source-lfs",
        "Static libraries are Git LFS objects up to 0.16.0 at least: a checkout without them "
        "holds pointers, which the linker meets after hours.",
        (_TREE, "kit: C4"),
        _objects,
    ),
    Rule(
        "source-libraries",
        "Prebuilt libraries are for the machine that their folder names.",
        (_TREE, "kit: C4"),
        _libraries,
    ),
    Rule(
        "source-examples",
        "Examples import what their own release has; their requirements name it.",
        ("NVIDIA/TensorRT-LLM examples/*/requirements.txt", "kit: C3"),
        _examples,
    ),
)
