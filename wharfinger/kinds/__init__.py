"""The API: one module per kind; CRDs and reference docs are generated from it."""
