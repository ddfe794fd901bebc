"""``hf://ORG/REPO``: a repository of a model hub, at one commit, through huggingface_hub's own client.

The client brings the user's endpoint, token and cache. Only files by name from our own list are asked for, so
no code of the repository ever reaches this machine.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.errors import InputError, one

from .. import digests, disk
from ..artifacts import Entry
from .base import Request, Scheme
from .file import shards_of

_REPO = re.compile(r"hf:(?://)?(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Hub:
    def identity(self, request: Request) -> str:
        """Return the repository; the revision as it is written stands beside it in the key.

        A branch is resolved at the first fetch and then held: to move on, name another revision.
        """
        return f"hf:{self._repo(request)}"

    def current(self, request: Request, entry: Entry) -> bool:
        """Return true: the commit of the first fetch is held."""
        return True

    def fetch(self, request: Request, target: Path) -> dict[str, Any]:
        """Download the files; with the hub switched off (HF_HUB_OFFLINE), take them from its cache."""
        repo = self._repo(request)
        try:
            from huggingface_hub import constants
        except ImportError as error:
            raise one(
                InputError, f"{request.field}.uri", "hf: needs the package huggingface_hub, which is not installed",
                "install leanmodel with its extra `store`, or name weights in a folder with file:PATH",
            ) from error  # fmt: skip
        if constants.is_offline_mode():
            return _from_cache(request, repo, target)
        return _download(request, repo, target)

    @staticmethod
    def _repo(request: Request) -> str:
        match = _REPO.fullmatch(request.source.uri)
        if match is None or ".." in match["repo"] or "--" in match["repo"]:
            raise one(
                InputError, f"{request.field}.uri", f"{request.source.uri!r} names no repository",
                "write hf://ORG/REPO; a commit, tag or branch goes into `revision`",
            )  # fmt: skip
        return match["repo"]


SCHEME: Scheme = _Hub()


def configuration(request: Request, also: Sequence[str] = ()) -> Path:
    """Return a folder of the hub's cache with the repository's ``config.json``; no weights are downloaded.

    Args:
        request: what the manifest says.
        also: further small files, which need not be there.

    Raises:
        InputError: there is no such file or repository, or the hub cannot be asked.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo, revision = _Hub._repo(request), request.source.revision
    try:
        if not constants.is_offline_mode():
            revision = HfApi().model_info(repo, revision=revision).sha
        folder = Path(hf_hub_download(repo, "config.json", revision=revision)).parent
        for name in also:
            _if_there(repo, name, revision)
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise one(
            InputError, f"{request.field}.uri", f"config.json of {repo} cannot be had ({type(error).__name__})",
            "correct the address or the revision, or fetch the model first",
        ) from error  # fmt: skip


def _if_there(repo: str, name: str, revision: str | None) -> None:
    """Download a file into the hub's cache, unless the repository has none of that name."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(repo, name, revision=revision)
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != 404:
            raise


def _from_cache(request: Request, repo: str, target: Path) -> dict[str, Any]:
    """Copy the wanted files of the cached snapshot."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # Newer clients refuse a snapshot that lacks any file of the repository; which ones are needed is our choice.
    needed = ["config.json"]
    try:
        snapshot = Path(
            snapshot_download(
                repo, revision=request.source.revision, allow_patterns=needed, local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, ValueError) as error:
        raise one(
            InputError, f"{request.field}.uri",
            f"the hub is switched off (HF_HUB_OFFLINE), and its cache has no snapshot of {repo} at "
            f"{request.source.revision or 'main'}",
            "fetch it once with the hub switched on, or name weights in a folder with file:PATH",
        ) from error  # fmt: skip
    listing = sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    choice = request.choose(listing, lambda index: shards_of((snapshot / index).read_bytes()))
    total = sum((snapshot / name).stat().st_size for name in choice.names)
    disk.require_free(target, total, what=f"the copy of {request.source.uri}")
    done = 0
    for name in choice.names:
        to = target / choice.target(name)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, to)
        done += to.stat().st_size
        request.on_progress(done, total)
    return {"repo": repo, "commit": snapshot.name}


def _download(request: Request, repo: str, target: Path) -> dict[str, Any]:
    """Resolve the revision to a commit, list its files, choose, and download those by their exact names."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = HfApi().model_info(repo, revision=request.source.revision, files_metadata=True)
        commit = str(info.sha)
        if _COMMIT.fullmatch(commit) is None:
            raise one(
                InputError, f"{request.field}.revision", f"the hub has no commit of {repo}", "try again"
            )
        siblings = {file.rfilename: file for file in info.siblings or []}

        def shards(index: str) -> list[str]:
            return shards_of(Path(hf_hub_download(repo, index, revision=commit)).read_bytes())

        choice = request.choose(sorted(siblings), shards)
        total = sum(siblings[name].size or 0 for name in choice.names)
        disk.require_free(target, total, what=f"the download of {request.source.uri}")
        request.on_progress(0, total)
        inbox = request.scratch() / commit
        exactly = [_literal(name) for name in choice.names]
        snapshot_download(repo, revision=commit, allow_patterns=exactly, local_dir=inbox)
    except Exception as error:
        if disk.is_full(error) or not _from_network(error):
            raise
        missing = isinstance(error, RepositoryNotFoundError)
        raise one(
            InputError, f"{request.field}.uri",
            f"{repo} at {request.source.revision or 'main'} could not be fetched ({type(error).__name__}"
            f"{': it does not exist, or is not open to you' if missing else ''})",
            "check its name and revision, the network, and for gated models the token in HF_TOKEN",
        ) from error  # fmt: skip
    for name in choice.names:
        to = target / choice.target(name)
        to.parent.mkdir(parents=True, exist_ok=True)
        if not (inbox / name).is_file():
            raise one(InputError, request.field, f"the hub did not deliver {name}", "try again")
        shutil.move(inbox / name, to)
        stated = siblings[name].lfs
        if stated is not None and digests.of_file(to) != stated.sha256:
            raise one(
                InputError, request.field, f"{name} has not the sha256 that the hub states", "try again"
            )
    request.on_progress(total, total)
    return {"repo": repo, "commit": commit}


def _from_network(error: Exception) -> bool:
    """Return whether an error came from the hub's client or the HTTP library below it, which one varies."""
    origin = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or origin in (
        "huggingface_hub",
        "httpx",
        "httpx2",
        "requests",
        "urllib3",
    )


def _literal(name: str) -> str:
    """Return a file's name as a pattern that matches it alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)
