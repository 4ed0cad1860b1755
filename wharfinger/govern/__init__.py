"""Evidence: explanations, replays and proofs of decisions."""
