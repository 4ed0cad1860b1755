"""Wharfinger: share GPUs on Kubernetes by one decision, enforced at every door and provable afterwards."""
