"""The demo's story, one module an act: what the platform is for, shown on real processes with real input."""
