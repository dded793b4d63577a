"""Every touch of a surface of vLLM's that is not public, and every mending of its set-up.

Each item says its symptom, its cause, and what must come true for it to go. Look here first when a pin in
pyproject.toml moves. Importing this module is cheap; knows nothing of plans. What makes torchvision importable is in
`profiles.torchvision_import`, because `calibrate` needs it too.
"""

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from copy import copy
from typing import Any, Final, NoReturn

from profiles.torchvision_import import ensure_torchvision, was_mended

MENDED: Final = "VHSERVE_IMPORTS_MENDED"
"""Environment variable that makes the processes which a server starts call `ensure_torchvision` as well."""

PARENT: Final = "VHSERVE_PARENT_PROCESS"
"""Environment variable with the process whose children are to end with it."""

_PR_SET_PDEATHSIG: Final = 1

_COUNTS: Final = "vhserve:"
_EVICTS: Final = "vhserve_evicts"


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
    """Do in a process that a server starts what its parent asked for before; cheap elsewhere."""
    if os.environ.get(MENDED):
        ensure_torchvision()
    if os.environ.get(PARENT) == str(os.getppid()):
        _end_with_parent()
        end_child_processes_with_this_one()


def end_child_processes_with_this_one() -> None:
    """Let the processes that vLLM starts from this one, and those that they start, be killed when their parent ends.

    Symptom
        An API server that is killed leaves its engine and workers behind, with all their memory, for ever.
    Cause
        vLLM's processes end their children when they end in order. A child looks for its parent only while it starts;
        after that an engine waits for requests, whoever would send them.
    Removal
        An engine process ends when the process that started it is gone.

    They hear of it as `mend_child_process` hears of torchvision; forked ones by a hook. Linux only. The kernel sends
    the signal when the *thread* ends that started the process: vLLM starts its processes from main threads.
    """
    _kernel()  # a forked process must not be the first to load it
    os.environ[PARENT] = str(os.getpid())
    os.register_at_fork(after_in_child=_end_with_parent)


@functools.cache
def _kernel() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _end_with_parent() -> None:
    parent, os.environ[PARENT] = int(os.environ[PARENT]), str(os.getpid())
    if sys.platform == "linux":
        _kernel().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel knew
            os._exit(1)


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


def end_chunks_early(scheduler: Any, limit: Callable[[Any, int, int], int]) -> None:
    """Let a scheduler compute at most `limit(request, computed tokens, tokens)` tokens of a request in a step.

    Symptom
        A step computes the end of a prompt and tokens of its reply, as one chunk, when a request is computed anew.
    Cause
        Chunks end where the budget of a step does, or where a draft model needs them to.
    Removal
        vLLM has a hook for where chunks may end.

    The method that is wrapped is called for every request that is scheduled, after its images are chosen.
    """
    stock = scheduler._reserve_prefill_lookahead

    def reserve(request: Any, computed: int, tokens: int) -> int:
        return limit(request, computed, stock(request, computed, tokens))

    scheduler._reserve_prefill_lookahead = reserve


def keep_image_data() -> None:
    """Send the workers all images of a new request, even those whose tokens its prefix hit covers; idempotent.

    Symptom
        `RuntimeError: Encoder cache miss`, which ends the engine, when a request is preempted and finds less of its
        prefix cached than when it began. In vLLM without a plan too, and likelier where image blocks are freed early.
    Cause
        The scheduler strips the pixels of images inside the first prefix hit, and Model Runner V1 has none to encode
        when the next hit is shorter.
    Removal
        vLLM sends the pixels again when a request is resumed, or does not strip them.
    """
    import vllm.v1.core.sched.output

    def unstripped(mm_features: Any, *args: Any, **options: Any) -> Any:
        return mm_features

    output: Any = vllm.v1.core.sched.output
    output.strip_covered_mm_data = unstripped


def evict_in_workers(vllm_config: Any, evicted: Callable[[Any, Sequence[Any]], Sequence[Sequence[int]]]) -> None:
    """Let workers forget blocks of a request from the first token of its reply on, as their scheduler does; idempotent.

    Symptom
        Replies see image blocks that were freed, and what other requests have written there since.
    Cause
        A worker's block table is append-only: a step names a request's new blocks and not those that it lost.
        Replacing the whole table by `resumed_req_ids` is wrong with async scheduling, and not possible with runner V2.
    Removal
        A step can name blocks that became null.

    Parameters
    ----------
    evicted
        Columns to set to the null block, for each KV cache group, of a `KVCacheConfig` and a request's features.
    """
    if vllm_config.use_v2_model_runner:
        from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2

        _evict_in_v2(RunnerV2, evicted)
    else:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        _evict_in_v1(GPUModelRunner, evicted)


def _evict_in_v1(runner_class: Any, evicted: Callable[[Any, Sequence[Any]], Sequence[Sequence[int]]]) -> None:
    stock = runner_class._update_states
    if hasattr(stock, _EVICTS):
        return

    def update_states(runner: Any, scheduler_output: Any) -> Any:
        corrections = stock(runner, scheduler_output)
        batch = runner.input_batch
        in_reply = batch.num_computed_tokens_cpu[: batch.num_reqs] >= batch.num_prompt_tokens[: batch.num_reqs]
        for row in in_reply.nonzero()[0]:
            state = runner.requests[batch.req_ids[row]]
            # A preempted request comes back with another tuple of blocks.
            if getattr(state, _EVICTS, None) is state.block_ids:
                continue
            setattr(state, _EVICTS, state.block_ids)
            for group, columns in enumerate(evicted(runner.kv_cache_config, state.mm_features)):
                for column in columns:
                    state.block_ids[group][column] = 0  # from where a row is made that was out of the batch
                    batch.block_table[group].block_table.np[row, column] = 0
        return corrections

    setattr(update_states, _EVICTS, True)
    runner_class._update_states = update_states


def _evict_in_v2(runner_class: Any, evicted: Callable[[Any, Sequence[Any]], Sequence[Sequence[int]]]) -> None:
    stock_add, stock_update = runner_class.add_requests, runner_class.update_requests
    if hasattr(stock_update, _EVICTS):
        return

    def add_requests(runner: Any, scheduler_output: Any) -> None:
        # Two staged writes to one place are not ordered, so what is resumed in its reply comes without these blocks.
        for new in scheduler_output.scheduled_new_reqs:
            _done(runner).discard(new.req_id)
            if new.num_computed_tokens >= new.prompt_len:
                _done(runner).add(new.req_id)
                for group, columns in enumerate(evicted(runner.kv_cache_config, new.mm_features)):
                    for column in columns:
                        new.block_ids[group][column] = 0
        stock_add(runner, scheduler_output)

    def update_requests(runner: Any, scheduler_output: Any) -> None:
        stock_update(runner, scheduler_output)
        states, done = runner.req_states, _done(runner)
        done.difference_update(scheduler_output.finished_req_ids)
        cached = scheduler_output.scheduled_cached_reqs
        for name, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            index = states.req_id_to_index[name]
            # The prompt's own length: what a resumed request has to compute first includes its reply.
            if name in done or computed < states.prompt_len.np[index]:
                continue
            done.add(name)
            features = runner.encoder_cache.mm_features.get(name, ())
            for group, columns in enumerate(evicted(runner.kv_cache_config, features)):
                for column in columns:
                    runner.block_tables.block_tables[group].stage_write(index, column, [0])

    def _done(runner: Any) -> set[str]:
        done: set[str] = runner.__dict__.setdefault(_EVICTS, set())
        return done

    setattr(update_requests, _EVICTS, True)
    runner_class.add_requests, runner_class.update_requests = add_requests, update_requests


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


def image_processor_of(renderer: Any) -> Any | None:
    """transformers' image processor of an API server's model; None where there is none.

    Symptom
        A picture's size after resizing, which may be a thousand times its own, is known only when it has been resized.
    Cause
        vLLM asks its processor for what a picture becomes, not for what it takes; the one behind is not published.
    Removal
        vLLM limits what its processors make of a picture, by a picture's size.
    """
    if renderer.mm_processor is None:
        return None
    return getattr(renderer.mm_processor.info.get_hf_processor(), "image_processor", None)


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


def grammar_trial(vllm_config: Any) -> Callable[[Any], None]:
    """A function that does to a request's `SamplingParams` what vLLM does to compile its structured output, or raises.

    Symptom
        Choices of 200 kB keep an engine's core busy for minutes after their client has left, and all later structured
        outputs wait.
    Cause
        vLLM compiles in threads of the engine, which cannot be ended, and has a time limit for waiting alone.
    Removal
        vLLM compiles in processes that it ends after a time.

    Call it in a process of its own, for it takes as long as it takes; make it before that one is forked, so that the
    vocabulary is prepared once. An engine keeps the backend of the first structured output that it was asked for, which
    may be xgrammar where this request would have another.
    """
    from types import SimpleNamespace

    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
    from vllm.v1.structured_output.request import StructuredOutputRequest

    model, config = vllm_config.model_config, vllm_config.structured_outputs_config
    tokenizer = cached_tokenizer_from_config(model_config=model)
    manager = StructuredOutputManager(vllm_config)
    manager._use_async_grammar_compilation = False
    xgrammar = XgrammarBackend(vllm_config, tokenizer=tokenizer, vocab_size=model.get_vocab_size())

    def compile_with(backend: Any, params: Any) -> None:
        manager.backend = backend
        asked = StructuredOutputRequest.from_sampling_params(params)
        request: Any = SimpleNamespace(structured_output_request=asked, sampling_params=params, request_id="trial")
        manager.grammar_init(request)
        grammar: Any = asked and asked.grammar
        if isinstance(grammar, Exception):
            raise grammar
        if grammar is not None and manager.backend is not None:
            grammar.fill_bitmask(allowed := manager.backend.allocate_token_bitmask(1), 0)
            if not allowed.any():  # vLLM would end such a request with status 500
                raise ValueError("no token of this model can begin it")

    def trial(params: Any) -> None:
        params._validate_structured_outputs(model, config, tokenizer)
        if params.structured_outputs._backend == "xgrammar":
            compile_with(xgrammar, params)
        else:
            compile_with(None, params)
            with contextlib.suppress(Exception):
                compile_with(xgrammar, params)

    return trial


def before_adding_requests(engine_client: Any, check: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Await `check(parameters)` before an API server takes a request in; it may raise by `refuse_request`.

    Symptom
        vLLM converts schemas and regular expressions in the API server's event loop, which answers nobody meanwhile.
    Cause
        The client's `add_request` validates them, in line.
    Removal
        With `grammar_trial`.
    """
    stock = engine_client.add_request

    async def add_request(request_id: str, prompt: Any, params: Any, *rest: Any, **named: Any) -> Any:
        await check(params)
        return await stock(request_id, prompt, params, *rest, **named)

    engine_client.add_request = add_request


def refuse_request(message: str) -> NoReturn:
    """Raise what vLLM turns into status 400.

    Symptom
        Other exceptions inside a request become status 500.
    Cause
        vLLM tells clients' mistakes by a class that is not among the documented interfaces.
    Removal
        vLLM documents it.
    """
    from vllm.exceptions import VLLMValidationError

    raise VLLMValidationError(message)


def ignore_client_uuids(renderer: Any) -> None:
    """Let an API server know pictures by their content, whichever `uuid` a request gives them.

    Symptom
        A picture is answered with another client's, which has the same `uuid`.
    Cause
        vLLM takes the `uuid` of a content part as the picture's key in its caches, which all clients share.
    Removal
        vLLM adds the content, or the client, to that key.

    A picture without data, which only its `uuid` could tell, is refused with status 400.
    """
    stock = renderer._process_mm_uuids

    def without_uuids(mm_data: Any, mm_data_items: Any, mm_uuid_items: Any, mm_req_id: str) -> Any:
        for modality in mm_uuid_items:
            if any(item is None for item in mm_data_items.get(modality) or [None]):
                raise ValueError(
                    f"{modality} without data: this server keeps nothing by a client's uuid; send the {modality}, "
                    "or serve with --trust-client-media-uuid"
                )
        return stock(mm_data, mm_data_items, {}, mm_req_id)

    renderer._process_mm_uuids = without_uuids


def send_media_until_sent(engine_client: Any, unsent: Any) -> None:
    """Let an API server leave a picture out of a request only when its engine has been sent that picture before.

    Parameters
    ----------
    unsent
        An `UnsentMedia`, empty.

    Symptom
        A valid request gets status 500, and the log says `P0/P1 cache drift`, where one with the same picture was
        refused (a prompt that is too long, a parameter, a grammar), was given up by its client, or is still checked.
    Cause
        The server's cache takes a picture for known to the engine when it has been processed, and not when a request
        has taken it there. Later requests then hold its hash alone.
    Removal
        vLLM's cache of the sender learns of a picture when it is sent.

    The cache's other kinds send data, or its place in shared memory, with every request. A picture is dropped from
    `unsent` between the processing of two requests only: vLLM asks the cache at the beginning and trusts it to the end.
    """
    from vllm.multimodal.cache import LruKeyReplicatedSenderCache
    from vllm.multimodal.cache.base import MultiModalCache

    renderer, engine_core = engine_client.renderer, engine_client.engine_core
    if not isinstance(renderer.mm_processor_cache, LruKeyReplicatedSenderCache):
        return
    cache: Any = renderer.mm_processor_cache
    get, add_request = cache.get_and_update_item, engine_core.add_request_async
    after_processing = renderer.update_mm_cache_stats

    def get_and_update_item(given: Any, key: str) -> Any:
        item, prompt_updates = get(given, key)
        if item is None:
            return unsent.get(key), prompt_updates
        if cache.is_cached_item(key):
            unsent.keep(key, item, MultiModalCache.get_item_size(item))
        return item, prompt_updates

    def update_mm_cache_stats() -> None:
        after_processing()
        for key in unsent.drop_excess():
            cache.invalidate(key)

    async def add_request_async(request: Any) -> None:
        await add_request(request)
        for feature in request.mm_features or ():
            if feature.data is not None:
                unsent.forget(feature.mm_hash or feature.identifier)

    cache.get_and_update_item = get_and_update_item
    renderer.update_mm_cache_stats = update_mm_cache_stats
    engine_core.add_request_async = add_request_async


def chat_template_of(renderer: Any, given: str | None, given_format: str) -> tuple[str, str] | None:
    """The chat template that an API server writes prompts with, and its content format; None where there is none.

    Parameters
    ----------
    given, given_format
        As of --chat-template and --chat-template-content-format.

    Symptom
        Which template a server uses is said by no route and no log.
    Cause
        vLLM looks for it with every request, in functions that are not public.
    Removal
        vLLM publishes the template in force.
    """
    from vllm.renderers.chat_utils import load_chat_template
    from vllm.renderers.hf import HfRenderer, resolve_chat_template, resolve_chat_template_content_format

    if not isinstance(renderer, HfRenderer):
        return None
    config: Any = renderer.model_config
    tokenizer: Any = renderer.get_tokenizer()
    text = resolve_chat_template(tokenizer, load_chat_template(given), None, model_config=config)
    if text is None:
        return None
    wanted: Any = given_format
    return text, resolve_chat_template_content_format(text, None, wanted, tokenizer, model_config=config)


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


def before_shutdown(engine_client: Any, prepare: Callable[[float], Coroutine[Any, Any, None]]) -> None:
    """Await `prepare(seconds)` before SIGTERM shuts an API server's engine client down; call this in its event loop.

    Symptom
        After SIGTERM, requests get status 500; with several API servers running streams break off; and the log has an
        `EngineDeadError` with its traceback.
    Cause
        On the signal vLLM's launcher calls the client's `shutdown` in a thread, and only then stops its HTTP server.
        That method tells the engine to end, which aborts what still comes (with several API servers it closes the
        sockets instead), and cancels the task that reads the engine's outputs last: a race, which the task loses on a
        busy machine, and then takes the closed sockets for a dead engine.
    Removal
        vLLM refuses requests, waits for those that run, and cancels that task, before it stops the engine.
    """
    loop = asyncio.get_running_loop()
    stock = engine_client.shutdown

    def shutdown(timeout: float | None = None) -> None:
        engine_client.shutdown = stock  # it is called again as the server's context ends
        begun = time.monotonic()
        if not _is_running_here(loop):  # there, an engine has ended by itself
            try:
                asyncio.run_coroutine_threadsafe(prepare(timeout or 0.0), loop).result()
            except Exception:
                logging.getLogger("vllm.vhserve").exception("the server could not be drained")
        stock(timeout=timeout and max(0.0, timeout - (time.monotonic() - begun)))

    engine_client.shutdown = shutdown


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def stop_reading_outputs(engine_client: Any) -> None:
    """Cancel the task of an API server that reads its engines' outputs, and wait until it has ended.

    Symptom, Cause, Removal
        As of `before_shutdown`.
    """
    task = engine_client.output_handler
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


async def abort_requests(engine_client: Any) -> None:
    """Abort every request of an API server; each ends with the reason `abort`.

    Symptom
        Requests that outlast the time to drain in end as if the engine had died.
    Cause
        vLLM kills the engine then; which requests run is not public.
    Removal
        vLLM aborts them.
    """
    await engine_client.abort(list(engine_client.output_processor.external_req_ids))
