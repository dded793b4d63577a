"""Every touch of a surface of vLLM's that is not public, and every mending of its set-up.

Each item says its symptom, its cause, and what must come true for it to go. Look here first when a pin in
pyproject.toml moves. Importing this module is cheap; knows nothing of plans. What makes torchvision importable is in
`profiles.torchvision_import`, because `calibrate` needs it too.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import copy
from typing import Any, Final

from profiles.torchvision_import import ensure_torchvision, was_mended

MENDED: Final = "VHSERVE_IMPORTS_MENDED"
"""Environment variable that makes the processes which a server starts call `ensure_torchvision` as well."""

_COUNTS: Final = "vhserve:"


def mend_child_processes() -> None:
    """Let the processes that vLLM starts from this one import torchvision, if this one had to be mended.

    Symptom
        A server's engine process ends with `operator torchvision::nms does not exist`.
    Cause
        vLLM on CPUs starts its processes by `spawn`. Such a process imports the main module of its parent, and then
        vLLM, before vLLM calls any plugin. So the parent sets an environment variable, which `vhserve.cli` reads when
        it is imported, by `mend_child_process`.
    Removal
        With `ensure_torchvision`.
    """
    if was_mended():
        os.environ[MENDED] = "1"


def mend_child_process() -> None:
    """Call `ensure_torchvision` in a process whose parent called `mend_child_processes` and had to; cheap elsewhere."""
    if os.environ.get(MENDED):
        ensure_torchvision()


def mend_model_inspection() -> None:
    """Let vLLM look at model classes in a subprocess that can import torchvision.

    Symptom
        `Model architectures ['LlavaForConditionalGeneration'] failed to be inspected`.
    Cause
        vLLM imports a model class for the first time in `python -m vllm.model_executor.models.registry`, which imports
        torchvision before it calls any plugin. The command is a module constant without a setting.
    Removal
        With `ensure_torchvision`.

    Does nothing unless `ensure_torchvision` had to mend something in this process.
    """
    if not was_mended():
        return

    from vllm.model_executor.models import registry

    code = (
        "from profiles.torchvision_import import ensure_torchvision; ensure_torchvision(); "
        "from vllm.model_executor.models.registry import _run; _run()"
    )
    registry._SUBPROCESS_COMMAND = [sys.executable, "-c", code]


def quiet_vllm_imports() -> None:
    """Keep what vLLM logs while it is imported off stderr; its own logging set-up replaces this.

    Symptom
        `Triton is installed, but doesn't include CPU backend` on stderr, before a one-line error of ours.
    Cause
        vLLM sets up its logging after its imports; until then Python prints warnings to stderr as a last resort.
    Removal
        vLLM sets up its logging before its first message.
    """
    logging.getLogger("vllm").addHandler(logging.NullHandler())


def serve_command() -> Any:
    """vLLM's `vllm serve`: `name`, `subparser_init(subparsers)`, `validate(arguments)` and, on the class, `cmd`.

    Symptom
        `vllm serve` cannot be asked for its parser, nor started with arguments that were parsed before.
    Cause
        vLLM's command line builds its parser inside `main`; the class that adds the flags and runs the server is not
        among the documented interfaces.
    Removal
        vLLM documents a function that returns the parser of `vllm serve`, and one that runs its arguments.
    """
    from vllm.entrypoints.cli.serve import ServeSubcommand

    return ServeSubcommand()


def flag_parsers() -> tuple[Any, Any]:
    """vLLM's parser of command lines, and within it the one of `vllm serve`; see `serve_command`."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser_class: Any = FlexibleArgumentParser  # untyped
    parser = parser_class(prog="vhserve")
    return parser, serve_command().subparser_init(parser.add_subparsers(dest="subparser"))


def set_up_serving() -> None:
    """Do to this process what `vllm` does before it runs a command: start method of its processes, plugins.

    Symptom
        Engine processes are forked from a process that has threads.
    Cause
        vLLM's `main` sets the start method, in a helper that is not among the documented interfaces.
    Removal
        With `serve_command`.
    """
    from vllm.entrypoints.serve.utils import api_utils

    set_up: Any = api_utils.cli_env_setup  # untyped
    set_up()


def forget_attention(layer_name: str, vllm_config: Any) -> None:
    """Remove an attention layer from the registry by which vLLM finds the layers that need a KV cache.

    Symptom
        `ValueError: Duplicate layer name` when a smaller attention is built in its place; and a KV cache for a layer
        that no longer attends.
    Cause
        An attention layer registers itself in the compilation configuration when it is built; nothing removes it.
    Removal
        vLLM lets a model class choose the heads of each layer before its attention is built.
    """
    del vllm_config.compilation_config.static_forward_context[layer_name]


def around_prefix_lookup(kv_cache_manager: Any, enter: Callable[[Any], AbstractContextManager[None]]) -> None:
    """Run every prefix-cache lookup of a KV cache manager in the context `enter(request)`.

    Symptom
        A group's `find_longest_cache_hit` has no access to the request's image positions.
    Cause
        It is a class method whose arguments are the request's block hashes and not the request.
    Removal
        vLLM passes the request to `find_longest_cache_hit`.

    The method is replaced on the instance, because the scheduler calls it in more than one place.
    """
    stock = kv_cache_manager.get_computed_blocks

    def get_computed_blocks(request: Any) -> Any:
        with enter(request):
            return stock(request)

    kv_cache_manager.get_computed_blocks = get_computed_blocks


def layer_in_batch(layer_name: str) -> Any:
    """An attention layer of the model that runs, by name.

    Symptom
        A custom operator in a compiled model cannot take a Python object.
    Cause
        Operators take tensors and names. vLLM's own find their layer in the forward context, which is not documented.
    Removal
        vLLM documents the forward context.
    """
    from vllm.forward_context import get_forward_context

    return get_forward_context().no_compile_layers[layer_name]


def metadata_of(layer_name: str) -> Any | None:
    """An attention layer's metadata of the batch that runs; None while vLLM measures memory.

    Symptom
        A projection has no access to the attention metadata, and so to the tokens that its layer's attention drops.
    Cause
        Only attention operators read the metadata, from the forward context, which is not documented.
    Removal
        With `layer_in_batch`.
    """
    from vllm.forward_context import get_forward_context

    metadata = get_forward_context().attn_metadata
    if isinstance(metadata, list):
        metadata = metadata[0]  # with speculative decoding: the model's own
    return None if metadata is None else metadata[layer_name]


def copy_of_batch(batch: Any, **changes: Any) -> Any:
    """A shallow copy of a `CommonAttentionMetadata` with other values for some fields.

    Symptom
        Metadata built from a copy holds the sequence lengths of the original.
    Cause
        The dataclass caches values derived from its tensors in two private fields, which `copy` copies.
    Removal
        The derived values become functions of the tensors.
    """
    fresh = copy(batch)
    fresh._num_computed_tokens_cache = None
    fresh._token_to_req_indices_cache = None
    for name, value in changes.items():
        setattr(fresh, name, value)
    return fresh


def register_stock_kv_cache_specs() -> None:
    """Register vLLM's own KV cache specs, so that others can be registered beside them.

    Symptom
        `No manager registered for KVCacheSpec` of vLLM's own `FullAttentionSpec`.
    Cause
        vLLM registers its own specs on first use, but only in an empty registry: never after a plugin's.
    Removal
        vLLM registers its own specs when the registry is imported, or in a registry that is not empty.
    """
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs

    register: Any = register_all_kvcache_specs  # untyped
    register(None)


def put_counts(scheduler_stats: Any, counts: dict[str, int]) -> None:
    """Add an engine's own counts to the statistics of a step, which go to the API server; `take_counts` removes them.

    Symptom
        Numbers that a scheduler puts into its statistics do not arrive.
    Cause
        `SchedulerStats` is a dataclass that is decoded field by field, without a field for extensions. Its fields for
        connectors are free, but vLLM's logger fails on them where no connector is set. The requests waiting by LoRA
        adapter are a mapping of names to numbers that nobody reads without LoRA, and plans refuse LoRA.
    Removal
        `SchedulerStats` gets a field that extensions may fill.
    """
    scheduler_stats.waiting_lora_adapters.update({f"{_COUNTS}{name}": count for name, count in counts.items() if count})


def take_counts(scheduler_stats: Any) -> dict[str, int]:
    """Remove the counts that `put_counts` added to a step's statistics, and return them by name."""
    adapters = scheduler_stats.waiting_lora_adapters
    return {name.removeprefix(_COUNTS): adapters.pop(name) for name in list(adapters) if name.startswith(_COUNTS)}


def api_server_rank(vllm_config: Any) -> int:
    """Which of a server's API server processes this is; 0 is the first, or the only one.

    Symptom
        What is to run once for a server runs once in each API server.
    Cause
        A process knows its place by a field of the configuration that is not public.
    Removal
        vLLM makes the place public.
    """
    rank: int = vllm_config.parallel_config._api_process_rank
    return rank


def placeholders_of(renderer: Any, image_token: int) -> tuple[str, tuple[str, ...]]:
    """How a server's tokenizer writes its model's image token, and all texts that stand for a picture in a message.

    Symptom
        A text that vLLM itself takes for a picture's place goes unnoticed.
    Cause
        The text that vLLM writes for pictures into templates that take one text is known to the model's class alone.
    Removal
        vLLM publishes the placeholders of a model that it serves.
    """
    from vllm.model_executor.model_loader import get_model_cls

    own: str = renderer.get_tokenizer().convert_ids_to_tokens(image_token)
    model_class: Any = get_model_cls(renderer.model_config)
    return own, tuple({own, model_class.get_placeholder_str("image", 1)})


def around_prompts(renderer: Any, messages: Callable[[Any], None], prompt: Callable[[Any], None]) -> None:
    """Call checks on an API server's prompts: on messages before they are rendered, on what goes to the engine after.

    Symptom
        `<image>` in a text, of a system message or an earlier turn, gets the picture of a later one; in a prompt
        without pictures the model sees an image token that shows nothing.
    Cause
        vLLM puts pictures wherever the image token stands in the rendered prompt, whoever wrote it. Its renderer, which
        all routes share, has no place for checks.
    Removal
        vLLM refuses or escapes image tokens in texts.
    """
    render, render_async = renderer.render_messages, renderer.render_messages_async
    process, process_async = renderer.process_for_engine, renderer.process_for_engine_async

    def render_messages(asked: Any, params: Any) -> Any:
        messages(asked)
        return render(asked, params)

    async def render_messages_async(asked: Any, params: Any) -> Any:
        messages(asked)
        return await render_async(asked, params)

    def process_for_engine(*args: Any, **options: Any) -> Any:
        prompt(made := process(*args, **options))
        return made

    async def process_for_engine_async(*args: Any, **options: Any) -> Any:
        prompt(made := await process_async(*args, **options))
        return made

    renderer.render_messages, renderer.render_messages_async = render_messages, render_messages_async
    renderer.process_for_engine, renderer.process_for_engine_async = process_for_engine, process_for_engine_async


def engine_failed(engine_client: Any) -> bool:
    """Whether an engine process of an API server has ended by itself, and not because the server stopped it.

    Symptom
        `vllm serve` exits with 0 when its engine was killed or failed.
    Cause
        Its server then stops as on SIGTERM; only the exit codes of the processes differ, and the client does not
        publish them.
    Removal
        `vllm serve` exits with another code than 0 when its engine ended by itself.
    """
    manager = engine_client.engine_core.resources.engine_manager
    stopped_or_running = (0, None, -signal.SIGTERM)
    return any(process.exitcode not in stopped_or_running for process in getattr(manager, "processes", ()))
