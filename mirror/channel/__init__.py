"""How a door asks the hub: the Protocol, its values, and the Unix-socket transport.

In one process the hub itself implements the Protocol.

May import: `observe`, `config`, `oci`. Callers may rely on: both transports behave alike, errors included, and a lost
hub is an error like any other, never a hang.
"""

from mirror.channel.client import RemoteHub
from mirror.channel.protocol import (
    BlobFound,
    Body,
    Changes,
    Filling,
    Hub,
    Listing,
    ManifestFound,
    Membership,
    Progress,
    Stream,
    Unstored,
    Whole,
)
from mirror.channel.server import HubServer

__all__ = [
    "BlobFound",
    "Body",
    "Changes",
    "Filling",
    "Hub",
    "HubServer",
    "Listing",
    "ManifestFound",
    "Membership",
    "Progress",
    "RemoteHub",
    "Stream",
    "Unstored",
    "Whole",
]
