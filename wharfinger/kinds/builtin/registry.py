"""Every built-in kind that the local API server serves, in the order that discovery lists them."""

from __future__ import annotations

from dataclasses import replace

from wharfinger.kinds.builtin import core, corerules, devicerules, devices, podrules, rows, workloadrules
from wharfinger.kinds.builtin.behaviour import Behaviour, Builtin, Rows
from wharfinger.kinds.builtin.node import NODE
from wharfinger.kinds.builtin.pods import POD
from wharfinger.kinds.builtin.service import SERVICE
from wharfinger.kinds.builtin.workloads import DEPLOYMENT, JOB
from wharfinger.kinds.kind import Kind


def _builtin(kind: Kind, behaviour: Behaviour, printed: Rows | None = None) -> Builtin:
    return Builtin(kind, replace(behaviour, rows=printed))


BUILTINS: tuple[Builtin, ...] = (
    _builtin(core.NAMESPACE, corerules.NAMESPACE, rows.NAMESPACE),
    _builtin(core.SERVICE_ACCOUNT, corerules.SERVICE_ACCOUNT),
    _builtin(core.SECRET, corerules.SECRET, rows.SECRET),
    _builtin(core.CONFIG_MAP, corerules.CONFIG_MAP, rows.CONFIG_MAP),
    _builtin(core.EVENT, corerules.EVENT, rows.EVENT),
    _builtin(NODE, corerules.NODE, rows.NODE),
    _builtin(POD, podrules.POD, rows.POD),
    _builtin(SERVICE, corerules.SERVICE, rows.SERVICE),
    _builtin(DEPLOYMENT, workloadrules.DEPLOYMENT, rows.DEPLOYMENT),
    _builtin(JOB, workloadrules.JOB, rows.JOB),
    _builtin(core.LEASE, corerules.LEASE),
    _builtin(devices.RESOURCE_SLICE, devicerules.RESOURCE_SLICE),
    _builtin(devices.RESOURCE_CLAIM, devicerules.RESOURCE_CLAIM, rows.RESOURCE_CLAIM),
    _builtin(devices.RESOURCE_CLAIM_TEMPLATE, devicerules.RESOURCE_CLAIM_TEMPLATE),
    _builtin(devices.DEVICE_CLASS, devicerules.DEVICE_CLASS),
)
