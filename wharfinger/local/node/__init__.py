"""The node of one machine: pods as isolated local processes, devices under grants."""
