"""What tests of reloaded weights do inside an engine: called by name, by the engine host. Judges nothing."""

from pathlib import Path
from typing import Any

from engine_host import Answer, Round, ask
from exactness import PROMPTS

ASKED = Round(PROMPTS)


def of_another_checkpoint(engine: Any) -> list[Answer]:
    """Answers once the weights of the checkpoint `second` beside the engine's own have been loaded in their place."""
    own = Path(engine.llm_engine.model_config.model)
    engine.collective_rpc("reload_weights", kwargs={"weights_path": str(own.with_name("second"))})
    return ask(engine, ASKED)
