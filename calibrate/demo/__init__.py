"""The demo model: a small LLaVA-1.5 trained on the synthetic world, with what built, taught and measured it.

Importing this package is cheap; torch and transformers are imported by the modules that use them.
"""

from pathlib import Path
from typing import Final

MODEL_DIR: Final = Path(__file__).parent / "model"
"""Directory of the shipped checkpoint."""
