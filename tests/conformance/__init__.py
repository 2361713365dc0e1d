"""The pull side of the OCI distribution specification, asked of a real replica in front of a real registry.

Each rule is asked over plain sockets, so that no client library tidies up what goes out or comes back: once when the
replica has never heard of the content (`cold`), and once when it holds all of it (`warm`).
"""
