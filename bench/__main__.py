"""Runs the benches by name, or all of them: `python -m bench [NAME...]`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    """Run each bench in its turn, under a line with its name."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "raw")
    for name in names or known:
        if name not in known:
            sys.exit(f"there is no bench {name!r}: expected one of {', '.join(known)}")
        print(f"== {name}", flush=True)
        sys.argv = [f"bench/{name}.py"]
        runpy.run_module(f"bench.{name}", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
