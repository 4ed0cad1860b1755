"""What happened and what it cost: counters and the bill."""
