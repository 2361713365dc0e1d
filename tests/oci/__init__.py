"""Values without I/O: what is let in, and what never raises."""
