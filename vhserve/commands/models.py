"""`vhserve models`: the table of models that are known by a short name.

The table itself is in `calibrate.models.known`.
"""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from vhserve.option_types import JSON

if TYPE_CHECKING:
    from calibrate.models.known import KnownModel


MARKS = ("*", "**", "***")


class Models(BaseModel):
    """List the models that `--model` knows by a short name, with their geometry; any Hub id or folder works too."""

    json_: bool = Field(False, alias="json", description=JSON)

    def cli_cmd(self) -> None:
        """Print the table."""
        from rich.console import Console

        from calibrate.models.known import KNOWN
        from calibrate.terminal_tables import FoldedTable

        if self.json_:
            import json

            print(json.dumps([describe(model) for model in KNOWN.values()], indent=2))
            return
        table = FoldedTable(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("alias", "Hub id"):
            table.add_column(name, no_wrap=True)
        for name in ("heads", "image", "surgery"):
            table.add_column(name, justify="right", no_wrap=True)
        marks = dict(zip(dict.fromkeys(model.note for model in KNOWN.values() if model.note), MARKS, strict=False))
        for model in KNOWN.values():
            kv = "" if model.kv_heads == model.query_heads else f"/{model.kv_heads}"
            heads = f"{model.layers}x{model.query_heads}{kv}x{model.head_size}"
            width, height = model.picture
            image = f"{model.image_tokens} ({width}x{height})"
            table.add_row(
                model.alias + marks.get(model.note, ""), model.origin, heads, image, model.surgery or "refused"
            )
        console = Console(highlight=False, soft_wrap=True)
        console.print(table)
        console.print()
        notes = [
            "heads: layers x query heads (/ KV heads) x head size",
            "image: tokens of a usual picture (its pixels)",
            "surgery: of weights as they are; quantised ones and LoRA are gathered (vhserve serve --surgery)",
        ]
        for line in notes + [f"{mark} {note}" for note, mark in marks.items()]:
            console.print(line, markup=False, soft_wrap=False, no_wrap=False, overflow="fold")


def describe(model: "KnownModel") -> dict[str, Any]:
    """One row of the table, as JSON values."""
    return {
        "alias": model.alias,
        "hub": None if model.alias == "demo" else model.hub,
        "architecture": model.architecture,
        "layers": model.layers,
        "query_heads": model.query_heads,
        "kv_heads": model.kv_heads,
        "head_size": model.head_size,
        "hidden_size": model.hidden_size,
        "image_tokens": model.image_tokens,
        "picture": list(model.picture),
        "surgery": model.surgery,
        "surgery_quantised": model.surgery and "gather",
        "calibrate": model.loadable,
        "serve": model.loadable,
        "note": model.note,
    }
