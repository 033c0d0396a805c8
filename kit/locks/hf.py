"""Models from the Hugging Face hub, pinned to a commit and to the digest of every file."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kit.digest import Digest
from kit.errors import environment_error, usage_error
from kit.files import safe_member
from kit.locks.connection import NotFound, shown
from kit.locks.lock import Input

if TYPE_CHECKING:
    from kit.locks.http import Client
    from kit.locks.intent import Model
    from kit.reception import Reception

PREFIX = "hf:"
_LOGIN = "export HF_TOKEN=<your token>"


def resolve_hub(model: Model, client: Client) -> list[Input]:
    """The files of the repository at the commit that the revision means now.

    Large files have their digest on the hub; small ones are read and hashed.

    Raises:
        KitError: no such repository or revision, nothing that `allow` lets through (exit 2);
            offline, no access (exit 3).
    """
    assert model.repo is not None
    assert model.revision is not None
    info = _model_info(model.repo, model.revision)
    commit = str(info.sha)
    inputs = []
    for sibling in sorted(info.siblings or [], key=lambda sibling: str(sibling.rfilename)):
        name = str(sibling.rfilename)
        safe_member(name, f"model {model.name}")
        if model.allow and not any(fnmatch(name, pattern) for pattern in model.allow):
            continue
        if sibling.lfs is not None:
            sha256, size = Digest(sibling.lfs.sha256), int(sibling.lfs.size)
        else:
            sha256, size = client.measure(_url(model.repo, commit, name), _headers())
        inputs.append(
            Input(
                kind="model",
                group=model.name,
                name=model.name,
                version=commit,
                file=name,
                location=f"{PREFIX}{model.repo}@{commit}",
                sha256=sha256,
                size=size,
            )
        )
    if not inputs:
        raise usage_error(
            f"model {model.name}: no file of {model.repo} at {model.revision} matches "
            f"{', '.join(model.allow) or 'anything'}"
        )
    return inputs


class HubSource:
    """Brings locked model files from the hub (`HF_ENDPOINT`, `HF_TOKEN`)."""

    def __init__(self, client: Client, stack: str) -> None:
        self._client = client
        self._stack = stack

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one file of a model into the store."""
        _require_online(str(item))
        repo, _, commit = item.location.removeprefix(PREFIX).partition("@")
        try:
            self._client.download(_url(repo, commit, item.file), reception, _headers())
        except NotFound:
            raise environment_error(
                f"{item} has vanished from the hub: no {item.file} in {repo} at commit {commit}, "
                "or no access to it",
                hint=f"kit lock {self._stack}" if _headers() else _LOGIN,
            ) from None


def _model_info(repo: str, revision: str) -> Any:
    import huggingface_hub
    from huggingface_hub import errors

    _require_online(f"model repository {repo}")
    api = huggingface_hub.HfApi(endpoint=_endpoint())
    try:
        return api.model_info(repo, revision=revision, files_metadata=True, timeout=60)
    except errors.GatedRepoError:
        raise environment_error(
            f"model repository {repo}: access must be granted first: accept its terms on the hub",
            hint=_LOGIN,
        ) from None
    except errors.RevisionNotFoundError:
        raise usage_error(f"model repository {repo} has no revision {revision}") from None
    except errors.RepositoryNotFoundError:
        raise usage_error(
            f"there is no model repository {repo}, or no access to it",
            hint=_LOGIN,
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no answer")
        raise environment_error(
            f"model repository {repo}: the hub answers {status}",
            hint=_LOGIN if status in (401, 403) else None,
        ) from None
    except Exception as error:
        if not _is_transport_error(error):
            raise
        # The error's own text may hold a URL: only its kind is told.
        raise environment_error(
            f"model repository {repo}: the hub {shown(_endpoint())} cannot be reached "
            f"({type(error).__name__}): check the network and HF_ENDPOINT"
        ) from None


def _is_transport_error(error: Exception) -> bool:
    """Whether no sound answer came.

    The hub's client was built on requests, then httpx, then httpx2: their errors share a name only.
    """
    bases = {base.__name__ for base in type(error).__mro__}
    return isinstance(error, (OSError, ValueError)) or "HTTPError" in bases


def _require_online(what: str) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise environment_error(
                f"{what} is needed from the hub, and {name} forbids it", hint=f"unset {name}"
            )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _url(repo: str, commit: str, name: str) -> str:
    return f"{_endpoint()}/{quote(repo)}/resolve/{quote(commit, safe='')}/{quote(name)}"


def _headers() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}
