"""The configuration: where each setting comes from, what it may be, and what is said of a wrong one."""
