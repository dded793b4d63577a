"""Makes the scripted endpoint of the serving tests importable: it stands in for an unpruned reference."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "vhserve"))
