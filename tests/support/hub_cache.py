"""A model in the local cache of the Hub's client, laid out as `huggingface_hub` does. Asks nobody."""

import hashlib
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cache_snapshot(cache: Path, folder: Path, name: str, commit: str = COMMIT) -> Path:
    """Store a model's files as the download of one pinned revision leaves them: no `refs/main` names it.

    Parameters
    ----------
    cache
        As of HF_HUB_CACHE.
    folder
        The model's files.
    name
        `owner/name`.

    Returns
    -------
    Folder of the snapshot: links to files that are named by their digests.
    """
    repository = cache / f"models--{name.replace('/', '--')}"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for file in sorted(folder.iterdir()):
        raw = file.read_bytes()
        kept_by_lfs = file.suffix == ".safetensors"
        digest = hashlib.sha256(raw) if kept_by_lfs else hashlib.sha1(b"blob %d\0" % len(raw) + raw)
        (blobs / digest.hexdigest()).write_bytes(raw)
        (snapshot / file.name).symlink_to(f"../../blobs/{digest.hexdigest()}")
    return snapshot
