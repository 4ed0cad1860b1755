"""One machine as a cluster: API server, scheduler, node."""
