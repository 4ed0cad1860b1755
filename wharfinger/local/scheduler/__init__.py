"""The scheduler of one machine: pods to nodes, claims to devices."""
