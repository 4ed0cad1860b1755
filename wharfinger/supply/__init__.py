"""The supply chain: manifests, signatures, attestations, transparency log, registry, pipeline."""
