"""The command `wharf`."""
