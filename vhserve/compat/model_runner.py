"""What a worker's model runner knows of the requests of a step, beside their metadata.

Does not know why it is asked. Importing it is cheap.
"""

import functools
from typing import Any, Final

_NOTED: Final = "vhserve_notes_prompt_log_probs"

_all_rows_are_read = False


def all_rows_are_read() -> bool:
    """Whether a request of the step that runs in this process asks for the log-probabilities of its prompt."""
    return _all_rows_are_read


def say_all_rows_are_read(read: bool) -> None:
    """What `all_rows_are_read` returns until the next step."""
    global _all_rows_are_read
    _all_rows_are_read = read


def note_prompt_log_probs() -> None:
    """Let runners V1 of this process say before a step what `all_rows_are_read` returns; idempotent.

    Symptom
        Log-probabilities of prompts are those of rows that were not computed.
    Cause
        The model is not told which rows of its output are read: those of a prompt only if a request asks for it, which
        only the model runner knows.
    Removal
        The forward context says which rows are read.
    """
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    runner_class: Any = GPUModelRunner
    stock = runner_class._update_states
    if hasattr(stock, _NOTED):
        return

    @functools.wraps(stock)
    def update_states(runner: Any, scheduler_output: Any) -> Any:
        corrections = stock(runner, scheduler_output)
        say_all_rows_are_read(bool(runner.num_prompt_logprobs))
        return corrections

    setattr(update_states, _NOTED, True)
    runner_class._update_states = update_states
