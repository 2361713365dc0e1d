"""What the hub decides: which answers are fresh, and what the upstream is asked."""
