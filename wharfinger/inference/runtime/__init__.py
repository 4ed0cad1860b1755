"""The built-in runtime: a process that pulls a model under its grant, verifies it and serves it."""
