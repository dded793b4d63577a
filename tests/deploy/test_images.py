"""Every image that others built is pinned by a digest, and deploy/images.md says where each digest is from."""

import re

from expressions import DEPLOY

PINNED = re.compile(r"^[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}$")


def images() -> dict[str, str]:
    found = {}
    for file in (DEPLOY / "docker").glob("*.Dockerfile"):
        text = file.read_text()
        defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
        for name in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            found[f"{file.name} {name}"] = defaults[name[2:-1]] if name.startswith("${") else name
    for file in (DEPLOY / "compose").glob("*.yaml"):
        for name in re.findall(r"^ +image: (\S+)$", file.read_text(), re.MULTILINE):
            if not name.startswith("vhserve:"):  # built by the same file
                found[f"{file.name} {name}"] = name
    return found


def test_every_image_is_pinned_and_its_source_is_told() -> None:
    table = (DEPLOY / "images.md").read_text()
    assert len(images()) == 4
    for where, image in images().items():
        assert PINNED.match(image), where
        name, _, digest = image.partition("@")
        assert re.search(rf"^\| `{re.escape(name)}` \| `{digest}` \| \S.*\|$", table, re.MULTILINE), where
