"""The ledger: what was spent, what is held for requests under way, and how fast keys may ask."""
