"""What every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Wall time proves nothing here. A change is judged on the same examples each time; by hand, every run looks elsewhere.
settings.register_profile("elsewhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "elsewhere")
