"""Every name of vLLM's that vhserve imports, calls, overrides or replaces, in each release that it is made for.

Reads the sources alone: neither release is imported, and the second need not be installed.
"""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from vllm_releases import Installed, NotOnIndex, OnIndex
from vllm_surface import Files, Function, Release, Signature, Source, sources

ROOT = Path(__file__).parents[2]
OURS = sources(ROOT)
OTHER = "0.33.0"

OFFLOADING = (
    "vllm.distributed.kv_transfer.kv_connector.v1.offloading.scheduler",
    "OffloadingConnectorScheduler",
)

REPLACED = {
    "shutdown": ("vllm.v1.engine.async_llm", "AsyncLLM"),
    "get_output_async": ("vllm.v1.engine.core_client", "AsyncMPClient"),
    "_update_states": ("vllm.v1.worker.gpu_model_runner", "GPUModelRunner"),
    "_process_mm_uuids": ("vllm.renderers.base", "BaseRenderer"),
    "add_request": ("vllm.v1.engine.async_llm", "AsyncLLM"),
    "preprocess_add_request": ("vllm.v1.engine.core", "EngineCore"),
    "get_and_update_item": ("vllm.multimodal.cache", "LruKeyReplicatedSenderCache"),
    "update_mm_cache_stats": ("vllm.renderers.base", "BaseRenderer"),
    "add_request_async": ("vllm.v1.engine.core_client", "AsyncMPClient"),
    "get_computed_blocks": ("vllm.v1.core.kv_cache_manager", "KVCacheManager"),
    "allocate_slots": ("vllm.v1.core.kv_cache_manager", "KVCacheManager"),
    "_free_request": ("vllm.v1.core.sched.scheduler", "Scheduler"),
    "_reserve_prefill_lookahead": ("vllm.v1.core.sched.scheduler", "Scheduler"),
    "_update_request_as_session": ("vllm.v1.core.sched.scheduler", "Scheduler"),
    "strip_covered_mm_data": ("vllm.v1.core.sched.output", None),
    "_maximal_prefix_lookup": OFFLOADING,
    "update_state_after_alloc": OFFLOADING,
    "_update_req_states": OFFLOADING,
    "_build_store_jobs": OFFLOADING,
    "check_frame_pixel_limit": ("vllm.multimodal.video_decoders.base", None),
    "wait_for_completion_or_failure": ("vllm.entrypoints.cli.serve", None),
}
"""What `vhserve.compat` puts its own functions in the place of: (module, class)."""


@pytest.fixture(scope="module", params=["installed", OTHER])
def release(request: pytest.FixtureRequest) -> Release:
    """A release's source."""
    try:
        files: Files = Installed() if request.param == "installed" else OnIndex(request.param)
        assert files.read("vllm/__init__.py")
    except NotOnIndex as error:
        pytest.skip(str(error))
    return Release(files)


def test_every_imported_name_is_there(release: Release) -> None:
    missing = [
        f"{source.name}: {' or '.join(f'{module}.{name}' for module, name in group)}"
        for source in OURS.values()
        for group in source.alternatives
        if not any(release.find(module, name) if name else release.module(module) for module, name in group)
    ]
    assert not missing
    assert sum(len(source.alternatives) for source in OURS.values()) > 80


def found_of(release: Release, source: Source, name: str) -> Iterator[tuple[str, ast.AST]]:
    """What a name of a module of ours stands for in a release."""
    for module, own in source.bound.get(name, ()):
        tree = release.module(module)
        found = release.find(module, own) if own else (module, tree) if tree else None
        if found:
            yield found


def test_every_attribute_of_an_imported_module_or_class_is_there(release: Release) -> None:
    missing, seen = [], 0
    for source in OURS.values():
        for node in ast.walk(source.tree):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                continue
            for module, owner in found_of(release, source, node.value.id):
                if isinstance(owner, ast.Module):
                    found = release.find(module, node.attr)
                elif isinstance(owner, ast.ClassDef):
                    found = release.member(module, owner, node.attr)
                    if any(base_is_foreign(release, *one) for one in release.lineage(module, owner)):
                        continue
                else:
                    continue
                seen += 1
                if found is None and not node.attr.startswith("__"):
                    missing.append(f"{source.name}:{node.lineno}: {node.value.id}.{node.attr}")
    assert not missing
    assert seen > 15


def base_is_foreign(release: Release, module: str, owner: ast.ClassDef) -> bool:
    """Whether a class has a base of another library, such as an enumeration, whose members are not known here."""
    return any(
        not (
            isinstance(base, ast.Name)
            and (found := release.find(module, base.id))
            and isinstance(found[1], ast.ClassDef)
        )
        for base in owner.bases
    )


def called(release: Release, module: str, node: ast.AST) -> Signature | None:
    """Signature of a function, or of a class by its `__init__`; None where it has none that is written out."""
    if isinstance(node, Function):
        return Signature.of(node)
    if isinstance(node, ast.ClassDef):
        init = release.member(module, node, "__init__")
        return Signature.of(init[1]) if init and isinstance(init[1], Function) else None
    return None


def meant(release: Release, source: Source, called: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    """What `name` or `name.attribute` in front of a call's arguments is in a release."""
    if isinstance(called, ast.Name):
        yield from found_of(release, source, called.id)
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        for module, owner in found_of(release, source, called.value.id):
            found = None
            if isinstance(owner, ast.Module):
                found = release.find(module, called.attr)
            elif isinstance(owner, ast.ClassDef):
                found = release.member(module, owner, called.attr)
            if found:
                yield found


def test_every_call_of_an_imported_name_fits_its_signature(release: Release) -> None:
    wrong, seen = [], 0
    for source in OURS.values():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                for module, one in meant(release, source, node.func):
                    if (signature := called(release, module, one)) is not None:
                        seen += 1
                        if reason := signature.why_not_called_by(node):
                            wrong.append(f"{source.name}:{node.lineno}: {ast.unparse(node.func)} {reason}")
    assert not wrong
    assert seen > 20


def lineage(source: Source, owner: ast.ClassDef) -> Iterator[tuple[Source, ast.ClassDef]]:
    """A class of ours and those of ours that it derives from."""
    yield source, owner
    for base in owner.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        if not isinstance(named, ast.Name):
            continue
        if named.id in source.classes:
            yield from lineage(source, source.classes[named.id])
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.module in OURS:
                other = OURS[node.module]
                for alias in node.names:
                    if (alias.asname or alias.name) == named.id and alias.name in other.classes:
                        yield from lineage(other, other.classes[alias.name])


def overrides(release: Release) -> Iterator[tuple[str, Function, Function]]:
    """Methods of ours that stand in the place of one of vLLM's: (where, ours, vLLM's)."""
    for source in OURS.values():
        for owner in source.classes.values():
            family = list(lineage(source, owner))
            bases = [
                found
                for one, kind in family
                for base in kind.bases
                if isinstance(base, ast.Name)
                for found in found_of(release, one, base.id)
                if isinstance(found[1], ast.ClassDef)
            ]
            for one, kind in family:
                for method in kind.body:
                    if isinstance(method, Function) and method.name != "__init__":
                        for module, base in bases:
                            stock = release.member(module, base, method.name)
                            if stock and isinstance(stock[1], Function):
                                yield f"{one.name}: {kind.name}.{method.name}", method, stock[1]


def test_methods_that_override_take_what_vllm_gives_them(release: Release) -> None:
    found = list(overrides(release))
    wrong = {
        f"{where} {reason}"
        for where, own, stock in found
        if (reason := Signature.of(own).why_not_in_place_of(Signature.of(stock)))
    }
    assert not wrong
    assert len({where for where, _, _ in found}) > 20


def test_methods_of_vllm_that_are_called_by_super_take_what_they_are_given(release: Release) -> None:
    wrong, seen = [], 0
    for where, own, stock in overrides(release):
        for node in ast.walk(own):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "super()"
                and node.func.attr == own.name
            ):
                seen += 1
                if reason := Signature.of(stock).why_not_called_by(node):
                    wrong.append(f"{where} {reason}")
    assert not wrong
    assert seen > 5


def replacements() -> dict[str, Function]:
    """Functions that `vhserve.compat` puts in the place of vLLM's, by name of what they replace."""
    found = {}
    for source in OURS.values():
        if not source.name.startswith("vhserve.compat"):
            continue
        for outer in ast.walk(source.tree):
            if not isinstance(outer, Function):
                continue
            inner = {node.name: node for node in ast.walk(outer) if isinstance(node, Function) and node is not outer}
            for node in ast.walk(outer):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                    value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
                    if isinstance(value, ast.Name) and value.id in inner:
                        found[node.targets[0].attr] = inner[value.id]
    return found


def test_the_table_names_what_is_replaced() -> None:
    assert replacements().keys() == REPLACED.keys()


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_put_in_place_of_a_function_takes_what_that_is_given(release: Release, name: str) -> None:
    module, owner = REPLACED[name]
    found = release.find(module, owner or name)
    assert found, f"vLLM has no {module}.{owner or name}"
    if owner:
        assert isinstance(found[1], ast.ClassDef)
        found = release.member(found[0], found[1], name)
        assert found, f"vLLM's {owner} has no {name}"
    assert isinstance(found[1], Function)
    own, stock = Signature.of(replacements()[name]), Signature.of(found[1])
    if (first := own.positional[:1]) in (("runner",), ("core",)):  # put on the class, so `self` is given
        own = replace(own, positional=own.positional[1:], required=own.required - set(first))
    assert own.why_not_in_place_of(stock) is None


def test_a_waiting_request_is_given_blocks_with_the_arguments_that_admission_reads(release: Release) -> None:
    module, owner = REPLACED["_free_request"]
    found = release.find(module, owner or "")
    assert found
    calls = [
        {argument.arg for argument in node.keywords}
        for node in ast.walk(found[1])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "allocate_slots"
    ]
    assert any({"has_scheduled_reqs", "new_computed_blocks"} <= given for given in calls)


USED = (
    ("vllm.platforms.interface", "Platform", "update_block_size_for_backend"),
    ("vllm.v1.core.kv_cache_manager", "KVCacheManager", "get_computed_blocks"),
    ("vllm.entrypoints.cli.serve", "ServeSubcommand", "subparser_init"),
)
"""Methods of objects that vLLM makes, which are called by name alone: (module, class, method)."""


@pytest.mark.parametrize(("module", "owner", "name"), USED)
def test_methods_of_vllms_objects_are_there(release: Release, module: str, owner: str, name: str) -> None:
    found = release.find(module, owner)
    assert found
    assert isinstance(found[1], ast.ClassDef)
    assert release.member(found[0], found[1], name)


def test_a_method_that_takes_less_is_seen() -> None:
    """0.33 gives `get_computed_blocks` a second argument, by position."""
    stock, ours = (
        Signature.of(node)
        for node in ast.parse("def get(self, request, max_cache_hit_length=None): ...\ndef get(request): ...").body
        if isinstance(node, Function)
    )
    assert ours.why_not_in_place_of(stock)
    assert stock.why_not_in_place_of(stock) is None
