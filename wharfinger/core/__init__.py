"""Leaf values of the house: errors, clock, ids, digests, documents, quantities. No I/O."""
