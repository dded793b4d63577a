"""Head scores as other projects publish them: SparseMM's JSON and DuoAttention's TSV, for the heads of a profile.

Owns these two formats; docs/rankings.md says which files they were read off. Does not know what the scores mean.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from profiles.errors import ScoresBroken, WrongShape, WrongValue
from profiles.geometry import ModelGeometry
from profiles.head_profile import HeadProfile
from profiles.names import ImportedRanking
from profiles.ranking import ALL, Ranking
from profiles.reading import parse
from profiles.store import read_bytes

Rows = list[list[float]]

_FIX = "give the file as it was published"


def read_scores(path: Path, name: ImportedRanking, geometry: ModelGeometry) -> Ranking:
    """Read a file of scores.

    Parameters
    ----------
    name
        ``sparsemm``: a JSON object with a field ``layer-head`` for every query head, whose value is a list of the
        head's scores, one for each sample (or one number); the score is their mean, as SparseMM's own code takes it.
        ``duo_attention``: ``full_attention_heads.tsv``, a line for each layer and in it a gate for each KV head, which
        is given to all its query heads and clipped to 0 to 1, as DuoAttention's own code does.

    Raises
    ------
    ScoresBroken
        Names the file, and the line or field.
    FileUnreadable, FileTooLarge, FileTruncated, NotJson, DuplicateField
    """
    raw = read_bytes(path)
    scores = READERS[name](raw, path, geometry)
    return Ranking.of(scores, source=path.name, digest=f"sha256:{hashlib.sha256(raw).hexdigest()}")


def with_scores(profile: HeadProfile, name: ImportedRanking, scores: Ranking) -> HeadProfile:
    """The profile with these scores, in the place of earlier ones of the same name.

    Raises
    ------
    WrongShape
        The scores are of another geometry.
    """
    rows = scores.tables[ALL]
    shape = (len(rows), *{len(row) for row in rows})
    if shape != (profile.geometry.layers, profile.geometry.query_heads):
        expected = f"{profile.geometry.layers} layers of {profile.geometry.query_heads}"
        raise WrongShape(f"{scores.source}: has the shape {shape}", expected=expected, fix="import into their profile")
    return HeadProfile.model_validate({**dict(profile), "rankings": {**profile.rankings, name: scores}})


def _sparsemm(raw: bytes, path: Path, geometry: ModelGeometry) -> Rows:
    try:
        fields = parse(raw, str(path))
    except WrongValue as error:
        _broken(path, error.wrong.removeprefix(f"{path}: "), "an object with a field for each head")
    rows = [[math.nan] * geometry.query_heads for _ in range(geometry.layers)]
    for field, value in fields.items():
        place = f"field {field!r:.40}"
        match = re.fullmatch(r"(\d{1,6})-(\d{1,6})", field)
        if match is None:
            _broken(path, f"{place} is not a head", "layer-head, such as 0-31")
        layer, head = int(match[1]), int(match[2])
        if layer >= geometry.layers or head >= geometry.query_heads:
            _broken(path, f"{place} is no head of this model", _told(geometry, "heads", geometry.query_heads))
        values = value if isinstance(value, list) else [value]
        if not values:
            _broken(path, f"{place} is an empty list", "a score for each sample")
        for index, one in enumerate(values):
            if not _is_finite(one):
                _broken(path, f"{place}: entry {index} is {one!r:.40}", "a finite number")
        rows[layer][head] = math.fsum(values) / len(values)
    missing = [(i, j) for i, row in enumerate(rows) for j, score in enumerate(row) if math.isnan(score)]
    if missing:
        wrong = f"has {geometry.heads - len(missing)} heads; field '{missing[0][0]}-{missing[0][1]}' is missing"
        _broken(path, wrong, _told(geometry, "heads", geometry.query_heads))
    return rows


def _duo_attention(raw: bytes, path: Path, geometry: ModelGeometry) -> Rows:
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        _broken(path, f"byte {error.start} is not UTF-8", "text")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    told = _told(geometry, "KV heads", geometry.kv_heads)
    rows = []
    for number, line in numbered:
        cells = line.split("\t")
        if len(cells) != geometry.kv_heads:
            _broken(path, f"line {number} has {len(cells)} fields", told)
        gates = [_gate(cell, path, f"line {number}, field {index}") for index, cell in enumerate(cells, 1)]
        rows.append([gate for gate in gates for _ in range(geometry.group_size)])
    if len(rows) != geometry.layers:
        _broken(path, f"has {len(rows)} lines", told)
    return rows


READERS: Final[Mapping[ImportedRanking, Callable[[bytes, Path, ModelGeometry], Rows]]] = {
    "sparsemm": _sparsemm,
    "duo_attention": _duo_attention,
}


def _gate(cell: str, path: Path, place: str) -> float:
    try:
        gate = float(cell)
    except ValueError:
        gate = math.nan
    if not math.isfinite(gate):
        _broken(path, f"{place} is {cell!r:.40}", "a finite number")
    return min(max(gate, 0.0), 1.0)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _told(geometry: ModelGeometry, what: str, number: int) -> str:
    return f"{geometry.layers} layers of {number} {what}"


def _broken(path: Path, wrong: str, expected: str) -> NoReturn:
    raise ScoresBroken(f"{path}: {wrong}", expected=expected, fix=_FIX)
