"""Many writers and a watcher at once: history, state and answers tell one story."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

from local_api import LocalApi

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.core.errors import AlreadyExists, Conflict, NotFound

SERVICES = RESOURCES["inferenceservices"]
WRITERS, WRITES, NAMES = 12, 40, [f"s{number}" for number in range(8)]


def service(name: str, **spec: Any) -> Any:
    """Return an InferenceService."""
    return {"apiVersion": SERVICES.api_version, "kind": "InferenceService",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"model": "small", **spec}}  # fmt: skip


def test_a_watch_replays_to_the_list_whatever_writers_do(api: LocalApi) -> None:
    """Twelve writers create, apply, patch, scale and delete eight objects; the watch's events, in order and each newer
    than the one before, lead from the first list to the last, and every acknowledged write is one of them.
    """
    client = api.client()
    start = client.list(SERVICES, "default")
    acknowledged: Counter[str] = Counter()
    lock = threading.Lock()

    def write(number: int) -> None:
        draw, mine = random.Random(number), api.client()
        for _ in range(WRITES):
            name, versions = draw.choice(NAMES), []
            try:
                match draw.randrange(5):
                    case 0:
                        versions.append(mine.create(SERVICES, service(name, replicas=draw.randrange(5))))
                    case 1:
                        config = service(name, callers=[f"spiffe://a/{number}"])
                        versions.append(mine.apply(SERVICES, config, manager=f"m{number}", force=True))
                    case 2:
                        versions.append(
                            mine.patch(SERVICES, "default", name, {"spec": {"replicas": draw.randrange(5)}})
                        )
                    case 3:
                        read = mine.get(SERVICES, "default", name)
                        read["metadata"]["labels"] = {"by": str(number), "at": str(draw.randrange(10**9))}
                        versions.append(mine.replace(SERVICES, read))
                    case _:
                        mine.delete(SERVICES, "default", name)
            except (AlreadyExists, Conflict, NotFound):
                continue
            with lock:
                acknowledged.update(each["metadata"]["resourceVersion"] for each in versions)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = client.list(SERVICES, "default")
    state = {item["metadata"]["name"]: item for item in start["items"]}
    newest, seen = int(start["metadata"]["resourceVersion"]), set()
    version = start["metadata"]["resourceVersion"]
    for event in client.watch(SERVICES, "default", resource_version=version, timeout_seconds=1):
        meta = event.object["metadata"]
        assert int(meta["resourceVersion"]) > newest
        newest = int(meta["resourceVersion"])
        if event.type == "BOOKMARK":
            continue
        seen.add(meta["resourceVersion"])
        assert (event.type == "ADDED") == (meta["name"] not in state), event.type
        if event.type == "DELETED":
            del state[meta["name"]]
        else:
            state[meta["name"]] = event.object
    assert state == {item["metadata"]["name"]: item for item in end["items"]}
    assert set(acknowledged) <= seen


def test_every_increment_counts(api: LocalApi) -> None:
    """Read, add one, replace, again on Conflict: ten writers of ten each make a hundred."""
    client, plural = api.client(), RESOURCES["configmaps"]
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "counter", "namespace": "default"},
        "data": {"n": "0"},
    }
    client.create(plural, body)

    def add() -> None:
        mine = api.client()
        for _ in range(10):
            while True:
                read = mine.get(plural, "default", "counter")
                read["data"]["n"] = str(int(read["data"]["n"]) + 1)
                try:
                    mine.replace(plural, read)
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=add) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get(plural, "default", "counter")["data"]["n"] == "100"
