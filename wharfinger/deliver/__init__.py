"""Golden paths, configuration units and GitOps artifacts."""
