"""One reconciler per kind: reads, calls a pure function, applies the difference."""
