"""The process `console`: pages that show what is so, over the objects and every part's journal. It changes nothing."""

from __future__ import annotations

import asyncio
import secrets
import signal
from typing import Final

from wharfinger.bootstrap import apiclient, part
from wharfinger.bootstrap.health import console_token
from wharfinger.bootstrap.part import Setting
from wharfinger.bootstrap.state import State, write_file
from wharfinger.console.app import app
from wharfinger.console.reader import SHOWN, Evidence, Shown
from wharfinger.core.errors import HostUnfit, Unavailable
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity import serve
from wharfinger.identity.workloadsource import WorkloadSource

SYNC_SECONDS: Final = 30.0


def token(state: State) -> str:
    """Return the token that opens the console, drawn at the first start (mode 0600). Raises `HostUnfit`."""
    path = console_token(state)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            write_file(path, secrets.token_urlsafe(32).encode())
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise HostUnfit(f"console token: {error}", hint="free space or fix permissions") from error


def main(setting: Setting) -> None:
    """Serve until SIGTERM."""
    source = WorkloadSource(setting.workload_socket)
    source.material()
    try:
        serve.run(lambda: _serve(setting, source))
    finally:
        source.close()


async def _serve(setting: Setting, source: WorkloadSource) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    informers = apiclient.informers(apiclient.client(setting, source, "console"), SHOWN)
    informers.start()
    if not await asyncio.to_thread(informers.synced, SYNC_SECONDS):
        raise Unavailable("the API server does not tell its objects", hint="wharf status shows what runs")
    reader = Shown(informers, Evidence(setting.state.evidence))
    pages = app(reader, token(setting.state), SystemClock())
    front = serve.Server(pages, source, serve.bind(setting.ports["console"]))
    await front.start()
    part.ready()
    await stopping.wait()
    await front.stop()
    informers.stop()


if __name__ == "__main__":
    part.run("console", main)
