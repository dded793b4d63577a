"""Operators that torch.compile does not look into, for work that differs from batch to batch.

Does not know what they do.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

_LIBRARY: Final[Any] = torch.library.Library("vhserve", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's


def opaque_operator(
    name: str, function: Callable[..., Any], fake: Callable[..., Any], changes: Sequence[str] = ()
) -> Callable[..., Any]:
    """Register `function` as `torch.ops.vhserve.<name>`, on any device.

    What `torch.library.custom_op` does, without its Python layers around every call, as in vLLM's own operators.

    Parameters
    ----------
    function
        Its annotations give the operator's schema.
    fake
        Returns empty tensors of the shapes that `function` returns.
    changes
        Names of the arguments that `function` writes.

    Returns
    -------
    The operator.
    """
    _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=changes))
    _LIBRARY.impl(name, function, dispatch_key="CompositeExplicitAutograd")
    torch.library.register_fake(f"vhserve::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.vhserve, name)
    return operator
