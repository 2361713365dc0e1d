"""Values of the OCI and Docker registry world, without I/O.

May import: nothing of this project. Callers may rely on: every value here is immutable, and was valid when it was made.
"""
