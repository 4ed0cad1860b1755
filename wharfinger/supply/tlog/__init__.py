"""The transparency log: Merkle proofs, signed notes, tiles, durable append, and the client that believes nothing."""
