"""The store: what survives a kill, a lost index and a full disk."""
