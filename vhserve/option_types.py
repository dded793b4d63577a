"""Types and words of options that several commands have: numbers within bounds, and one description for one meaning.

Every numeric option has a smallest and a largest value, so that what cannot be carried out is refused before anything
is done. Knows pydantic and the names in `profiles`; does not know the commands.
"""

from typing import Annotated, Final

from pydantic import Field

MOST: Final = 1_000_000_000
"""The largest count that an option takes."""

Count = Annotated[int, Field(gt=0, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Samples = Annotated[int, Field(gt=0, le=MOST, description="how many samples to measure on")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What numpy, torch and vLLM all take."""
Percentage = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
BatchSize = Annotated[
    int, Field(gt=0, le=65_536, description="samples in one forward pass; does not change the result")
]
BlockSize = Annotated[int, Field(gt=0, le=65_536)]
Draws = Annotated[int, Field(gt=0, le=10_000, description="random selections for each k")]


JSON: Final = "print one JSON document instead of tables"
MODEL: Final = "alias (see `vhserve models`), Hub id or folder"
SERVED_MODEL: Final = "served model's name; the only one if not given"
API_KEY_ENV: Final = "environment variable that holds the API key, if any"
REQUEST_TIMEOUT: Final = "seconds until a request counts as failed"
DATASET: Final = (
    "`synthetic`, a .jsonl, .csv or .parquet file, or a published dataset and where it is, such as pope:/data/pope"
)
SPLIT: Final = (
    "half of the dataset's pictures: `choosing`, which heads are chosen by, `measuring`, which they are measured on, "
    "or `all`; or a published split, such as test"
)
FAMILIES: Final = "question families, comma-separated; all if not given"
SEED: Final = "seed of the choice of samples"
PROFILE: Final = "head profile that `vhserve calibrate` wrote"
BLOCK_SIZE: Final = (
    "tokens of the server's KV blocks: text-only heads don't see those that hold nothing but image tokens; 32 for vLLM "
    "on CPUs and 16 on NVIDIA GPUs, whichever is installed, if not given"
)
REMOVE: Final = "heads to remove: neither computed nor cached"
TEXT_ONLY: Final = "heads, next in the order, that attend to text only"
EXIT_LAYER: Final = (
    "first layer, 0-based, of those in which every head that is not removed attends to text only, beside the numbers "
    "above: image tokens are not computed from there on"
)
THINNED: Final = "heads, next in the order, that see and keep one image block in {}"
EVICT: Final = "heads, next in the order, that see the image while the prompt is computed, and then drop it"
EVICT_TO: Final = "the same, but that keep one image block in {}"
STAGE: Final = "layers to choose heads from"
SELECT: Final = "lowest ranked first; highest first and random are controls"
PROTECT_TOP: Final = "percentage of the model's heads, the highest ranked, that are never treated"
GRANULARITY: Final = (
    "treat query heads one by one, or all of a KV head together, which alone frees its KV cache; kv_group for a "
    "grouped-query model if not given"
)
GRANULARITY_SHOWN: Final = "show query heads one by one, or KV groups; kv_group for a grouped-query model if not given"
SERVE_ON: Final = "what the plan will be served on; auto is what the installed vLLM serves on"
IMAGE_TOKENS: Final = (
    "tokens of the image to compute the savings for, from its first to its last; the model's usual ones if not given"
)
SAVINGS_DTYPE: Final = "dtype to compute the savings for; vLLM serves in 16 bits unless it is told otherwise"
