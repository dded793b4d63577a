"""How close an engine must be to the oracle, and the prompts that show it: with one image, two, and none.

Judges nothing.
"""

from engine_prompts import EnginePrompt

EXACT = 1e-5


TELLING = 1e-2
"""Far above `EXACT`: what removing any other heads changes at least."""


PROMPTS = (
    EnginePrompt("<s>USER: <image>\nhow many red circles are there ? ASSISTANT:", (1,)),
    EnginePrompt("<s>USER: how many blue squares are <image>\n in the picture and <image>\n ASSISTANT:", (2, 1)),
    EnginePrompt("<s>USER: what is at a1 ? ASSISTANT:"),
    EnginePrompt("<image>\nyes no", (3,)),
)
