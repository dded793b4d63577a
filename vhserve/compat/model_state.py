"""The model state of Model Runner V2, which is told of requests and prepares the metadata of a step on the host.

Does not know what is made of it. Importing it is cheap.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from vhserve.compat.model_runner import say_all_rows_are_read

ARGUMENT: Final = "step_queries"
"""Under which metadata builders get what `Requests.step` returned."""


class Requests(Protocol):
    """What is remembered of a worker's requests, and asked in each step."""

    def add(self, name: str, features: Any) -> None:
        """A request, new or resumed, and its `mm_features`."""

    def remove(self, name: str) -> None:
        """Forget a request, if it is known."""

    def step(self, names: Any, computed: Any, scheduled: Any, starts: Any) -> Any:
        """Ids, computed and scheduled tokens of a step's requests, and their first queries, one more of these."""


def model_state_class(
    stock: type | None, requests: Callable[[Any], Requests], takes_step: Callable[[Any], bool]
) -> type:
    """A model state for `get_model_state_cls`, by which builders know on the host what a step computes.

    Symptom
        On a GPU the number of tokens that heads keep is known when the device has counted them, or as an upper bound.
    Cause
        Metadata builders get tensors of the device, and no requests; how far these are computed only the model runner
        knows. It asks a model for the class of its state, which is not documented, though several of vLLM's own
        models have one.
    Removal
        Metadata builders are given the requests of a step.

    Parameters
    ----------
    stock
        Of the model itself; None for vLLM's default.
    requests
        Makes what is asked in each step, of a device.
    takes_step
        Whether a metadata builder takes `ARGUMENT`.
    """
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState
    from vllm.v1.worker.gpu.model_states.interface import ModelSpecificAttnMetadata

    class StepMetadata(ModelSpecificAttnMetadata):
        def __init__(self, step: Any) -> None:
            self.step = step

        def get_extra_attn_kwargs(self, attn_metadata_builder: Any, num_reqs: int) -> dict[str, Any]:
            return {ARGUMENT: self.step} if takes_step(attn_metadata_builder) else {}

    base: Any = stock or DefaultModelState

    class PlanModelState(base):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, model: Any, encoder_cache: Any, device: Any) -> None:
            super().__init__(vllm_config, model, encoder_cache, device)
            self.requests = requests(device)
            self.reading_prompts: set[str] = set()

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            super().add_request(req_index, new_req_data)
            name, sampling = new_req_data.req_id, new_req_data.sampling_params
            self.requests.add(name, new_req_data.mm_features)
            self.reading_prompts.discard(name)
            asked = (None, None) if sampling is None else (sampling.prompt_logprobs, sampling.prompt_logprob_token_ids)
            if any(one is not None for one in asked):
                self.reading_prompts.add(name)

        def remove_request(self, req_id: str) -> None:
            super().remove_request(req_id)
            self.requests.remove(req_id)
            self.reading_prompts.discard(req_id)

        def prepare_attn(self, input_batch: Any, *args: Any, **options: Any) -> dict[str, Any]:
            say_all_rows_are_read(
                bool(self.reading_prompts)
                and any(
                    prefilling and name in self.reading_prompts
                    for name, prefilling in zip(input_batch.req_ids, input_batch.is_prefilling_np, strict=True)
                )
            )
            starts = input_batch.query_start_loc_np[: input_batch.num_reqs + 1]
            if starts[-1] == input_batch.num_tokens:  # else they are upper bounds, as of drafts that vary in length
                step = self.requests.step(
                    input_batch.req_ids, input_batch.num_computed_tokens_np, input_batch.num_scheduled_tokens, starts
                )
                options.setdefault("model_specific_attn_metadata", StepMetadata(step))
            metadata: dict[str, Any] = super().prepare_attn(input_batch, *args, **options)
            return metadata

    return PlanModelState
