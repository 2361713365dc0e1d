"""As whom upstreams are asked: real files, real programs, and the clouds' own libraries against loopback."""
