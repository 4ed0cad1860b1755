"""InferenceService: a model served to callers on a GPU slice."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind, Scale
from wharfinger.kinds.pipelinerun import EnvVar
from wharfinger.kinds.schema import (
    ATOMIC,
    SET,
    Conditions,
    Name,
    Part,
    Sha256,
    SpiffePattern,
    keyed,
    rule,
    says,
    whole,
)


class External(Part, frozen=True, kw_only=True):
    """An OpenAI-compatible endpoint that the platform does not run."""

    url: Annotated[str, says("Base URL, https, or http on loopback.", max_length=2048, pattern=r"^https?://[^\s]+$")]
    secret_name: Annotated[Name | None, says("Secret whose key `token` is sent as bearer token.")] = None


class Runtime(Part, frozen=True, kw_only=True):
    """What serves the model: the built-in runtime, a command of the user's, or an external endpoint."""

    type: Annotated[Literal["Builtin", "Command", "External"], says("Which of the three.")] = "Builtin"
    command: Annotated[list[str], says("The server's command (Command); listens on $WHARF_PORT.", schema=ATOMIC)] = []
    env: Annotated[list[EnvVar], says("Its environment.", schema=keyed("name"), max_length=64)] = []
    external: Annotated[External | None, says("The endpoint (External).")] = None


class Objectives(Part, frozen=True, kw_only=True):
    """What callers may expect."""

    ttft_milliseconds: Annotated[int, says("Time to the first token, p95.", ge=1)] = 1000
    tpot_milliseconds: Annotated[int, says("Time per further token, p95.", ge=1)] = 100


class Scaling(Part, frozen=True, kw_only=True):
    """How replicas follow load."""

    min_replicas: Annotated[int, says("Never fewer.", ge=0, le=1000)] = 1
    max_replicas: Annotated[int, says("Never more.", ge=1, le=1000)] = 1
    tokens_in_flight: Annotated[int, says("Tokens in flight that one replica is to carry.", ge=1)] = 512
    scale_down_seconds: Annotated[int, says("How long load must stay low before a replica goes.", ge=0, le=3600)] = 60


class InferenceServiceSpec(Part, frozen=True, kw_only=True):
    """What to serve, on what, to whom."""

    model: Annotated[Name, says("The Model, in this namespace.")]
    model_digest: Annotated[Sha256 | None, says("Pins the model's digest; else the Model's digest at admission.")] = (
        None
    )
    runtime: Annotated[Runtime, says("What serves it.")] = Runtime()
    gpu_profile: Annotated[Name | None, says("The GPUProfile that each replica claims; none for CPU or External.")] = (
        None
    )
    service_account_name: Annotated[Name, says("The replicas' identity.")] = "default"
    callers: Annotated[list[SpiffePattern], says("Who may call it.", schema=SET, max_length=1000)] = []
    replicas: Annotated[int, says("Replicas wanted now; the autoscaler sets it within scaling.", ge=0, le=1000)] = 1
    scaling: Annotated[Scaling | None, says("How replicas follow load; absent: they do not.")] = None
    slo: Annotated[Objectives, says("Service level objectives; kept, nothing goes by them yet.")] = Objectives()


class Replica(Part, frozen=True, kw_only=True):
    """One replica as its door sees it."""

    pod: Annotated[str, says("Its pod.")]
    address: Annotated[str, says("host:port.")] = ""
    ready: Annotated[bool, says("Whether it may get requests.")] = False
    grant: Annotated[str, says("Its Grant.")] = ""
    reason: Annotated[str, says("Why it is not ready.")] = ""


class InferenceServiceStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    replicas: Annotated[int, says("Pods there are.", ge=0)] = 0
    ready_replicas: Annotated[int, says("Those that are ready.", ge=0)] = 0
    selector: Annotated[str, says("Label selector of its pods.")] = ""
    model_digest: Annotated[Sha256 | None, says("The digest that is served.")] = None
    endpoints: Annotated[list[Replica], says("The replicas.", schema=keyed("pod"))] = []
    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="InferenceService",
    plural="inferenceservices",
    namespaced=True,
    short_names=("isvc",),
    categories=("wharfinger",),
    description="A model served to callers.",
    schema=whole(
        InferenceServiceSpec,
        InferenceServiceStatus,
        "A model served to callers on GPU slices that their identity may use.",
        rules=(
            rule(
                "self.runtime.type != 'Command' || (has(self.runtime.command) && size(self.runtime.command) > 0)",
                "a runtime of type Command needs a command",
                field_path=".runtime.command",
            ),
            rule(
                "self.runtime.type != 'External' || has(self.runtime.external)",
                "a runtime of type External needs an external endpoint",
                field_path=".runtime.external",
            ),
            rule(
                "!has(self.scaling) || self.scaling.minReplicas <= self.scaling.maxReplicas",
                "minReplicas must not be above maxReplicas",
                field_path=".scaling",
            ),
        ),
    ),
    columns=(
        Column("Model", ".spec.model"),
        Column("Ready", ".status.readyReplicas", "integer"),
        Column("Replicas", ".spec.replicas", "integer"),
        Column("Available", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    scale=Scale(),
)
