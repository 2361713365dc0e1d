"""What manifests of every format refer to, and how they are verified."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import Children, PlatformManifest, children, digest_of, media_type_of, platforms, verifies
from mirror.oci.platform import Platform

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=10,
)


def digest(seed: str) -> Digest:
    return Digest.of(seed.encode())


def entry(seed: str, size: object, media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(seed), "size": size, **more}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def sign(payload: bytes, **protected: object) -> bytes:
    """Return a schema 1 manifest as registries signed it: the signatures stand before the payload's last brace."""
    cut = payload.rindex(b"\n}")
    values = {"formatLength": cut, "formatTail": base64url(payload[cut:]), "time": "2015-01-01T00:00:00Z"} | protected
    signature = {
        "header": {"jwk": {"crv": "P-256", "kty": "EC", "x": "eA", "y": "eQ"}, "alg": "ES256"},
        "signature": base64url(b"s" * 64),
        "protected": base64url(encode(values)),
    }
    return payload[:cut] + b',\n   "signatures": [\n' + encode(signature) + b"\n   ]\n}"


SCHEMA1 = json.dumps(
    {
        "schemaVersion": 1,
        "name": "library/app",
        "tag": "1",
        "fsLayers": [{"blobSum": digest("one")}, {"blobSum": digest("two")}, {"blobSum": digest("one")}],
        "history": [{"v1Compatibility": "{}"}],
    },
    indent=3,
).encode()


class TestChildren:
    @pytest.mark.parametrize("media_type", [media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST])
    def test_are_config_and_layers__of_an_image(self, media_type: str) -> None:
        body = encode(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": entry("config", 7, CONFIG),
                "layers": [entry("one", 0, LAYER), entry("two", 2**40, LAYER, urls=["https://elsewhere.example/"])],
                "subject": entry("subject", 9, media_type),
            }
        )
        expected = (
            Descriptor(digest("config"), 7, CONFIG),
            Descriptor(digest("one"), 0, LAYER),
            Descriptor(digest("two"), 2**40, LAYER),
        )
        assert children(body) == Children((), expected)

    @pytest.mark.parametrize("media_type", [media_types.OCI_INDEX, media_types.DOCKER_LIST])
    def test_are_manifests__of_an_index(self, media_type: str) -> None:
        long = Digest.of(b"long", "sha512")
        entries = [
            entry("amd64", 10, media_types.OCI_MANIFEST, platform={"os": "linux"}),
            {"mediaType": media_types.OCI_INDEX, "digest": long, "size": 11},
        ]
        body = encode({"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
        expected = (
            Descriptor(digest("amd64"), 10, media_types.OCI_MANIFEST),
            Descriptor(long, 11, media_types.OCI_INDEX),
        )
        assert children(body) == Children(expected, ())

    def test_are_blobs__of_an_artifact(self) -> None:
        body = encode({"mediaType": media_types.OCI_ARTIFACT, "blobs": [entry("sbom", 5, "text/spdx")]})
        assert children(body) == Children((), (Descriptor(digest("sbom"), 5, "text/spdx"),))

    @pytest.mark.parametrize("body", [SCHEMA1, sign(SCHEMA1)], ids=["plain", "signed"])
    def test_are_layers_of_unknown_size__of_schema_1(self, body: bytes) -> None:
        found = children(body)
        assert found.manifests == ()
        assert {blob.digest for blob in found.blobs} == {digest("one"), digest("two")}
        assert {blob.size for blob in found.blobs} == {None}

    @pytest.mark.parametrize("size", [-1, "7", 1.5, True, None, []])
    def test_have_unknown_size__where_it_is_none(self, size: object) -> None:
        body = encode({"layers": [entry("one", size, LAYER)]})
        assert children(body).blobs == (Descriptor(digest("one"), None, LAYER),)

    def test_leave_out__entries_without_a_usable_digest(self) -> None:
        bad: list[Any] = [{}, None, 3, [], "x", {"digest": None}, {"digest": "sha256:ab"}, {"digest": ["x"]}]
        good = entry("one", 1, LAYER)
        body = encode({"config": "x", "layers": [*bad, good], "manifests": [*bad], "fsLayers": [{"blobSum": 3}, *bad]})
        assert children(body) == Children((), (Descriptor(digest("one"), 1, LAYER),))

    @pytest.mark.parametrize(
        "body", [b"", b"null", b"[]", b'"text"', b"{", b"<html>", b'{"layers": {}}', b'{"layers": null}']
    )
    def test_are_none__of_what_is_no_manifest(self, body: bytes) -> None:
        assert children(body) == Children()


class TestMediaType:
    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({"mediaType": "application/x", "manifests": []}, "application/x"),
            ({"manifests": []}, media_types.OCI_INDEX),
            ({"layers": []}, media_types.OCI_MANIFEST),
            ({"mediaType": "", "layers": []}, media_types.OCI_MANIFEST),
            ({"mediaType": 3, "manifests": []}, media_types.OCI_INDEX),
            ({"schemaVersion": 1}, media_types.DOCKER_SCHEMA1),
            ({"schemaVersion": 1, "signatures": []}, media_types.DOCKER_SCHEMA1_SIGNED),
        ],
    )
    def test_is_the_one_named__or_the_shape_s(self, document: object, expected: str) -> None:
        assert media_type_of(encode(document)) == expected


class TestVerification:
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_is_over_raw_bytes(self, algorithm: str) -> None:
        body = b'{"schemaVersion": 2}'
        assert verifies(body, Digest.of(body, algorithm))
        assert not verifies(body + b" ", Digest.of(body, algorithm))

    def test_is_over_the_signed_payload__of_schema_1(self) -> None:
        signed = sign(SCHEMA1)
        assert json.loads(signed)["signatures"]
        assert digest_of(signed) == Digest.of(SCHEMA1)
        assert verifies(signed, Digest.of(SCHEMA1))
        assert verifies(signed, Digest.of(SCHEMA1, "sha512"))

    def test_fails__for_a_changed_payload(self) -> None:
        changed = sign(SCHEMA1).replace(b'"library/app"', b'"library/bad"')
        assert not verifies(changed, Digest.of(SCHEMA1))
        assert digest_of(changed) != Digest.of(SCHEMA1)

    def test_takes_raw_bytes__of_what_only_looks_signed(self) -> None:
        body = encode({"schemaVersion": 2, "annotations": {"signatures": "x"}, "signatures": [{"protected": "e30"}]})
        assert digest_of(body) == Digest.of(body)

    @pytest.mark.parametrize("length", [-1, 10**12, "7", None, True, 1.5, [], {}])
    @pytest.mark.parametrize("tail", ["Cn0", "=", "ä", None, 3])
    def test_never_raises__whatever_the_signature_says(self, length: object, tail: object) -> None:
        body = sign(SCHEMA1, formatLength=length, formatTail=tail)
        assert not verifies(body, Digest.of(SCHEMA1))
        assert digest_of(body)

    @pytest.mark.parametrize(
        "signatures", [[], {}, None, 3, [3], [{}], [{"protected": 3}], [{"protected": "////"}], [{"protected": "W10"}]]
    )
    def test_takes_raw_bytes__of_broken_signatures(self, signatures: object) -> None:
        body = encode({"schemaVersion": 1, "signatures": signatures})
        assert digest_of(body) == Digest.of(body)


class TestMalformed:
    """A mirror passes on what it cannot read: none of these functions may raise."""

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    @example(b'{"mediaType": "\xff"}')
    @example(b"\xff\xfe{}")
    @example(b"[" * 100_000)
    @example(b'{"layers":' * 100_000)
    @example(b'{"schemaVersion": 1, "signatures": [{"protected": "\xff"}]}')
    @example(b'{"layers": [{"size": 1e999}]}')
    @example(b"\x00")
    def test_never_raises__on_any_bytes(self, body: bytes) -> None:
        self._examine(body)

    @settings(deadline=None)
    @given(JSON, JSON, JSON, JSON)
    def test_never_raises__on_any_document(self, config: object, layers: object, links: object, signed: object) -> None:
        document = {"config": config, "layers": layers, "manifests": links, "fsLayers": links, "mediaType": signed}
        self._examine(encode(document | {"schemaVersion": 1, "signatures": signed}))

    def _examine(self, body: bytes) -> None:
        found = children(body)
        assert all(isinstance(each.digest, Digest) for each in (*found.manifests, *found.blobs))
        assert media_type_of(body)
        assert verifies(body, Digest.of(body))
        assert digest_of(body)


class TestPlatforms:
    def test_tells__each_of_an_index(self) -> None:
        arm = {"os": "linux", "architecture": "arm", "variant": "v7"}
        entries = [
            entry("a", 1, media_types.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
            entry("b", 1, media_types.OCI_MANIFEST, platform=arm),
            entry("c", 1, media_types.OCI_MANIFEST),
            entry("d", 1, media_types.OCI_MANIFEST, platform="linux/amd64"),
            "nonsense",
        ]
        assert platforms(encode({"manifests": entries})) == (
            PlatformManifest(Platform("linux/amd64"), digest("a")),
            PlatformManifest(Platform("linux/arm/v7"), digest("b")),
        )

    def test_tells_nothing__of_anything_else(self) -> None:
        assert platforms(encode({"layers": [entry("a", 1, LAYER)]})) == ()
        assert platforms(b"nonsense") == ()


def test_reads__no_more_than_an_image_ever_has() -> None:
    layers = [entry(str(number), 1, LAYER) for number in range(5000)]
    assert len(children(encode({"layers": layers})).blobs) == 4096
