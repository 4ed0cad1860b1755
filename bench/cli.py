"""What a command costs, beside a bare interpreter in the same run: CPU seconds and resident memory of whole processes.

    python -m bench cli

Starts a platform of its own on a temporary directory for `wharf get`. Caveats: CPU is user and system time as the
kernel counts it for the ended process, on whatever else the machine does; the median of many runs is reported, and the
minimum beside it. Goals: `wharf --help` at most 6 times a bare interpreter, `wharf get models` at most 10 times and
45 MiB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.raw import keep

RUNS = 15


def cost(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Run `command` to its end; return its CPU seconds and its largest resident set in KiB."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    words = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} exited with {process.returncode}: {words.decode(errors='replace')[-300:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss


def main() -> None:
    """Measure, print ratios, keep the raw figures in out/cli.json."""
    wharf = str(Path(sys.executable).with_name("wharf"))
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "WHARF_STATE_DIR": f"{folder}/state"}
        environment.pop("KUBECONFIG", None)
        subprocess.run([wharf, "up", "--detach"], env=environment, check=True, capture_output=True)
        try:
            commands = {
                "python -c pass": [sys.executable, "-c", "pass"],
                "wharf --help": [wharf, "--help"],
                "wharf get models -A": [wharf, "get", "models", "-A"],
            }
            raw: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
            for _ in range(RUNS):
                for name, command in commands.items():
                    raw[name].append(cost(command, environment))
        finally:
            subprocess.run([wharf, "down"], env=environment, check=False, capture_output=True)
    bare = statistics.median(cpu for cpu, _ in raw["python -c pass"])
    for name, runs in raw.items():
        cpu = statistics.median(c for c, _ in runs)
        memory = max(m for _, m in runs) / 1024
        print(
            f"{name:<22} {cpu * 1000:6.1f} ms CPU (min {min(runs)[0] * 1000:.1f}), "
            f"{cpu / bare:4.1f}x, {memory:5.1f} MiB"
        )
    keep("cli", {"runs": RUNS, "cpu_seconds_and_kib": raw})


if __name__ == "__main__":
    main()
