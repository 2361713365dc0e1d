"""What the registry holds: content in files of a temporary folder, and who may see what under which name."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ALGORITHMS = ("sha256", "sha512")


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was pushed."""

    digest: str
    media_type: str
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        """Return the parsed body; empty when it is not a JSON object."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


@dataclass
class Repository:
    """The manifests, tags and blobs under one name."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)

    def find(self, reference: str) -> Manifest | None:
        """Return the manifest that a tag or a digest leads to."""
        return self.manifests.get(self.tags.get(reference, reference))

    def referrers(self, digest: str) -> Iterator[Manifest]:
        """Yield the manifests whose subject is `digest`."""
        for manifest in list(self.manifests.values()):
            subject = manifest.document.get("subject")
            if isinstance(subject, dict) and subject.get("digest") == digest:
                yield manifest


class Incoming:
    """Content on its way in: written once, hashed by SHA-256 while it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file = path.open("wb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self.size += len(data)
        self._hash.update(data)

    def digest(self, algorithm: str = "sha256") -> str:
        """Return the digest of what was written so far."""
        if algorithm == "sha256":
            return f"sha256:{self._hash.hexdigest()}"
        self._file.flush()
        with self.path.open("rb") as file:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"

    def close(self) -> None:
        """Close the file; it stays where it is."""
        self._file.close()


class Storage:
    """All content and all repositories; blobs are kept in files, never in memory."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="upstream-")
        self._root = Path(self._folder.name)
        self._names = itertools.count(1)
        self._variants: dict[tuple[str, str], Path] = {}
        self.repositories: dict[str, Repository] = {}

    def close(self) -> None:
        """Remove everything."""
        self._folder.cleanup()

    def incoming(self) -> Incoming:
        """Return a place for new content."""
        return Incoming(self._fresh())

    def keep(self, repository: str, incoming: Incoming, algorithm: str = "sha256") -> str:
        """Make incoming content a blob of the repository and return its digest."""
        digest = incoming.digest(algorithm)
        incoming.close()
        incoming.path.replace(self.path(digest))
        self.repository(repository).blobs.add(digest)
        return digest

    def add(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        """Store a small blob and return its digest."""
        incoming = self.incoming()
        incoming.write(data)
        return self.keep(repository, incoming, algorithm)

    def put(self, repository: str, reference: str, body: bytes, media_type: str) -> Manifest:
        """Store a manifest under a tag or under its digest, and return it."""
        algorithm, colon, _ = reference.partition(":")
        algorithm = algorithm if colon else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        manifest = Manifest(digest, media_type, body)
        holder = self.repository(repository)
        holder.manifests[digest] = manifest
        if not colon:
            holder.tags[reference] = digest
        return manifest

    def remove(self, repository: str, reference: str) -> bool:
        """Remove a tag, or a manifest with all its tags; tell whether it was there."""
        holder = self.repositories.get(repository)
        if holder is None or holder.find(reference) is None:
            return False
        if reference in holder.tags:
            del holder.tags[reference]
            return True
        del holder.manifests[reference]
        holder.tags = {tag: digest for tag, digest in holder.tags.items() if digest != reference}
        return True

    def repository(self, name: str) -> Repository:
        """Return the repository of this name, made now if it is new."""
        return self.repositories.setdefault(name, Repository())

    def path(self, digest: str) -> Path:
        """Return where the blob of this digest is, or would be."""
        return self._root / digest.replace(":", "-")

    def content(self, digest: str) -> bytes:
        """Return the bytes of a blob or a manifest; KeyError when nobody pushed it."""
        for repository in list(self.repositories.values()):
            if digest in repository.manifests:
                return repository.manifests[digest].body
        if not self.path(digest).exists():
            raise KeyError(digest)
        return self.path(digest).read_bytes()

    def corrupted(self, digest: str) -> Path:
        """Return a copy of the blob in which the byte in the middle is flipped."""
        copy, fresh = self._variant(digest, "corrupted")
        if fresh:
            shutil.copyfile(self.path(digest), copy)
            with copy.open("r+b") as file:
                file.seek(copy.stat().st_size // 2)
                byte = file.read(1)
                file.seek(-len(byte), 1)
                file.write(bytes(value ^ 0xFF for value in byte))
        return copy

    def resized(self, path: Path, change: int) -> Path:
        """Return a copy of a blob's file that is `change` bytes longer (or shorter, if negative)."""
        copy, fresh = self._variant(path.name, f"resized {change}")
        if fresh:
            shutil.copyfile(path, copy)
            size = max(0, path.stat().st_size + change)
            with copy.open("r+b") as file:
                file.truncate(size)
        return copy

    def gzipped(self, path: Path) -> Path:
        """Return a gzipped copy of a blob's file."""
        copy, fresh = self._variant(path.name, "gzipped")
        if fresh:
            with path.open("rb") as source, gzip.GzipFile(copy, "wb", compresslevel=1, mtime=0) as target:
                shutil.copyfileobj(source, target, 2**18)
        return copy

    def _variant(self, name: str, kind: str) -> tuple[Path, bool]:
        known = self._variants.get((name, kind))
        if known is not None:
            return known, False
        self._variants[name, kind] = path = self._fresh()
        return path, True

    def _fresh(self) -> Path:
        return self._root / f"file-{next(self._names)}"
