"""The demo model: owns a small LLaVA-1.5 trained on the synthetic world, and what built, taught and measured it.

Does not know head scores or plans. Importing this package is cheap; torch and transformers are imported by the modules
that use them.
"""

from pathlib import Path
from typing import Final

__all__ = ["MODEL_DIR", "build", "grouped", "lessons", "train", "trainer"]

MODEL_DIR: Final = Path(__file__).parent / "model"
"""Directory of the shipped checkpoint."""
