"""`vhserve serve`: the flags, and the order of the steps. What a step does is in `vhserve.server`."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg, CliUnknownArgs

from profiles.pictures.limits import MAX_PIXELS, MAX_REQUEST_PIXELS
from vhserve import STARTED
from vhserve.commands.flags import flags as own_flags
from vhserve.commands.needed_options import check_needed
from vhserve.commands.served_model import check_files, compare_revision, find_model, is_on_hub, pin
from vhserve.option_types import Samples, Seconds, Share

if TYPE_CHECKING:
    from profiles.pruning_plan import PruningPlan
    from vhserve.server.monitoring.settings import MonitoringSettings


class Serve(BaseModel):
    """Serve a model through vLLM's OpenAI-compatible server, with a pruning plan or without.

    Every flag of `vllm serve` may follow MODEL and is handed on as it is, such as --port 8000, --max-model-len 4096 or
    --dtype float32; see https://docs.vllm.ai/en/stable/cli/serve for all of them. Without --plan the model is served as
    stock vLLM serves it. With it, heads that the plan removes are left out of the weights and of the KV cache; flags
    that do not go together with that are refused by name. --kv-offloading-size GIB keeps KV blocks that leave the cache
    in the host's memory, where only requests of the same plan find them. Either way the server is stricter than vLLM's:
    it fetches no remote media unless --allowed-media-domains names where from, limits images, bodies, parameters and
    waiting requests, and drains when it is told to end.
    """

    model: CliPositionalArg[str] = Field(
        description="an alias (see `vhserve models`), Hub id or folder; before any flag of vLLM's"
    )
    plan: Path | None = Field(None, description="pruning plan to serve, as `vhserve plan` writes it")
    plan_digest: str | None = Field(
        None, description="refuse to serve any plan but the one with this digest, such as sha256:0f…; needs --plan"
    )
    surgery: Literal["auto", "slice", "gather"] = Field(
        "auto",
        description="how the plan's heads are chosen: slice cuts the others out of the weights, gather leaves the "
        "weights as they are, for quantised ones, adapters and any model; auto slices where it can; needs --plan",
    )
    admission: Literal["reckon", "stock"] = Field(
        "reckon",
        description="which waiting requests are taken in with a plan: reckon takes those that will have room until "
        "their end, by the lengths of earlier replies; stock, as vLLM does, those whose prompts fit; needs --plan",
    )
    max_request_bytes: int = Field(
        32 << 20, gt=0, le=1 << 40, description="longer request bodies are refused with status 413"
    )
    max_image_pixels: int = Field(
        MAX_PIXELS,
        gt=0,
        le=1 << 40,
        description="larger images and frames of videos (width times height, as sent or as the model's processor "
        "resizes them before it crops) are refused before they are decoded",
    )
    max_request_pixels: int = Field(
        MAX_REQUEST_PIXELS,
        gt=0,
        le=1 << 40,
        description="images, and frames taken of videos, that make those of a request larger than this together are "
        "refused before they are decoded",
    )
    max_sequences: int = Field(16, gt=0, le=16_384, description="greatest n that a request may ask for")
    max_parameter_bytes: int = Field(
        256 << 10,
        gt=0,
        le=1 << 40,
        description="longer parameters of a request, as JSON, are refused: schemas, choices, tools, biases",
    )
    max_parameter_entries: int = Field(
        1024,
        gt=0,
        le=1 << 40,
        description="parameters with longer lists or mappings are refused: choices, stop words, biases",
    )
    max_grammar_seconds: Seconds = Field(5.0, description="structured outputs that take longer to compile are refused")
    max_grammar_token_seconds: Seconds = Field(
        0.5, description="structured outputs of which a token takes longer, in seconds of a processor, are refused"
    )
    any_media_domain: bool = Field(
        False, description="let prompts name media of any domain, as vLLM does while --allowed-media-domains is empty"
    )
    trust_client_media_uuid: bool = Field(
        False,
        description="let clients name pictures by a uuid, as vLLM does: who names another client's gets its answer",
    )
    canary: str | None = Field(
        None,
        description="labelled data set to ask now and then: a .jsonl file, or another that --dataset takes elsewhere",
    )
    canary_samples: Samples = Field(64, description="samples of the canary's data set to ask")
    canary_interval: Seconds = Field(300.0, description="seconds from one run of the canary to the next")
    shadow_url: str | None = Field(
        None, description="unpruned endpoint, with its /v1, to repeat live requests on after they are answered"
    )
    shadow_fraction: Share = Field(0.01, description="share of live requests to repeat there")
    dry_run: bool = Field(False, description="check everything, say what would be allocated, and end")
    json_: bool = Field(False, alias="json", description="print what --dry-run says as one JSON document")
    vllm_flags: CliUnknownArgs

    def cli_cmd(self) -> None:
        """Check everything that can be wrong, then hand over to vLLM."""
        from profiles.store import load_plan
        from profiles.torchvision_import import ensure_torchvision
        from vhserve.compat.processes import quiet_vllm_imports
        from vhserve.server.installation import check_vllm
        from vhserve.server.model_check import check_model
        from vhserve.server.preflight.adapters import check_adapters
        from vhserve.server.preflight.address import check_address
        from vhserve.server.preflight.flags import read_flags
        from vhserve.server.preflight.kv_cache import check_kv_cache
        from vhserve.server.preflight.length import check_length
        from vhserve.server.preflight.memory import check_memory
        from vhserve.server.preflight.model_files import check_chat_template
        from vhserve.server.preflight.plan_options import check_plan_options
        from vhserve.server.preflight.prompt_media import check_limits
        from vhserve.server.preflight.weights import check_quantisation

        check_vllm()
        plan = load_plan(self.plan) if self.plan is not None else None
        self._check_digest(plan.digest if plan is not None else None)
        check_needed(self, _NEEDED)
        flags = read_flags(self.vllm_flags, own_flags(type(self)))
        check_address(flags)
        check_limits(flags)
        found = find_model(self.model, flags.get("--revision"), plan)
        if plan is not None and found is not None:
            check_model(plan, self.model, found.folder, self.surgery)
            check_plan_options(flags, plan, self.surgery)
        check_files(self.model, found, flags)
        check_adapters(flags, is_on_hub)
        check_chat_template(found.folder if found is not None else None, flags)
        check_memory(flags, found.config if found is not None else {}, plan)
        check_kv_cache(flags, has_plan=plan is not None)
        check_quantisation(flags)
        check_length(flags, found.config if found is not None else {})
        monitoring = self._monitoring()
        compared = None
        if plan is not None and found is not None and flags.get("--load-format") != "dummy":
            compared = compare_revision(plan, str(self.plan), self.model, found.folder)
        ensure_torchvision()
        quiet_vllm_imports()
        if self.dry_run:  # its result is on standard output
            os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")

        from vhserve.devices import serving_device
        from vhserve.notes import print_note
        from vhserve.report.plan_views import measured_nothing
        from vhserve.server import cpu_kv_cache, hardening, serving
        from vhserve.server.parameter_limits import ParameterLimits
        from vhserve.server.served_saving import shortfall
        from vhserve.server.settings import ServerSettings

        hardening.set_environment(
            max_image_pixels=self.max_image_pixels,
            max_sequences=self.max_sequences,
            any_media_domain=self.any_media_domain,
        )
        arguments = serving.parse_flags(found.source if found else self.model, self.vllm_flags)
        if arguments.served_model_name is None:
            arguments.served_model_name = [self.model]
        if plan is not None and found is not None:
            serving.apply_plan(arguments, plan, self.surgery, self.admission)
            folder = pin(found, arguments)
            if folder != found.folder:
                check_model(plan, self.model, folder, self.surgery)
                if arguments.load_format != "dummy":
                    compared = compare_revision(plan, str(self.plan), self.model, folder)
        settings = ServerSettings(
            self.max_request_bytes,
            self.max_sequences,
            plan,
            monitoring,
            trust_client_uuids=self.trust_client_media_uuid,
            parameter_limits=ParameterLimits(self.max_parameter_bytes, self.max_parameter_entries),
            max_grammar_seconds=self.max_grammar_seconds,
            max_grammar_token_seconds=self.max_grammar_token_seconds,
            max_request_pixels=self.max_request_pixels,
            started=STARTED,
        )
        serving.apply_settings(arguments, settings)
        if compared is not None:
            print_note(*compared)
        device = serving_device()
        if device == "cpu":
            config = None if found is None else cpu_kv_cache.decoder_config(found.folder)
            if chosen := cpu_kv_cache.choose(arguments, config):
                print_note(chosen)
        if warning := hardening.exposure_warning(arguments):
            print(f"vhserve: warning: {warning}", file=sys.stderr)
        if plan is not None and (warning := shortfall(plan, arguments.block_size, device)):
            print(f"vhserve: warning: {self.plan} {warning}", file=sys.stderr)
        if plan is not None and not plan.measured:
            print(f"vhserve: warning: {self.plan} was never measured: {_MEASURE}", file=sys.stderr)
        if plan is not None and (line := measured_nothing(plan)) is not None:
            print_note(line, "warning")
        if self.dry_run:
            self._say_allocation(arguments, plan)
        else:
            serving.run_server(arguments)

    def _say_allocation(self, arguments: Namespace, plan: "PruningPlan | None") -> None:
        """Print what an engine would allocate.

        Raises
        ------
        FlagRefused, MemoryTooSmall
        """
        from contextlib import redirect_stdout

        from vhserve.server.dry_run import allocation, as_json, described

        with redirect_stdout(sys.stderr):
            found = allocation(arguments, plan)
        facts = {"model": self.model, "plan": None if plan is None else plan.digest, "port": arguments.port}
        print(as_json(found, facts) if self.json_ else f"{described(found)}\nEverything is right: not served")

    def _check_digest(self, found: str | None) -> None:
        """Compare the plan's digest with --plan-digest.

        Raises
        ------
        PlanUnexpected
        """
        from vhserve.errors import PlanUnexpected

        if self.plan_digest is not None and found != self.plan_digest:
            raise PlanUnexpected(
                f"the plan's digest is {found}" if found is not None else "--plan-digest was given, but no plan",
                expected=f"the plan with the digest {self.plan_digest}",
                fix="serve that plan, or correct --plan-digest",
            )

    def _monitoring(self) -> "MonitoringSettings":
        """Settings of canary and shadow. Opens the canary's data set, so that errors in it stop the start-up."""
        from vhserve.server.monitoring.settings import CanarySettings, MonitoringSettings, ShadowSettings

        canary = shadow = None
        if self.canary is not None:
            from calibrate.datasets import open_dataset
            from vhserve.notes import print_note

            open_dataset(self.canary, samples=self.canary_samples, seed=0).announce(print_note)
            canary = CanarySettings(self.canary, self.canary_samples, self.canary_interval)
        if self.shadow_url is not None:
            shadow = ShadowSettings(self.shadow_url, self.shadow_fraction)
        return MonitoringSettings(canary, shadow)


_MEASURE: Final = "what it costs in accuracy is unknown; `vhserve evaluate --base-url URL --attach PLAN` measures it"

_NEEDED: Final = {
    "surgery": "plan",
    "admission": "plan",
    "canary_samples": "canary",
    "canary_interval": "canary",
    "shadow_fraction": "shadow_url",
    "json_": "dry_run",
}
"""Options that change nothing without another."""
