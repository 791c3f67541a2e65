"""Python runs this first where PYTHONPATH names its folder: so Jupyter's kernels know the second device."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
import tests.second_device  # noqa: F401
