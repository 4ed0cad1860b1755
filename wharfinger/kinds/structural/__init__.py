"""Structural schemas: what a kind's OpenAPI v3 schema makes of an object.

Kubernetes' "structural schemas" (apiextensions v1): a schema is compiled once and then defaults,
prunes and validates objects of its kind. All of it is pure: values in, values and problems out.

    schema.compile_schema(document, rules=None) -> Schema
        Schema.coerce(value) -> list[str]                metadata in its form, in place; unknown paths there
        Schema.prune(value) -> list[str]                 drop unknown fields and nulls, in place; their paths
        Schema.unknown(value) -> list[str]               the same paths, the value untouched
        Schema.default(value) -> None                    fill in defaults, in place
        Schema.validate(value, old=None) -> list[FieldProblem]    with `old`: ratcheting
        Schema.validate_status(value, old)               the same, where the status alone is written
        Schema.mismatches(value, old=None)               the constraints alone
    rules.Compile                                        the port that compiles `x-kubernetes-validations`

    objectmeta.decode(metadata) -> metadata, unknown     metadata in its form, apart from any schema
    metadata.problems_on_create / problems_on_update     the rules of metadata
    embedded.resource_problems(value)                    whether an object within an object is one
    strategy.prepare_create / prepare_update / prepare_status_update   generation and status
    strategy.validate_create / validate_update / validate_status_update
    columns.compile_columns(columns) -> Columns          printer columns
        Columns.definitions, Columns.cells(value, now)
    columns.table(columns, objects, now, include="Metadata")

    structure.problems(document)                         why a schema is not structural
    defaults.problems(node) / pruned_document(document)  the defaults of a schema
    definition.validate_create(crd) / validate_update(crd, old)        a CustomResourceDefinition itself

How a value is judged: `constraints` answers yes or no in one walk of closures; after a no, `validation`
walks again and says all that is wrong, in upstream's words. See docs/adr/0005.
"""
