import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import intent as intents
from kit.locks import lock as locks
from kit.locks.lock import Input, Lock, Unresolved
from kit.locks.resolve import check_current, held_against

TEXT = """\
schema: kit.intent/1
stack: real
family: trtllm
platform: linux/amd64
epoch: 1700000000
release: 0.16.0
arguments:
  TENSORRT_VERSION: "10.7.0.23"
  CUDA_ARCHS: 80-real;90-real
licences:
  - name: nvidia-tensorrt
    url: https://docs.example/sla
images:
  - name: base
    reference: nvcr.io/nvidia/pytorch:24.11-py3
sources:
  - name: trtllm
    url: https://github.com/NVIDIA/TensorRT-LLM.git
    commit: "1111111111111111111111111111111111111111"
files:
  - name: TensorRT.tar.gz
    url: https://developer.example/TensorRT.tar.gz
    group: devel
  - name: keys.deb
    url: https://developer.example/keys.deb
    group: keys
apt:
  base: base
  repositories:
    - name: ubuntu
      url: http://archive.example/ubuntu/
      suites: [noble, noble-updates]
      components: [main]
      keyring: usr/share/keyrings/ubuntu.gpg
    - name: cuda
      url: https://developer.example/cuda
      suites: [./]
      keyring: file:keys.deb
  groups:
    devel: [wget, libnccl2=2.23.4-1+cuda12.6]
requirements:
  base: base
  indexes: [https://pypi.example/simple]
  groups:
    devel:
      packages: [polygraphy==0.49.9, "setuptools<69"]
      archives: ["devel/TensorRT.tar.gz!*/python/tensorrt-*-cp{python}-*.whl"]
    wheel:
      files: [trtllm/requirements-dev.txt]
gaps:
  - name: conan
    group: wheel
    reason: nobody has published what it holds
"""


@pytest.fixture
def load(tmp_path):
    def read(text=TEXT):
        path = tmp_path / "real.yaml"
        path.write_text(text)
        return intents.load(path)

    return read


def test_everything_is_read(load):
    intent = load()
    assert intent.release == "0.16.0"
    assert intent.arguments == (
        ("CUDA_ARCHS", "80-real;90-real"),
        ("TENSORRT_VERSION", "10.7.0.23"),
    )
    assert [licence.name for licence in intent.licences] == ["nvidia-tensorrt"]
    ubuntu, cuda = intent.apt.repositories
    assert (ubuntu.url, ubuntu.components) == ("http://archive.example/ubuntu", ("main",))
    assert (cuda.suites, cuda.components, cuda.keyring) == (("./",), (), "file:keys.deb")
    assert intent.apt.groups[0].packages == ("wget", "libnccl2=2.23.4-1+cuda12.6")
    devel, wheel = intent.requirements.groups
    assert devel.packages == ("polygraphy==0.49.9", "setuptools<69")
    assert devel.archives == ("devel/TensorRT.tar.gz!*/python/tensorrt-*-cp{python}-*.whl",)
    assert wheel.files == ("trtllm/requirements-dev.txt",)
    assert intent.files[0].sha256 is None
    assert intent.gaps[0].name == "conan"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.16.0", "0.17.0"),
        ("80-real;", ""),
        ("nvidia-tensorrt", "tensorrt"),
        ("[noble, noble-updates]", "[noble]"),
        ("libnccl2=2.23.4-1+cuda12.6", "libnccl2"),
        ("polygraphy==0.49.9", "polygraphy"),
        ("pypi.example", "pypi2.example"),
        ("requirements-dev.txt", "requirements.txt"),
        ("nobody has", "somebody has"),
    ],
)
def test_what_is_asked_for_matters(load, old, new):
    assert old in TEXT
    assert load(TEXT.replace(old, new)).digest != load().digest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("TENSORRT_VERSION:", "tensorrt-version:", "not the name of a build argument"),
        ('"10.7.0.23"', "10.7", "TENSORRT_VERSION: expected a text"),
        ('"10.7.0.23"', '"10\\n7"', "not a valid TENSORRT_VERSION"),
        ("apt:\n  base: base", "apt:\n  base: bsae", "no image 'bsae'; did you mean base"),
        ("requirements:\n  base: base", "requirements:\n  base: x", "requirements: base: no image"),
        ("file:keys.deb", "file:kyes.deb", "no file 'kyes.deb'; did you mean keys.deb"),
        ("keyring: usr/", "keyring: ../", "not a valid keyring"),
        ("keyring: usr/", "keyring: usr/../../", "keyrings/ubuntu.gpg"),
        ("[noble, noble-updates]", "[]", "expected suites with components"),
        ("[noble, noble-updates]", "[./]", "expected suites with components"),
        ("suites: [./]", "suites: [noble]", "expected suites with components"),
        ("[wget, ", "[wget, wget=1.0, ", "devel: 'wget' stands twice"),
        ("[wget, ", "[wget-, ", "not a Debian package name"),
        ("components: [main]", 'components: ["main\\ndeb x"]', "not a component: 'main\\ndeb"),
        ("components: [main]", "components: [main x]", "not a component"),
        ("http://archive.example/ubuntu/", "'http://archive.example/ubuntu x'", "expected http"),
        ("http://archive.example/ubuntu/", "'http://[archive.example/'", "expected http"),
        ("http://archive.example/ubuntu/", "http://archive.example:x/", "expected http"),
        ("[https://pypi.example/simple]", "['https://[pypi.example/']", "without a login"),
        ("name: keys.deb", "name: ../devel/keys.deb", "outside its folder"),
        (
            "group: keys\n",
            "group: devel\n  - {name: ./keys.deb, group: devel, url: 'http://h/'}\n",
            "files: 'devel/keys.deb' stands twice",
        ),
        ("[wget, ", "['wget=1 && rm', ", "not a Debian package name"),
        ("url: http://archive", "url: http://me:word@archive", "holds a login"),
        ("[https://pypi.example/simple]", "['https://c/?token=x']", "without a login or query"),
        ("polygraphy==0.49.9", "polygraphy=0.49.9", "packages: 'polygraphy=0.49.9'"),
        ("polygraphy==0.49.9", "x @ http://example/x.whl", "an index decides where from"),
        ("trtllm/requirements-dev.txt", "trtlm/requirements.txt", "no source 'trtlm'; did you"),
        ("trtllm/requirements-dev.txt", "trtllm/../requirements.txt", "requirements.txt"),
        ('"devel/TensorRT.tar.gz!', '"devel/TensorT.tar.gz!', "no file 'devel/TensorT.tar.gz'"),
        ("!*/python", "*/python", "archives: expected <group>/<file>!<pattern>"),
        ("[https://pypi.example/simple]", "['https://a:b@c/']", "without a login"),
        ("name: conan", "name: a/b", "not a valid name"),
    ],
)
def test_what_is_wrong_is_said(load, old, new, words):
    assert old in TEXT
    with pytest.raises(KitError) as caught:
        load(TEXT.replace(old, new, 1))
    assert words in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_lock_that_was_never_resolved_is_refused(load, tmp_path):
    intent = load()
    gaps = tuple(
        Unresolved("oci", "base", f"image{number}", "24.11", "oci:nvcr.io/x", "not public", None)
        for number in range(7)
    )
    lock = Lock("real", intent.digest, (), intent.arguments, gaps)
    lock.write(tmp_path / "real.lock.yaml")
    again = locks.load(tmp_path / "real.lock.yaml")
    assert again == lock
    with pytest.raises(KitError) as caught:
        check_current(again, intent)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert "7 are unresolved" in str(caught.value)
    assert "oci image0 24.11: not public" in str(caught.value)
    assert "and 2 more" in str(caught.value)
    assert caught.value.hint.startswith("kit lock real")
    check_current(Lock("real", intent.digest, (), intent.arguments), intent)


def test_what_is_known_of_an_unresolved_input_is_kept(tmp_path):
    gap = Unresolved("oci", "base", "n", "24.11", "oci:nvcr.io/x", "blobs", Digest("ab" * 32))
    Lock("real", Digest("1" * 64), (), (), (gap,)).write(tmp_path / "real.lock.yaml")
    assert locks.load(tmp_path / "real.lock.yaml").unresolved[0].sha256 == Digest("ab" * 32)


ONE, OTHER = Digest("1" * 64), Digest("2" * 64)


def deb(sha256, source=""):
    name = "libnccl2"
    return Input("deb", "devel", name, "2.23.4-1", f"{name}.deb", "https://x/y", sha256, 5, source)


def test_what_was_known_from_elsewhere_is_taken_over():
    before = Lock("real", ONE, (deb(ONE, "a recipe"),))
    assert held_against(Lock("real", ONE, (deb(ONE),)), before).inputs[0].source == "a recipe"


@pytest.mark.parametrize(
    "before",
    [
        Lock("real", ONE, (deb(ONE, "a recipe"),)),
        Lock(
            "real",
            ONE,
            (),
            (),
            (Unresolved("deb", "devel", "libnccl2", "2.23.4-1", "https://x", "index", ONE),),
        ),
    ],
)
def test_other_content_under_a_known_version_is_refused(before):
    with pytest.raises(KitError, match="other content under this version") as caught:
        held_against(Lock("real", ONE, (deb(OTHER),)), before)
    assert caught.value.exit_code == ExitCode.CONTENT
    changed = Lock("real", OTHER, (deb(OTHER),))
    assert held_against(changed, before) == changed, "another intent asks for something else"


def test_what_an_earlier_lock_merely_found_may_change():
    lock = Lock("real", ONE, (deb(OTHER),))
    assert held_against(lock, Lock("real", ONE, (deb(ONE),))) == lock
