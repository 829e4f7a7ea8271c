"""The chain's tests have what is needed here: the commands as users call them, and a world with money in it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "chain"))
