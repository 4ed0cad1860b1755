"""The inference gateway and runtime: data path, guards, limits, metering, autoscaling."""
