import base64
import json
import stat
from types import SimpleNamespace

import pytest

from kit.errors import ExitCode, KitError
from kit.locks.http import Client
from kit.locks.registry_login import Login, authorization, find_login, hint, is_loopback

SECRET = "pass:word-secret"
HOST = "registry.example:5000"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without any login, and ways to give one."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NGC_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def helper(name, script):
        path = write(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return SimpleNamespace(write=write, helper=helper, root=tmp_path)


def pair(user="me", secret=SECRET):
    return base64.b64encode(f"{user}:{secret}".encode()).decode()


def auths(key=HOST, **entry):
    return {"auths": {key: entry or {"auth": pair()}}}


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("REGISTRY_AUTH_FILE", "x/own.json", "x/own.json"),
        ("XDG_RUNTIME_DIR", "run", "run/containers/auth.json"),
        ("XDG_CONFIG_HOME", "etc", "etc/containers/auth.json"),
        (None, None, ".config/containers/auth.json"),
        ("DOCKER_CONFIG", "d", "d/config.json"),
        (None, None, ".docker/config.json"),
    ],
)
def test_where_engines_keep_logins(home, monkeypatch, variable, value, place):
    if variable:
        monkeypatch.setenv(variable, str(home.root / value))
    path = home.write(place, auths())
    assert find_login(HOST) == Login("me", SECRET, str(path))
    assert find_login("registry.example") is None
    assert find_login("other.example:5000") is None


def test_the_first_place_that_knows_the_registry(home):
    home.write(".config/containers/auth.json", auths("other.example"))
    home.write(".docker/config.json", auths())
    home.write(".netrc", "machine registry.example login net password word\n")
    assert find_login(HOST).origin.endswith(".docker/config.json")
    assert find_login("registry.example").user == "net"


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("https://old.example/v1/", "old.example"),
        ("old.example/", "old.example"),
    ],
)
def test_keys_of_old(home, key, host):
    home.write(".docker/config.json", auths(key))
    assert find_login(host).secret == SECRET


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": pair() + ""}, ("me", SECRET)),
        ({"auth": base64.b64encode(b"me:word\0\0").decode()}, ("me", "word")),
        ({"username": "me", "password": "word"}, ("me", "word")),
        ({"auth": "", "identitytoken": "identity"}, ("", "identity")),
        ({"auth": pair("$oauthtoken", "key")}, ("$oauthtoken", "key")),
        ({"auth": "%%%secret"}, None),
        ({"auth": base64.b64encode(b"no colon").decode()}, None),
        ({"auth": 7}, None),
        ({"username": "me"}, None),
        ("text", None),
    ],
)
def test_entries(home, entry, expected, capsys):
    home.write(".docker/config.json", {"auths": {HOST: entry}})
    found = find_login(HOST)
    assert (found and (found.user, found.secret)) == expected
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"auths": 3, "credHelpers": []}'])
def test_a_file_that_is_none(home, content, capsys):
    home.write(".docker/config.json", content)
    assert find_login(HOST) is None
    err = capsys.readouterr().err
    assert not err or "logins passed over" in err


@pytest.mark.parametrize("how", [{"credHelpers": {HOST: "own"}}, {"credsStore": "own"}])
def test_a_credential_helper(home, how):
    home.write(".docker/config.json", how | auths(HOST, auth=pair("other")))
    answer = json.dumps({"Username": "me", "Secret": SECRET, "ServerURL": HOST})
    home.helper("own", f"read host; [ \"$host $1\" = '{HOST} get' ] && echo '{answer}'")
    assert find_login(HOST) == Login("me", SECRET, "docker-credential-own")


def test_a_helper_is_asked_for_docker_hub_by_its_old_name(home):
    home.write(".docker/config.json", {"credsStore": "own"})
    home.helper("own", 'read host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"x\\"}"')
    assert find_login("docker.io").user == "https://index.docker.io/v1/"


def test_a_helper_with_an_identity_token(home):
    home.write(".docker/config.json", {"credsStore": "own"})
    home.helper("own", 'echo \'{"Username": "<token>", "Secret": "identity"}\'')
    assert (find_login(HOST).user, find_login(HOST).secret) == ("", "identity")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo my-secret; echo my-secret >&2; exit 1", ""),
        ("echo my-secret", "answers nonsense"),
        ("echo '[]'", ""),
        ("printf '\\377my-secret'", "does not answer"),
        (None, "which is not installed"),
    ],
)
def test_a_helper_that_does_not_help(home, script, said, capsys):
    home.write(".docker/config.json", {"credsStore": "own"} | auths())
    if script:
        home.helper("own", script)
    assert find_login(HOST).user == "me", "the file's own entry is left"
    err = capsys.readouterr().err
    assert said in err
    assert "secret" not in err


def test_a_helper_is_a_name_not_a_path(home, capsys):
    home.helper("own", "touch ran; echo '{}'")
    home.write(".docker/config.json", {"credsStore": "x/../docker-credential-own"})
    assert find_login(HOST) is None
    assert "not installed" in capsys.readouterr().err


def test_the_key_of_ngc(monkeypatch):
    monkeypatch.setenv("NGC_API_KEY", SECRET)
    assert find_login("nvcr.io") == Login("$oauthtoken", SECRET, "NGC_API_KEY")
    assert find_login("nvcr.io.evil.example") is None
    assert hint("nvcr.io") == "docker login nvcr.io --username '$oauthtoken'"
    assert hint(HOST) == f"docker login {HOST}"


def test_netrc_only_by_name(home):
    home.write(
        ".netrc", f"machine a.example login me password {SECRET}\ndefault login d password p"
    )
    assert find_login("a.example").secret == SECRET
    assert find_login("a.example:443").secret == SECRET
    assert find_login("b.example") is None, "what is for any server is for no registry"


def test_a_secret_is_never_shown(home):
    home.write(".docker/config.json", auths())
    assert "word" not in repr(find_login(HOST))


@pytest.mark.parametrize(
    ("challenge", "message"),
    [
        ('Bearer realm="http://tokens.example/",service="x"', "refused: not https"),
        ('Bearer realm="http://127.0.0.1/",service="x"', "refused: not https"),
        ('Bearer realm="file:///etc/passwd"', "refused: not https"),
        ('Bearer realm="/token"', "refused: not https"),
        ('Bearer realm="https://["', "sends logins to what is no URL"),
        ('Bearer service="x"', "not known here: bearer"),
        ("Negotiate", "not known here: negotiate"),
        ("", "not known here: none"),
    ],
)
def test_challenges_that_are_not_answered(challenge, message):
    login = Login("me", SECRET, "test")
    with pytest.raises(KitError, match=message) as caught:
        authorization(challenge, f"https://{HOST}/v2/a/manifests/1", "a", login, Client())
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "challenge",
    ['Basic realm="a, Bearer"', "basic", 'Negotiate, BASIC realm=x, charset="UTF-8"'],
)
def test_a_registry_that_wants_the_password(challenge):
    url = f"https://{HOST}/v2/a/manifests/1"
    login = Login("me", SECRET, "test")
    assert authorization(challenge, url, "a", login, Client()) == f"Basic {pair()}"
    for other in (None, Login("", "identity", "test")):
        with pytest.raises(KitError, match="wants a login") as caught:
            authorization(challenge, url, "a", other, Client())
        assert caught.value.hint == f"docker login {HOST}"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "127.0.0.1.example", "localhost.example", "10.0.0.1", "0127"])
def test_another_machine(host):
    assert not is_loopback(host)
