"""What the supply chain costs: hashing, the log's durable appends, verification, the registry's pushes and pulls.

    python -m bench.supply [-o json]

Caveats first. Everything is on this machine: loopback, a warm page cache, and the disk below the temporary folder,
whose fsync decides appends and decisions (its time is shown). Server and client of the registry share the cores, with
TLS at both ends. Signing keys are in this process, without the issuer's round trip. `oras`, where it is built, pushes
and pulls the same file at the same registry; `openssl` hashes the same file. Seeded bytes; the best of three runs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from kube_apiserver import neighbour
from local_registry import ALICE, LocalRegistry
from logkeeper import LogKeeper
from notary import CONTROL, Notary
from world import SetClock

from bench.raw import keep
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.supply.artifact import push_folder, read
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.hashing import measure
from wharfinger.supply.manifest import Serialization
from wharfinger.supply.signing import authenticate_bytes
from wharfinger.supply.statement import Resource, Statement
from wharfinger.supply.tlog.log import Log
from wharfinger.supply.trustroot import of_trust_domain

MEBIBYTE = 1024 * 1024
SIZE = 256 * MEBIBYTE
SMALL_FILES = 300
APPENDS = 2000
ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of the fastest of `ROUNDS` calls."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def hashing(folder: Path) -> dict[str, float]:
    """Return MiB/s of hashing one file of `SIZE` bytes: ours, with one and with two digests, and openssl's."""
    rate = SIZE / MEBIBYTE
    found = {
        "hash, sha256 and blake3, 1 worker, MiB/s": rate / seconds(lambda: measure(folder, workers=1)),
        "hash, blake3 alone, 1 worker, MiB/s": rate
        / seconds(lambda: measure(folder, Serialization(hash_type="blake3"), workers=1)),
        "hash, shards of 32 MiB, sha256, MiB/s": rate
        / seconds(lambda: measure(folder, Serialization("shards", shard_size=32 * MEBIBYTE))),
    }
    if shutil.which("openssl"):
        file = str(folder / "weights")
        for algorithm in ("sha256", "blake2b512"):
            spent = seconds(
                lambda a=algorithm: subprocess.run(["openssl", "dgst", f"-{a}", file], check=True, stdout=-3)
            )
            found[f"peer: openssl dgst -{algorithm}, MiB/s"] = rate / spent
    return found


def sync_time(folder: Path) -> float:
    """Return the median milliseconds of an fdatasync after 4 KiB."""
    spent = []
    descriptor = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT, 0o600)
    for _ in range(200):
        os.write(descriptor, b"x" * 4096)
        start = time.perf_counter()
        os.fdatasync(descriptor)
        spent.append((time.perf_counter() - start) * 1000)
    os.close(descriptor)
    return statistics.median(spent)


def logging(folder: Path) -> dict[str, float]:
    """Return appends per second, one caller and 64, and the CPU of an append and of a verification."""
    keeper, clock = LogKeeper(), SystemClock()
    notary = Notary(clock=SetClock(clock.now()))
    statement = Statement((Resource.of("it", "sha256:" + "ab" * 32),), "bench", {})
    bundles = [notary.bundle(statement, CONTROL) for _ in range(64)]
    log = Log(folder / "log", keeper.key, keeper.sign, clock)
    start = time.perf_counter()
    for number in range(APPENDS // 10):
        logged = log.append(bundles[number % 64])
    alone = APPENDS / 10 / (time.perf_counter() - start)
    each = APPENDS // 64

    def append(bundle: Bundle) -> None:
        for _ in range(each):
            log.append(bundle)

    threads = [threading.Thread(target=append, args=(bundle,)) for bundle in bundles]
    start, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    trust = of_trust_domain(TrustDomain(notary.domain), [notary.certificate], keeper.key)
    data = logged.encode()
    verified = seconds(lambda: [authenticate_bytes(data, trust) for _ in range(100)]) / 100
    size = log.size
    log.close()
    opened = seconds(lambda: Log(folder / "log", keeper.key, keeper.sign, clock).close())
    return {
        "log, appends per second, 1 caller": alone,
        "log, appends per second, 64 callers": each * 64 / spent,
        "log, CPU of an append, microseconds": cpu / (each * 64) * 1e6,
        "log, verification of a bundle offline, microseconds": verified * 1e6,
        f"log, opening one of {size} entries, milliseconds": opened * 1000,
    }


def registry(folder: Path, files: Path) -> dict[str, float]:
    """Return MiB/s and decisions per second of pushes and pulls, ours and those of oras."""
    served = LocalRegistry(folder / "registry").start()
    try:
        client = served.client(ALICE)
        rate = SIZE / MEBIBYTE
        start = time.perf_counter()
        digest = push_folder(client, "research/models/big", files, "model")
        pushed = time.perf_counter() - start
        artifact = read(client, "research/models/big", digest)
        (layer,) = artifact.layers.values()

        def pull() -> None:
            for _ in client.stream_blob("research/models/big", layer):
                pass

        found = {
            "registry, push of one file, hashed, sent and stored, MiB/s": rate / pushed,
            "registry, pull of one file, verified, MiB/s": rate / seconds(pull),
        }
        small = folder / "small"
        small.mkdir()
        for number in range(SMALL_FILES):
            (small / f"f{number}").write_bytes(random.Random(number).randbytes(1000))
        start = time.perf_counter()
        digest = push_folder(client, "research/datasets/small", small, "dataset")
        found["registry, files of 1 kB pushed per second (2 decisions each)"] = SMALL_FILES / (
            time.perf_counter() - start
        )
        many = read(client, "research/datasets/small", digest)
        start = time.perf_counter()
        for blob in many.layers.values():
            client.pull_blob("research/datasets/small", blob)
        found["registry, files of 1 kB pulled per second (1 decision each)"] = SMALL_FILES / (
            time.perf_counter() - start
        )
        return found | peers(folder, served, files)
    finally:
        served.stop()


def peers(folder: Path, served: LocalRegistry, files: Path) -> dict[str, float]:
    """Return MiB/s of oras against the same registry."""
    program = neighbour("oras")
    if program is None:
        return {}
    home = folder / "home"
    home.mkdir()
    (home / "ca.pem").write_bytes(served.authority.bundle)
    host, environment = f"127.0.0.1:{served.port}", {**os.environ, "HOME": str(home)}

    def oras(*words: str, stdin: str = "") -> None:
        command = [program, words[0], "--ca-file", str(home / "ca.pem"), *words[1:]]
        subprocess.run(command, cwd=files, env=environment, input=stdin, text=True, check=True, capture_output=True)

    oras("login", "-u", "x", "--password-stdin", host, stdin=f"token:{ALICE}")
    rate = SIZE / MEBIBYTE
    start = time.perf_counter()
    oras("push", f"{host}/research/things/oras:v1", "weights")
    pushed = time.perf_counter() - start
    pulled = seconds(lambda: oras("pull", "-o", str(home / "out"), f"{host}/research/things/oras:v1"))
    return {"peer: oras push to it, MiB/s": rate / pushed, "peer: oras pull from it, MiB/s": rate / pulled}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="wharf-bench-") as text:
        folder = Path(text)
        files = folder / "files"
        files.mkdir()
        source = random.Random(7)
        with (files / "weights").open("wb") as file:
            for _ in range(SIZE // MEBIBYTE):
                file.write(source.randbytes(MEBIBYTE))
        figures = {"disk, fdatasync of 4 KiB, milliseconds": sync_time(folder)}
        figures |= hashing(files) | logging(folder) | registry(folder, files)
    keep("supply", figures)
    if sys.argv[1:] == ["-o", "json"]:
        print(json.dumps(figures, indent=2))
        return
    print(f"one file of {SIZE // MEBIBYTE} MiB, {os.cpu_count()} cores")
    for name, figure in figures.items():
        print(f"  {name:62} {figure:10.1f}")


if __name__ == "__main__":
    main()
