"""Where benches keep their raw figures: `out/NAME.json`, beside when, on what and with how many cores."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parents[1] / "out"


def keep(name: str, figures: Any) -> None:
    """Write `figures` of the bench `name`, anything that JSON holds."""
    OUT.mkdir(exist_ok=True)
    told = {
        "bench": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "figures": figures,
    }
    (OUT / f"{name}.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
