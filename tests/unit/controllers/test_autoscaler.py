"""Replicas follow tokens in flight: up at once, down after a while, never beyond bounds, still when nobody answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from world import World

from wharfinger.controllers.autoscaler import Autoscaler
from wharfinger.controllers.world import Key
from wharfinger.core.clock import SECOND

KEY = Key("research", "chat")


class Scaled:
    """A service that scales from 1 to 4, 100 tokens each, down after 10 s."""

    def __init__(self, **scaling: Any) -> None:
        told = {"minReplicas": 1, "maxReplicas": 4, "tokensInFlight": 100, "scaleDownSeconds": 10, **scaling}
        self.world = World(
            {
                "apiVersion": "wharfinger.io/v1alpha1",
                "kind": "InferenceService",
                "metadata": {"name": "chat", "namespace": "research"},
                "spec": {"model": "tiny", "replicas": 1, "scaling": told},
            }
        )
        self.load: Mapping[str, int] | None = {}
        self.scaler = Autoscaler(self.world, self.world, lambda: self.load)

    def after(self, seconds: int, tokens: int | None) -> int:
        """Let `seconds` pass under this load, looking each second; return the replicas."""
        self.load = None if tokens is None else {"research/chat": tokens, "support/chat": 9999}
        for _ in range(seconds):
            self.world.clock.pass_(SECOND)
            assert self.scaler.reconcile(KEY, self.world.clock.now()) == SECOND
        return int(self.world.must("inferenceservices", "research", "chat")["spec"]["replicas"])


@pytest.fixture
def scaled() -> Scaled:
    """Return a service that scales."""
    return Scaled()


def test_load_scales_up_at_once_and_down_after_the_lull(scaled: Scaled) -> None:
    """350 tokens need four at the next look; a lull of nine seconds changes nothing, of eleven ends three."""
    assert scaled.after(1, 350) == 4
    assert scaled.after(9, 0) == 4
    assert scaled.after(2, 0) == 1
    assert [reason for _, reason, _ in scaled.world.events] == ["Scaled", "Scaled"]


def test_bounds_hold_whatever_the_load(scaled: Scaled) -> None:
    """Never more than maxReplicas, never fewer than minReplicas."""
    assert scaled.after(1, 10**9) == 4
    assert scaled.after(60, 0) == 1


def test_a_gateway_that_does_not_answer_changes_nothing(scaled: Scaled) -> None:
    """Without a measurement the number stays, for however long."""
    assert scaled.after(1, 250) == 3
    assert scaled.after(100, None) == 3


def test_a_restart_does_not_scale_down_early(scaled: Scaled) -> None:
    """A fresh autoscaler counts the present number as needed now."""
    assert scaled.after(1, 350) == 4
    scaled.scaler = Autoscaler(scaled.world, scaled.world, lambda: scaled.load)
    assert scaled.after(9, 0) == 4


def test_a_service_that_does_not_scale_is_left_alone() -> None:
    """Without spec.scaling nothing is read or written."""
    scaled = Scaled()
    scaled.world.patch("inferenceservices", "research", "chat", {"spec": {"scaling": None}})
    scaled.world.writes.clear()
    assert scaled.scaler.reconcile(KEY, scaled.world.clock.now()) is None
    assert scaled.world.writes == []
