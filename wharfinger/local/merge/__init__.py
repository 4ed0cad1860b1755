"""Merging objects and keeping account of who owns which field: pure functions over plain JSON values.

The modules, and what the API server calls in each (`Json` is `wharfinger.core.document.Json`; no
function changes its arguments; results may share parts with them):

`openapi`   what a structural OpenAPI schema says about merging, compiled once per kind and version.
    compile_type(schema: Json) -> Type
        The schema of a whole object (`x-kubernetes-list-type`, `-list-map-keys`, `-map-type`,
        `-preserve-unknown-fields`, `-int-or-string`); its `metadata` is always ObjectMeta.

`managed`   `metadata.managedFields`, as kube-apiserver keeps it.
    Tracking(version: str, types: Mapping[str, Type], subresource: str = "", ignored: FieldSet = {}, ...)
        One endpoint: the apiVersion it serves, the types by apiVersion, the name of the
        subresource, the fields that nobody comes to own through it (`{"f:status": {}}` for the main
        resource of a kind with a status subresource).
    create(tracking, new, *, manager: str, now: Instant) -> Json
    update(tracking, live, new, *, manager: str, now: Instant) -> Json
        For create, update and every patch but apply: `new`, defaulted, with its managedFields.
    apply(tracking, live: Json | None, config, *, manager: str, now: Instant, force: bool = False) -> Json
        Server-side apply: the merged object with its managedFields; defaulting and validation follow.
        Raises ApplyConflict (a core.errors.Conflict; each of its `fields` has the reason
        "FieldManagerConflict", the path and kube-apiserver's words), Malformed, typed.Mismatch.
    keep_times(live, new) -> Json
        `new` with live's managedFields where nothing but their times changed, so that a write that
        changes nothing can be skipped.
    manager_name(field_manager: str, user_agent: str) -> str
        The manager of a request: its parameter, else the user agent up to the first "/".

`strategic`   strategic merge patch.
    compile_shape(schema: Json) -> Shape
        Patch strategies of an OpenAPI schema (`x-kubernetes-patch-strategy`, `-patch-merge-key`).
    apply(original: Json, patch: Json, shape: Shape) -> Json

`strategicdiff`   making strategic merge patches, as clients do.
    two_way(original, modified, shape) -> Json
    three_way(original, modified, current, shape, *, overwrite: bool = True) -> Json

`jsonpatch`   RFC 6902 and RFC 7386.
    apply(document: Json, operations: Json) -> Json
    merge(document: Json, patch: Json) -> Json
    diff(original, modified) -> Json, three_way(original, modified, current) -> Json
"""
