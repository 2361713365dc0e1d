"""Answers from what is local, asks the hub for what is not, and follows growing files.

May import: `channel`, `store`, `observe`, `config`, `oci`; never what decides. Callers may rely on: what is held and
fresh is answered without the hub; no body is ever held in memory, and none is complete before it verified.
"""

from mirror.pull.blob import BlobBody, FilePiece
from mirror.pull.follower import Follower
from mirror.pull.pull import Pull
from mirror.pull.sharing import Sharing

__all__ = ["BlobBody", "FilePiece", "Follower", "Pull", "Sharing"]
