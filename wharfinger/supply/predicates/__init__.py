"""Predicates: what statements say of artifacts and decisions, one small module each, and who may say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wharfinger.supply import manifest
from wharfinger.supply.predicates import dataset, decision, evaluation, proof, provenance, screening, summary

CONTROL: Final = "control"
BUILDER: Final = "builder"

SIGNERS: Final[Mapping[str, frozenset[str]]] = {
    manifest.PREDICATE: frozenset({CONTROL, BUILDER}),
    provenance.TYPE: frozenset({BUILDER}),
    dataset.TYPE: frozenset({CONTROL}),
    screening.TYPE: frozenset({CONTROL}),
    evaluation.TYPE: frozenset({CONTROL}),
    summary.TYPE: frozenset({CONTROL}),
    decision.TYPE: frozenset({CONTROL}),
    proof.TYPE: frozenset({CONTROL}),
}
"""Every predicate type that is ever signed here, and the parts of the platform whose name may stand under it."""
