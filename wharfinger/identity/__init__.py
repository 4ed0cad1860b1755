"""SPIFFE identities: ids, SVIDs, bundles, verification, the local issuer and its Workload API."""
