"""PipelineRun: screen, train, evaluate, sign, publish: one model from one dataset, with papers."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.artifact import Reference
from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import ATOMIC, Conditions, Name, Part, Sha256, Time, keyed, rule, says, whole


class EnvVar(Part, frozen=True, kw_only=True):
    """One environment variable of a step."""

    name: Annotated[str, says("Name.", min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, says("Value.", max_length=32768)] = ""


class Step(Part, frozen=True, kw_only=True):
    """A step of the user's: runs isolated, as its own process, sees its inputs read-only and one output folder."""

    command: Annotated[
        list[str],
        says(
            "The command. Inputs are below $WHARF_INPUT, code below $WHARF_CODE; it writes to $WHARF_OUTPUT.",
            schema=ATOMIC,
            min_length=1,
            max_length=64,
        ),
    ]
    env: Annotated[list[EnvVar], says("Environment.", schema=keyed("name"), max_length=64)] = []
    timeout_seconds: Annotated[int, says("Ends the step when it takes longer.", ge=1, le=86400)] = 600


class Threshold(Part, frozen=True, kw_only=True):
    """A bound on a metric that evaluation reports in metrics.json."""

    metric: Annotated[str, says("Name of the metric.", min_length=1, max_length=128)]
    maximum: Annotated[float | None, says("Fails above this.")] = None
    minimum: Annotated[float | None, says("Fails below this.")] = None


class Evaluate(Step, frozen=True, kw_only=True):
    """The evaluation step, and what it must show."""

    thresholds: Annotated[list[Threshold], says("Bounds on its metrics.", schema=keyed("metric"), max_length=32)] = []


class PipelineRunSpec(Part, frozen=True, kw_only=True):
    """What to make from what, and how."""

    dataset: Annotated[Name, says("The Dataset, in this namespace.")]
    model: Annotated[Name, says("The Model to make, in this namespace.")]
    code: Annotated[Reference | None, says("An artifact with the steps' code.")] = None
    service_account_name: Annotated[Name, says("The steps' identity.")] = "default"
    train: Annotated[Step, says("Makes the model from the dataset.")]
    evaluate: Annotated[Evaluate | None, says("Judges the model.")] = None


class StepStatus(Part, frozen=True, kw_only=True):
    """How one step went."""

    name: Annotated[Literal["screen", "train", "evaluate", "sign", "publish"], says("The step.")]
    phase: Annotated[Literal["Pending", "Running", "Succeeded", "Failed"], says("Where it is.")]
    reason: Annotated[str, says("Why it failed or waits, one word.")] = ""
    message: Annotated[str, says("The same in words, with the command that shows the log.")] = ""
    pod: Annotated[str, says("Its pod.")] = ""
    inputs_digest: Annotated[Sha256 | None, says("Digest over command, environment and inputs.")] = None
    output_digest: Annotated[Sha256 | None, says("Digest of what it made.")] = None
    reused: Annotated[bool, says("Taken from an earlier run with the same inputs.")] = False
    isolation: Annotated[str, says("How its pod was isolated: namespaces or none.")] = ""
    started_at: Annotated[Time | None, says("When it started.")] = None
    finished_at: Annotated[Time | None, says("When it ended.")] = None


class PipelineRunStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    phase: Annotated[Literal["Pending", "Running", "Succeeded", "Failed"] | None, says("Where the run is.")] = None
    steps: Annotated[list[StepStatus], says("The steps.", schema=keyed("name"))] = []
    model_digest: Annotated[Sha256 | None, says("Digest of the published model's OCI manifest.")] = None
    metrics: Annotated[dict[str, float], says("What evaluation measured.")] = {}
    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="PipelineRun",
    plural="pipelineruns",
    namespaced=True,
    short_names=("run",),
    categories=("wharfinger",),
    description="Screen, train, evaluate, sign, publish.",
    schema=whole(
        PipelineRunSpec,
        PipelineRunStatus,
        "One model made from one dataset: screen, train, evaluate, sign, publish.",
        rules=(rule("self == oldSelf", "a run does not change: make another"),),
    ),
    columns=(
        Column("Dataset", ".spec.dataset"),
        Column("Model", ".spec.model"),
        Column("Phase", ".status.phase"),
        Column("Reason", ".status.conditions[?(@.type=='Succeeded')].reason"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
