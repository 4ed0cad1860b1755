"""One module per process: the only place that wires adapters together."""
