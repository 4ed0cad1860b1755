"""A node as a process of its own, to be killed: `python tests/nodeprocess.py FOLDER GUARDIAN`.

It runs one pod that starts more processes than it waits for, and says which they are; it ends on the end of its input.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import Machine, WatchedWorld, pod

SCRIPT = "setsid sleep 1000 & (setsid sleep 1001 &); sleep 1002 & exec sleep 1003"


def main() -> None:
    """Run the pod until told to end."""
    guardian = os.pidfd_open(int(sys.argv[2]))
    world = WatchedWorld()
    uid = world.put(pod("long", "sh", "-c", SCRIPT, restartPolicy="Always"))["metadata"]["uid"]
    here = Machine(Path(sys.argv[1]), world, guardian)
    here.world.wait(lambda: (uid, "c") in here.issuer.known and here.phase("long") == "Running")
    running = here.issuer.known[uid, "c"][2]
    print(json.dumps({"launcher": running.pid, "pidns": running.pidns}), flush=True)

    def status() -> dict[str, Any]:
        told: dict[str, Any] = here.world.must("pods", "n", "long")["status"]["containerStatuses"][0]
        return told

    for line in sys.stdin:
        if line == "restarted\n":
            here.world.wait(lambda: status()["restartCount"] == 1 and status()["ready"])
            running = here.issuer.known[uid, "c"][2]
            print(json.dumps({**status()["lastState"]["terminated"], "pidns": running.pidns}), flush=True)
    here.end()


if __name__ == "__main__":
    main()
