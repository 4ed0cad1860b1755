"""The registry: OCI Distribution over a durable content-addressed store, every route asked of a door."""
