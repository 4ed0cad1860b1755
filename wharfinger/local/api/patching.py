"""Patches of a stored object: the four forms, each to the object as it should become. Pure."""

from __future__ import annotations

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.local.api.faults import Unpatchable, UnsupportedMediaType
from wharfinger.local.api.negotiation import PatchType
from wharfinger.local.api.served import Resource
from wharfinger.local.merge import jsonpatch, strategic


def patched(resource: Resource, kind: PatchType, old: Json, patch: Json) -> Json:
    """Return `old`, an object of `resource`, with `patch` applied; `old` is left as it is.

    Not for server-side apply, which `local.merge.managed` does. Raises `Malformed` when the patch is
    none, `Invalid` when it does not fit the object, `TooLarge` for too many operations,
    `UnsupportedMediaType` for a strategic patch of a kind that has no strategies.
    """
    match kind:
        case "json":
            made = jsonpatch.apply(old, patch)
        case "merge":
            if not isinstance(patch, dict):
                raise Malformed(f"expected a merge patch to be an object, got {excerpt(patch)}")
            made = jsonpatch.merge(old, patch)
        case "strategic":
            if not resource.builtin:
                raise UnsupportedMediaType(
                    "the body of the request was in an unknown format - accepted media types include:"
                    " application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                )
            made = strategic.apply(old, patch, resource.shape)
        case _:
            raise Malformed(f"expected a patch that is not an apply, got {kind}")
    if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
        raise Unpatchable("expected the patched document to be an object with metadata")
    return made
