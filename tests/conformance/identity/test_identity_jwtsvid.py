"""JWT-SVIDs against the outside vectors: every token, with the reason for every refusal."""

from __future__ import annotations

import json

from shared_material import material
from spiffe_vectors import agrees, bundles_of, judged


def test_every_token_is_judged_as_the_standard_judges_it() -> None:
    """All 233 tokens, strict answers where the standard leaves a choice, are accepted or refused for the reason given."""
    vectors = json.loads(material("spiffe/jwtsvid.json").read_text(encoding="utf-8"))
    known = {name: bundles_of(documents) for name, documents in vectors["bundles"].items()}
    assert len(vectors["cases"]) == 233
    wrong = {}
    for case in vectors["cases"]:
        got = judged(case, known.get(case.get("bundle") or "", {}))
        if not agrees(got, case["expect"]):
            wrong[case["id"]] = (case["title"], got, case["expect"])
    assert wrong == {}
