"""The kinds of Kubernetes that the local API server also serves: their fields, defaults, rules and columns.

The facts (fields, types, list keys, patch strategies, defaults) are those of Kubernetes 1.37's API; the
words are ours. A kind is a `builtin.Builtin`: the `Kind` value that ours have too, and what the kind
does beyond its schema.
"""
