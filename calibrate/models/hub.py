"""A model's `config.json` on the Hugging Face Hub or in its local cache, and what becomes of the Hub's errors.

Owns every error that says a model's files are out of reach, and how long the Hub is waited for. Knows no alias and
reads no configuration; importing it does not import `huggingface_hub`.
"""

import os
import re
import threading
from pathlib import Path
from typing import Any, Final

from calibrate.errors import ModelOffline, UnknownModel, UnsupportedModel

PATIENCE: Final = 2.0
"""Seconds that the Hub gets for its first answer, unless HF_HUB_ETAG_TIMEOUT says otherwise."""

COMMIT: Final = re.compile("[0-9a-f]{40}")


class NotOnHub(UnknownModel):
    """The Hub has no such model, or the name can be none."""


def config_path(name: str, revision: str | None = None, preferred: str | None = None) -> Path:
    """Path of a model's `config.json` in the local cache, fetched when it is not there yet.

    Parameters
    ----------
    name
        Hub id, `owner/name`.
    revision
        Branch, tag or commit. None: the `preferred` one if it is cached, else the cached default branch, else the
        latest, else, where the Hub cannot be reached, the only one in the cache.
    preferred
        A commit, such as the one that a plan was made for.

    Raises
    ------
    NotOnHub, UnknownModel, ModelOffline, UnsupportedModel
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        wanted = [preferred] if revision is None and COMMIT.fullmatch(preferred or "") else []
        for one in (*wanted, revision):
            cached = try_to_load_from_cache(name, "config.json", revision=one)
            if isinstance(cached, str):
                return Path(cached)
        _ask(name, revision)
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except GatedRepoError as error:
        raise UnknownModel(
            f"model {name} is gated on the Hub", expected="a model that you may read", fix="log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotOnHub(
            f"model {name} is not on the Hub",
            expected="a Hub id, owner/name",
            fix="see `vhserve models` for the aliases",
        ) from error
    except (EntryNotFoundError, HfHubHTTPError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise UnsupportedModel(
                f"model {name} has no config.json on the Hub",
                expected="a checkpoint in transformers' format",
                fix="see `vhserve models` for supported ones",
            ) from error
        return _only_cached(name, revision, error)


def cached_commits(name: str) -> list[str]:
    """Commits of a model of which the local cache has `config.json`; ascending."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "snapshots"
    return sorted(path.parent.name for path in snapshots.glob("*/config.json") if COMMIT.fullmatch(path.parent.name))


def is_reachable(name: str, revision: str | None = None, file: str = "config.json") -> bool:
    """Whether the Hub answers, within `PATIENCE`, with that file of a repository."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        _ask(name, revision, file)
    except LocalEntryNotFoundError:
        return False
    except (EntryNotFoundError, HfHubHTTPError):
        return False
    return True


def files_missing(name: str, reason: str) -> ModelOffline:
    """The error for a Hub model of which some files are neither cached nor can be fetched, to be raised."""
    return ModelOffline(
        f"model {name} cannot be loaded from the local cache or the Hub: {reason}",
        expected="all its files in the cache, or a connection to the Hub",
        fix=f"run `hf download {name}` where the Hub can be reached",
    )


def _only_cached(name: str, revision: str | None, error: Exception) -> Path:
    """`config.json` of the only snapshot in the cache, for a revision that the Hub cannot be asked about.

    Raises
    ------
    ModelOffline
        There is none, there are several, or another one is asked for.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
    commits = cached_commits(name)
    if revision is not None:
        begun = [commit for commit in commits if len(revision) >= 7 and commit.startswith(revision)]
        if len(begun) != 1:
            have = f" (cached: {', '.join(commits)})" if commits else ""
            raise ModelOffline(
                f"revision {revision} of {name} is not in the local cache{have}, and cannot be fetched",
                expected="a revision on the Hub, and a connection to it",
                fix="correct --revision, or fetch it where the Hub can be reached",
            ) from error
        commits = begun
    if len(commits) == 1:
        return Path(str(try_to_load_from_cache(name, "config.json", revision=commits[0])))
    if commits:
        raise ModelOffline(
            f"the local cache has {len(commits)} revisions of {name}, none of them as main, and {why}",
            expected=f"one of {', '.join(commits)}",
            fix="choose one with --revision",
        ) from error
    raise ModelOffline(
        f"model {name} is not in the local cache and {why}",
        expected=f"a cached model (cache: {constants.HF_HUB_CACHE}) or a connection to the Hub",
        fix=f"run `hf download {name}` where the Hub can be reached, or give a folder",
    ) from error


def _ask(name: str, revision: str | None, file: str = "config.json") -> None:
    """Ask the Hub for a repository's file once: `hf_hub_download` tries for half a minute, and writes on each try.

    Raises
    ------
    LocalEntryNotFoundError
        There is no answer, or none in time.
    HfHubHTTPError
        And its subclasses: the Hub refuses.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise LocalEntryNotFoundError("HF_HUB_OFFLINE is set")
    url = hf_hub_url(name, file, revision=revision)
    patience = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else PATIENCE
    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append(get_hf_file_metadata(url, timeout=patience))
        except Exception as error:
            outcome.append(error)

    # In a thread, because neither the resolver nor several addresses one after the other keep to a timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    if not outcome:
        raise LocalEntryNotFoundError(f"no answer within {patience} s")
    if isinstance(outcome[0], (EntryNotFoundError, HfHubHTTPError, HFValidationError)):
        raise outcome[0]
    if isinstance(outcome[0], Exception):
        raise LocalEntryNotFoundError(str(outcome[0])) from outcome[0]
