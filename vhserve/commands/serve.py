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
from vhserve.option_types import Samples, Seconds, Share

if TYPE_CHECKING:
    from calibrate.models.registry import FoundModel
    from profiles.pruning_plan import PruningPlan
    from vhserve.server.monitoring.settings import MonitoringSettings
    from vhserve.server.preflight.flags import GivenFlags


class Serve(BaseModel):
    """Serve a model through vLLM's OpenAI-compatible server, with a pruning plan or without.

    Every flag of `vllm serve` may follow MODEL and is handed on as it is, such as --port 8000, --max-model-len 4096 or
    --dtype float32; see https://docs.vllm.ai/en/stable/cli/serve for all of them. Without --plan the model is served as
    stock vLLM serves it. With it, heads that the plan removes are left out of the weights and of the KV cache; flags
    that do not go together with that are refused by name. Either way the server is stricter than vLLM's: it fetches no
    remote media unless --allowed-media-domains names where from, limits images, bodies, parameters and waiting
    requests, and drains when it is told to end.
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
        "weights as they are, for quantised ones, adapters and any model; auto slices where it can",
    )
    max_request_bytes: int = Field(
        32 << 20, gt=0, le=1 << 40, description="longer request bodies are refused with status 413"
    )
    max_image_pixels: int = Field(
        MAX_PIXELS,
        gt=0,
        le=1 << 40,
        description="larger images (width times height, as sent or as the model's processor resizes them before it "
        "crops) are refused before they are decoded",
    )
    max_request_pixels: int = Field(
        MAX_REQUEST_PIXELS,
        gt=0,
        le=1 << 40,
        description="images that make those of a request larger than this together are refused before they are decoded",
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
        from vhserve.server.preflight.address import check_address
        from vhserve.server.preflight.flags import read_flags
        from vhserve.server.preflight.memory import check_memory
        from vhserve.server.preflight.model_files import check_chat_template

        check_vllm()
        plan = load_plan(self.plan) if self.plan is not None else None
        self._check_digest(plan.digest if plan is not None else None)
        flags = read_flags(self.vllm_flags, own_flags(type(self)))
        check_address(flags)
        found = self._find(flags.get("--revision"), plan)
        if plan is not None and found is not None:
            check_model(plan, self.model, found.folder, self.surgery)
        self._check_files(found, flags)
        check_chat_template(found.folder if found is not None else None, flags)
        check_memory(flags, found.config if found is not None else {}, plan)
        monitoring = self._monitoring()
        compared = None
        if plan is not None and found is not None and flags.get("--load-format") != "dummy":
            compared = self._compare_revision(plan, found.folder)
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
            serving.apply_plan(arguments, plan, self.surgery)
            folder = _pin(found, arguments)
            if folder != found.folder:
                check_model(plan, self.model, folder, self.surgery)
                if arguments.load_format != "dummy":
                    compared = self._compare_revision(plan, folder)
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
        if serving_device() == "cpu":
            config = None if found is None else cpu_kv_cache.decoder_config(found.folder)
            if chosen := cpu_kv_cache.choose(arguments, config):
                print_note(chosen)
        if warning := hardening.exposure_warning(arguments):
            print(f"vhserve: warning: {warning}", file=sys.stderr)
        if plan is not None and (warning := shortfall(plan, arguments.block_size)):
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

    def _compare_revision(self, plan: "PruningPlan", folder: Path) -> tuple[str, str]:
        """Compare every byte of the weights with what the plan was made for; a note or warning says what was compared.

        Raises
        ------
        ModelMismatch, ModelBroken, FileUnreadable
        """
        from calibrate.runs.progress import hashing_bar
        from profiles.fingerprint import old_scheme_warning
        from vhserve.server.model_check import check_revision, quantised_warning

        if warning := quantised_warning(plan, self.model, folder):
            return warning, "warning"
        found = check_revision(plan, self.model, folder, hashing_bar)
        if warning := old_scheme_warning(str(self.plan), plan.model.revision):
            return warning, "warning"
        return f"{self.model} is the model of {self.plan}: {found}", "note"

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

    def _find(self, revision: str | None, plan: "PruningPlan | None") -> "FoundModel | None":
        """The model, or None for one that only vLLM may know how to serve, without a plan."""
        from calibrate.errors import UnsupportedModel
        from calibrate.models.registry import find

        try:
            return find(self.model, revision, plan.model.revision if plan is not None else None)
        except UnsupportedModel:
            if plan is not None:
                raise
            return None

    def _check_files(self, found: "FoundModel | None", flags: "GivenFlags") -> None:
        """Look at the files that vLLM will load; those of a Hub model may still be fetched, if the Hub can be reached.

        Raises
        ------
        ModelBroken, ModelOffline
        """
        from calibrate.models.hub import files_missing, is_reachable
        from profiles.errors import ModelFilesMissing
        from vhserve.server.preflight.model_files import check_input_files, check_weight_files

        folder = found.folder if found is not None else Path(self.model)
        if not folder.is_dir():
            return
        config = found.config if found is not None else {}
        try:
            check_weight_files(self.model, folder, config, flags, supported=found is not None)
            check_input_files(self.model, folder, flags, supported=found is not None)
        except ModelFilesMissing as error:
            if found is None:  # a model of another kind may keep its weights and its words in other files
                return
            if found.is_local:
                raise
            if not is_reachable(found.source, flags.get("--revision")):
                raise files_missing(found.name, error.wrong) from error


_MEASURE: Final = "what it costs in accuracy is unknown; `vhserve evaluate --base-url URL --attach PLAN` measures it"


def _pin(found: "FoundModel", arguments: Namespace) -> Path:
    """Make vLLM load the very snapshot that is checked, and return its folder.

    Raises
    ------
    ModelOffline
    """
    if found.source == str(found.folder):
        return found.folder
    if arguments.revision is None:
        arguments.revision = found.folder.name
        return found.folder

    from calibrate.models.hub import config_path

    folder = config_path(found.source, revision=arguments.revision).parent
    if folder.name.startswith(arguments.revision):  # vLLM finds no shortened commits
        arguments.revision = folder.name
    return folder
