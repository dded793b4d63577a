"""The Python source of releases of vLLM, read without importing them: of the installed one, and of a wheel on an index.

Of a wheel only the files that are asked for are fetched, by HTTP ranges, and kept in the user's cache. Knows nothing of
vhserve.
"""

import io
import os
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import httpx

ACCEPT = "application/vnd.pypi.simple.v1+json"
SECONDS = 20.0


class NotOnIndex(Exception):
    """No index that answers has the release as a wheel that ranges can be read of."""


class Installed:
    """Files of the installed vLLM, whatever the distribution is called."""

    def __init__(self) -> None:
        spec = find_spec("vllm")
        if spec is None or spec.origin is None:
            raise NotOnIndex("vLLM is not installed")
        self.folder = Path(spec.origin).parent.parent

    def read(self, path: str) -> str | None:
        """Text of a file by its path in the wheel; None where there is none."""
        file = self.folder / path
        return file.read_text(encoding="utf-8") if file.is_file() else None


class OnIndex:
    """Files of a release's wheel for Linux on x86, on the index that `PIP_INDEX_URL` names, or on PyPI."""

    def __init__(self, version: str) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = Path(os.environ.get("VHSERVE_TEST_CACHE") or home / "vhserve-tests") / f"vllm-{version}"
        self.version = version

    def read(self, path: str) -> str | None:
        """Text of a file by its path in the wheel; None where there is none.

        Raises
        ------
        NotOnIndex
        """
        kept = self.folder / path
        if kept.is_file():
            return kept.read_text(encoding="utf-8")
        if path not in self.names:
            return None
        text = remote_wheel(self.version).read(path).decode()
        _keep(kept, text)
        return text

    @property
    def names(self) -> frozenset[str]:
        """Paths of all its files.

        Raises
        ------
        NotOnIndex
        """
        kept = self.folder / "names.txt"
        if not kept.is_file():
            _keep(kept, "\n".join(remote_wheel(self.version).namelist()))
        return frozenset(kept.read_text(encoding="utf-8").splitlines())


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(text, encoding="utf-8")
    written.replace(path)


@cache
def remote_wheel(version: str) -> zipfile.ZipFile:
    """A release's wheel, of which only what is read is fetched.

    Raises
    ------
    NotOnIndex
    """
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    client = httpx.Client(timeout=SECONDS, follow_redirects=True)
    try:
        answer = client.get(f"{index}/vllm/", headers={"Accept": ACCEPT}).raise_for_status()
        wheels = [file for file in answer.json()["files"] if _is_wheel(file, version)]
        if not wheels:
            raise NotOnIndex(f"{index} has no wheel of vLLM {version} for Linux on x86")
        return zipfile.ZipFile(io.BufferedReader(_Ranges(client, wheels[0]["url"]), 1 << 16))
    except (httpx.HTTPError, ValueError, KeyError, OSError) as error:
        raise NotOnIndex(f"{index} does not give vLLM {version}: {type(error).__name__} {error}") from error


def _is_wheel(file: Mapping[str, str], version: str) -> bool:
    return file["filename"].startswith(f"vllm-{version}-") and file["filename"].endswith("x86_64.whl")


class _Ranges(io.RawIOBase):
    """A file on a server that answers ranges."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.client, self.url, self.place = client, url, 0
        head = client.head(url).raise_for_status()
        if head.headers.get("accept-ranges") != "bytes":
            raise NotOnIndex(f"{url} does not answer ranges")
        self.size = int(head.headers["content-length"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.size)[whence]
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self.place + len(buffer), self.size)
        if end <= self.place:
            return 0
        headers = {"Range": f"bytes={self.place}-{end - 1}", "Accept-Encoding": "identity"}
        content = self.client.get(self.url, headers=headers).raise_for_status().content
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)
