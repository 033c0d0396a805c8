"""Bills of materials and provenance against the official schemas."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL

from kit.cli import run
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.oci import LAYER, Image, Layer, Layout
from kit.locks import lock as locks
from kit.manifests import provenance, record, sbom
from tests.conftest import ROOT
from tests.unit.manifests.test_record import small

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.manifests.conftest import Recorded

LOCKS = sorted((ROOT / "lockfiles").glob("*.lock.yaml"))
REHEARSAL = ROOT / "lockfiles" / "rehearsal.lock.yaml"
STATUS = (
    "Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2+b13\nArchitecture: amd64\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n"
    "Package: extra\nStatus: install ok installed\nVersion: 2:3\nArchitecture: all\n"
)


def layout_image(folder: Path, **files: str) -> Image:
    """An image of one layer."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    layout = Layout(folder)
    digest = layout.put(stream.getvalue())
    return layout.write_image(
        name="localhost/trtllm-kit/rehearsal:latest",
        layers=(Layer(digest, len(stream.getvalue()), LAYER),),
        settings={"Labels": {"org.trtllm-kit.arguments": '{"CUDA_ARCHS": "80-real"}'}},
        history=("kit",),
        platform="linux/amd64",
        epoch=1_700_000_000,
    )


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return layout_image(
        tmp_path / "layout",
        **{
            "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian"\n',
            "var/lib/dpkg/status": STATUS,
            "usr/lib/python3/dist-packages/numpy-1.26.4.dist-info/METADATA": "Name: numpy\n",
            "opt/lib/python3.11/site-packages/other_thing-7.dist-info/METADATA": "Name: x\n",
        },
    )


def check_bom(document: dict[str, Any]) -> None:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert problem is None, problem
    rows = list(components(document))
    refs = [row["bom-ref"] for row in rows]
    assert len(refs) == len(set(refs))
    known = {*refs, document["metadata"]["component"]["bom-ref"]}
    for row in document["dependencies"]:
        assert {row["ref"], *row["dependsOn"]} <= known
    for row in rows:
        if "purl" in row:
            assert PackageURL.from_string(row["purl"]).to_string() == row["purl"]


def components(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for row in document.get("components", []):
        yield row
        yield from components(row)


def check_statement(document: dict[str, Any]) -> None:
    """Unknown fields are errors of protobuf's reader; what is asked beyond that the library asks."""
    read = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(read).validate()
    predicate = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    definition, details = predicate.build_definition, predicate.run_details
    # What SLSA requires of level 1.
    assert definition.build_type.startswith("urn:trtllm-kit:")
    assert definition.external_parameters.fields
    assert details.builder.id
    for row in (*definition.resolved_dependencies, *details.byproducts):
        assert row.digest["sha256"]
        assert row.name or row.uri


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name.removesuffix(".lock.yaml"))
def test_every_stack_has_a_valid_bill(path: Path) -> None:
    check_bom(sbom.of_stack(locks.load(path)))


def test_the_bill_of_a_stack_has_every_input_with_its_digest() -> None:
    lock = locks.load(REHEARSAL)
    document = sbom.of_stack(lock)
    found = {
        row["hashes"][0]["content"] for row in components(document) if row["type"] != "container"
        and "hashes" in row
    }  # fmt: skip
    assert found == {item.sha256.hex for item in lock.inputs}
    (model,) = [row for row in components(document) if row["type"] == "machine-learning-model"]
    assert model["name"] == "gpt2-tiny"
    assert "model.safetensors" in [row["name"] for row in model["components"]]
    assert document == sbom.of_stack(lock)


def test_what_is_installed_joins_what_is_pinned(image: Image) -> None:
    lock = locks.load(REHEARSAL)
    document = sbom.of_stack(lock, image)
    check_bom(document)
    rows = {row["name"]: row for row in document["components"]}
    assert rows["bash"]["scope"] == "required"
    assert rows["bash"]["evidence"]["occurrences"] == [{"location": "/var/lib/dpkg/status"}]
    assert rows["bash"]["hashes"]
    assert rows["numpy"]["scope"] == "required"
    assert rows["gcc"]["scope"] == "excluded"  # built with, not in the image
    assert rows["extra"]["purl"] == "pkg:deb/debian/extra@2:3?arch=all"
    assert rows["other-thing"]["purl"] == "pkg:pypi/other-thing@7"
    assert "gone" not in rows
    top = document["metadata"]["component"]
    assert top["version"] == str(image.manifest_digest)
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_an_image_is_read_once(image: Image) -> None:
    lock = locks.load(REHEARSAL)
    first = sbom.of_stack(lock, image)
    for layer in image.layers:
        image.layout.blob(layer.digest).unlink()
    assert sbom.of_stack(lock, image) == first
    (kept,) = image.layout.root.glob("packages/*.json")
    kept.write_text('{"kit": "0.0.1", "packages": []}')
    with pytest.raises(KitError):
        sbom.of_stack(lock, image)


def test_a_damaged_layer_is_no_bill(image: Image) -> None:
    blob = image.layout.blob(image.layers[0].digest)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * 10_000)
    with pytest.raises(KitError):
        sbom.of_stack(locks.load(REHEARSAL), image)


def test_the_bill_of_a_run(recorded: Recorded) -> None:
    manifest = record.read(recorded.path)
    document = sbom.of_run(manifest)
    check_bom(document)
    engine = document["metadata"]["component"]
    assert engine["type"] == "machine-learning-model"
    hashes = {row["name"]: row["hashes"][0]["content"] for row in engine["components"]}
    assert hashes == {item.path: item.sha256 for item in manifest.select("engine")}
    assert {row["type"] for row in document["components"]} == {
        "machine-learning-model",
        "container",
    }


def test_provenance_of_a_stack(image: Image) -> None:
    lock = locks.load(REHEARSAL)
    document = provenance.of_stack(lock, image)
    check_statement(document)
    (subject,) = document["subject"]
    assert subject["digest"]["sha256"] == image.manifest_digest.hex
    definition = document["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["arguments"] == {"CUDA_ARCHS": "80-real"}
    digests = [row["digest"]["sha256"] for row in definition["resolvedDependencies"]]
    assert digests == [lock.digest.hex, lock.intent.hex, *(i.sha256.hex for i in lock.inputs)]
    assert document == provenance.of_stack(lock, image)


def test_provenance_names_the_commit_of_a_source(image: Image) -> None:
    path = next(path for path in LOCKS if "kind: git\n" in path.read_text())
    lock = locks.load(path)
    document = provenance.of_stack(lock, image)
    check_statement(document)
    commits = {item.version for item in lock.select(kind="git")}
    rows = document["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {row["digest"].get("gitCommit") for row in rows} - {None} == commits


def test_provenance_of_a_run(recorded: Recorded) -> None:
    manifest = record.read(recorded.path)
    document = provenance.of_run(manifest)
    check_statement(document)
    subjects = {row["name"]: row["digest"]["sha256"] for row in document["subject"]}
    assert subjects == {item.path: item.sha256 for item in manifest.select("engine")}
    definition = document["predicate"]["buildDefinition"]
    names = {row.get("name") for row in definition["resolvedDependencies"]}
    assert {"model/config.json", "recipe/gpt2-tiny", "lockfiles/rehearsal.lock.yaml"} <= names
    byproducts = {row["name"] for row in document["predicate"]["runDetails"]["byproducts"]}
    assert "logs/build.log" in byproducts
    identity = document["predicate"]["runDetails"]["metadata"]["invocationId"]
    assert identity == str(Digest.of_document(manifest.to_dict()))


def test_provenance_of_a_run_that_left_nothing() -> None:
    content = small()
    content["artifacts"] = []
    with pytest.raises(KitError, match="no file") as caught:
        provenance.of_run(record.parse(content, "x"))
    assert caught.value.exit_code is ExitCode.CONTENT


@pytest.mark.parametrize("action", ["sbom", "provenance"])
def test_the_command_prints_the_document_itself(
    recorded: Recorded, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["manifest", action, str(recorded.path)]
    assert run(asked) == 0
    document = json.loads(capsys.readouterr().out)
    (check_bom if action == "sbom" else check_statement)(document)
    assert run([*asked, "--json"]) == 0
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["schema"], envelope["document"]) == ("kit.manifest/1", document)
