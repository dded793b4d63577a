"""Does a chat template take a message's content for a list of parts or for one text? Decided as vLLM decides it.

vLLM looks for a loop over some message's content in the template's syntax tree (`vllm/renderers/hf.py`), and hands
content to the template accordingly; a prompt is only the server's if it is written the same way. Owns that decision.
Does not know models.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from transformers.utils.chat_template_utils import _compile_jinja_template

from profiles.chat_template import ContentFormat


@lru_cache(maxsize=32)
def content_format(template: str) -> ContentFormat:
    """The format of a template; `string` where it cannot be told."""
    try:
        compile_template: Any = _compile_jinja_template  # untyped
        tree = compile_template(template).environment.parse(template)
        return "openai" if any(_content_loops(tree)) else "string"
    except (TemplateError, _Undecided):
        return "string"


class _Undecided(Exception):
    """A loop over messages or content with more than one variable, or a list of messages assigned to several."""


def _content_loops(tree: nodes.Template) -> Iterator[nodes.For]:
    """Loops over a message's content: as a field of a message, as a macro's parameter that gets one, or by its name."""
    lists = _lists(tree)
    messages = [_target(loop) for loop in tree.find_all(nodes.For) if any(_reads(loop.iter, one) for one in lists)]
    loops_of_macros: dict[int, set[str]] = {}
    for macro in tree.find_all(nodes.Macro):
        parameters = _content_parameters(tree, macro, messages)
        loops_of_macros |= {id(loop): parameters for loop in macro.find_all(nodes.For)}
    for loop in tree.find_all(nodes.For):
        names = loops_of_macros.get(id(loop), {"content"})
        by_name = isinstance(loop.iter, nodes.Name) and loop.iter.name in names
        if by_name or any(_reads(loop.iter, one, "content") for one in messages):
            _target(loop)
            yield loop


def _lists(tree: nodes.Template) -> list[str]:
    """Names of the list of messages, its slices and filtered copies."""
    found = ["messages"]
    for name in found:  # grows as aliases of aliases are found
        for assignment in tree.find_all(nodes.Assign):
            if _reads(assignment.node, name):
                if not isinstance(assignment.target, nodes.Name):
                    raise _Undecided
                if assignment.target.name not in found:
                    found.append(assignment.target.name)
    return found


def _content_parameters(tree: nodes.Template, macro: nodes.Macro, messages: list[str]) -> set[str]:
    """Parameters of a macro that get a message's content somewhere."""
    names, found = [argument.name for argument in macro.args], set()
    for call in tree.find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name != macro.name:
            continue
        given = [*zip(names, call.args, strict=False), *((one.key, one.value) for one in call.kwargs)]
        found |= {
            name for name, value in given if name in names and any(_reads(value, one, "content") for one in messages)
        }
    return found


def _target(loop: nodes.For) -> str:
    if not isinstance(loop.target, nodes.Name):
        raise _Undecided
    return loop.target.name


def _reads(node: nodes.Node | None, name: str, field: str | None = None) -> bool:
    """Whether an expression is a variable, or one field of it, perhaps behind filters, tests and slices."""
    if isinstance(node, nodes.Filter | nodes.Test):
        return node.node is not None and _reads(node.node, name, field)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _reads(node.node, name, field)
    if field is None:
        return _is_variable(node, name)
    if isinstance(node, nodes.Getitem):
        return _is_variable(node.node, name) and isinstance(node.arg, nodes.Const) and node.arg.value == field
    return isinstance(node, nodes.Getattr) and node.attr == field and _is_variable(node.node, name)


def _is_variable(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name
