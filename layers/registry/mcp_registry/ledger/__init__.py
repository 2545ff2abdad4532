"""The ledger: what servers really offer, since when, and what changed."""
