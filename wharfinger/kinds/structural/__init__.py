"""Structural schemas: what a kind's OpenAPI v3 schema makes of an object.

Kubernetes' "structural schemas" (apiextensions v1): a schema is compiled once and then defaults,
prunes and validates objects of its kind. All of it is pure: values in, values and problems out.

    schema.compile_schema(document) -> Schema
        Schema.default(value) -> None                    fill in defaults, in place
        Schema.coerce(value) -> list[str]                metadata in its form, in place; unknown paths there
        Schema.prune(value) -> list[str]                 drop unknown fields and nulls, in place; their paths
        Schema.unknown(value) -> list[str]               the same paths, the value untouched
        Schema.validate(value, old=None) -> list[FieldProblem]    with `old`: ratcheting

    objectmeta.decode(metadata) -> metadata, unknown     metadata in its form, apart from any schema
    metadata.problems_on_create / problems_on_update     the rules of metadata
    strategy.prepare_create / prepare_update / prepare_status_update   generation and status
    strategy.validate_create / validate_update / validate_status_update
    columns.compile_columns(columns) -> Columns          printer columns
        Columns.definitions, Columns.cells(value, now)
    columns.table(columns, objects, now, include="Metadata")
    definition.validate_create(crd) / validate_update(crd, old)        a CustomResourceDefinition itself

Below it in `wharfinger.core`:

    quantity.Quantity.parse(text); +, -, *, comparison, str()
    names.dns1123_label(text) and its like -> list of messages, empty when valid
    selectors.parse_labels(text).matches(labels), selectors.of_object(label_selector).matches(labels)
    selectors.parse_fields(text).matches(fields)
    intstr.parse(text), intstr.scaled(value, total, round_up)
    jsonpath.parse(template).render(value), jsonpath.parse_relaxed(path).first(value)
    age.human_duration(span)
"""
