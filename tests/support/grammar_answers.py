"""What the process that tries grammars out says of some, with each of vLLM's backends; a program, without a server.

Reads a list in JSON from its input: a model, the backends, the constraints and the two limits in seconds. Prints JSON:
of each backend its answers, with the seconds until each came.
"""

import json
import multiprocessing
import sys
import time
from typing import Any

from profiles.torchvision_import import ensure_torchvision


def answers(model: str, backend: Any, constraints: list[dict[str, Any]], seconds: float, per_token: float) -> Any:
    """Problem of each constraint, None for none, one after the other, and how long each took."""
    from vllm.config import ModelConfig, StructuredOutputsConfig, VllmConfig
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams

    from vhserve.server import grammar_worker

    config = VllmConfig(
        model_config=ModelConfig(model=model, dtype="float32"),
        structured_outputs_config=StructuredOutputsConfig(backend=backend),
    )
    ours, theirs = multiprocessing.Pipe()
    given = (theirs, config, seconds, per_token)
    process = multiprocessing.get_context("fork").Process(target=grammar_worker.main, args=given)
    process.start()
    theirs.close()
    assert ours.recv() == (grammar_worker.READY, None)
    said = []
    for number, constraint in enumerate(constraints, 1):
        begun = time.monotonic()
        ours.send((number, SamplingParams(structured_outputs=StructuredOutputsParams(**constraint))))
        answered, problem = ours.recv()
        assert answered == number
        said.append((problem, time.monotonic() - begun))
    process.kill()  # a fork, it has our end of the pipe too, and does not see it close
    process.join()
    return said


if __name__ == "__main__":
    ensure_torchvision()
    from vhserve.compat.processes import mend_model_inspection

    mend_model_inspection()
    model, backends, *rest = json.load(sys.stdin)
    found = {backend: answers(model, backend, *rest) for backend in backends}
    print(json.dumps(found))
