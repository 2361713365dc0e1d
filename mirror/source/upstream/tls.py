"""TLS towards upstreams."""

from __future__ import annotations

import ssl

from mirror.config import ConfigError, Upstreams


def tls_contexts(upstreams: Upstreams) -> dict[str, ssl.SSLContext]:
    """Return the TLS context of each `ca_file` that is configured.

    Raises:
        ConfigError: one cannot be used.
    """
    contexts = {}
    for file in upstreams.ca_files:
        try:
            # Beside the system's: a registry of one's own may redirect to a public CDN.
            contexts[file] = ssl.create_default_context()
            contexts[file].load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"upstreams: ca_file {file}: cannot be used: {error}") from None
    return contexts
