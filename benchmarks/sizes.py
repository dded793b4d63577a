"""Flags for the size of a benchmark's model, and the geometry that they mean. Does not know what is measured."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.dummy_model import Geometry


def numbers(text: str) -> list[int]:
    """Of a comma list."""
    return [int(one) for one in text.split(",")]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `geometry` reads."""
    parser.add_argument("--model", default="scaled-down", help="scaled-down, or an alias of `vhserve models`")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--hidden-size", type=int, help="another than the model has; the feed-forward's in proportion")
    parser.add_argument("--heads", type=int, help="another number of heads than the model has, each with its KV head")
    parser.add_argument("--head-size", type=int, help="another than the model has; 32 or more on CPUs")
    parser.add_argument("--image-tokens", type=int, help="a square number; the model's own by default")


def geometry(args: argparse.Namespace) -> "Geometry":
    """The model's geometry with what was given."""
    from benchmarks import dummy_model  # imports transformers

    made = dummy_model.geometry_of(args.model)
    given = {size: getattr(args, size) for size in ("image_tokens", "layers", "head_size", "hidden_size")}
    if args.heads:
        given |= {"query_heads": args.heads, "kv_heads": args.heads}
    if args.hidden_size:
        given["intermediate_size"] = made.intermediate_size * args.hidden_size // made.hidden_size
    return replace(made, **{size: value for size, value in given.items() if value})
