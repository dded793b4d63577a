"""A model's `config.json` on the Hugging Face Hub or in its local cache, and what becomes of the Hub's errors.

Owns every error that says a model's files are out of reach. Knows no alias and reads no configuration; importing it
does not import `huggingface_hub`.
"""

from pathlib import Path

from calibrate.errors import ModelOffline, UnknownModel, UnsupportedModel


class NotOnHub(UnknownModel):
    """The Hub has no such model, or the name can be none."""


def config_path(name: str, revision: str | None = None) -> Path:
    """Path of a model's `config.json` in the local cache, fetched when it is not there yet.

    Parameters
    ----------
    name
        Hub id, `owner/name`.
    revision
        Branch, tag or commit; the cached or, where none is, the latest one by default.

    Raises
    ------
    NotOnHub, UnknownModel, ModelOffline, UnsupportedModel
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached)
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
        if revision is not None:
            raise ModelOffline(
                f"revision {revision} of {name} is not in the local cache and cannot be fetched",
                expected="a revision on the Hub, and a connection to it",
                fix="correct --revision, or fetch it where the Hub can be reached",
            ) from error
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        raise ModelOffline(
            f"model {name} is not in the local cache and {why}",
            expected=f"a cached model (cache: {constants.HF_HUB_CACHE}) or a connection to the Hub",
            fix=f"run `hf download {name}` where the Hub can be reached, or give a folder",
        ) from error


def files_missing(name: str, reason: str) -> ModelOffline:
    """The error for a Hub model of which some files are neither cached nor can be fetched, to be raised."""
    return ModelOffline(
        f"model {name} cannot be loaded from the local cache or the Hub: {reason}",
        expected="all its files in the cache, or a connection to the Hub",
        fix=f"run `hf download {name}` where the Hub can be reached",
    )
