"""The API as programs meet it: what its document says is so, and every error has one shape."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.chaos.reader import Client
from tests.chaos.scene import eventually
from tests.operator import call, told
from tests.replica import NO_PREFETCH, Replica
from tests.upstream import Upstream

APP = "docker.io/library/app:1"
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    store = tmp_path_factory.mktemp("api") / "store"
    with Upstream() as upstream:
        image = upstream.push_image("library/app", "1", ["linux/amd64"], [1000], raw=True)
        others = [upstream.push_image("library/many", str(each), raw=True, layers=[10], seed=each) for each in range(7)]
        settings = {**NO_PREFETCH, "LAYOVER_SERVER__WORKERS": "1"}
        with Replica(store, upstreams={"docker.io": upstream.url}, settings=settings) as running:
            for each in (image, *others):
                Client(running.url, each).wait().assert_whole()
            yield running
            assert "defect" not in running.log.read_text()


@pytest.fixture(scope="module")
def document(replica: Replica) -> dict[str, Any]:
    return told(replica, "GET", "/openapi.json")


def raw(replica: Replica, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, Any]:
    """Return status and answer of a request as it is."""
    with closing(http.client.HTTPConnection("127.0.0.1", replica.admin_port, timeout=30)) as connection:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def assert_fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Check that a value is as a schema says, as far as its kinds and names go."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        assert any(_fits(document, each, value) for each in schema["anyOf"]), (schema, value)
    elif schema.get("type") == "object":
        assert isinstance(value, dict)
        assert set(schema.get("required", [])) <= set(value) <= set(schema["properties"])
        for name, inner in value.items():
            assert_fits(document, schema["properties"][name], inner)
    elif schema.get("type") == "array":
        for inner in value:
            assert_fits(document, schema["items"], inner)
    elif "enum" in schema:
        assert value in schema["enum"]
    else:
        assert isinstance(value, _KINDS[schema["type"]]), (schema, value)


def _fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    try:
        assert_fits(document, schema, value)
    except AssertionError:
        return False
    return True


def test_describes__what_there_is(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    routes = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert routes == {
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/fleet"),
        ("GET", "/api/v1/images"),
        ("GET", "/api/v1/inspect"),
        ("POST", "/api/v1/purge"),
        ("GET", "/api/v1/pins"),
        ("POST", "/api/v1/pins"),
        ("DELETE", "/api/v1/pins"),
    }


def test_answers__as_its_document_says(replica: Replica, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            query = {each["name"]: "app:1" for each in operation.get("parameters", []) if each["required"]}
            body = {"what": "nothing:here"} if "requestBody" in operation else None
            status, answer = call(replica, method.upper(), path.removeprefix("/api/v1"), body, query)
            assert str(status) in operation["responses"], (method, path, status)
            schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
            assert_fits(document, schema, answer)


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "status"),
    [
        ("GET", "/api/v1/nothing", {}, b"", 404),
        ("GET", "/api/", {}, b"", 404),
        ("GET", "/api/v1/purge", {}, b"", 405),
        ("PUT", "/api/v1/pins", {"Content-Type": "application/json"}, b"{}", 405),
        ("POST", "/api/v1/purge", {"Content-Type": "application/json"}, b"", 400),
        ("POST", "/api/v1/purge", {"Content-Type": "application/json"}, b"[]", 400),
        ("POST", "/api/v1/purge", {"Content-Type": "application/json"}, b'{"what": 1}', 400),
        ("POST", "/api/v1/purge", {"Content-Type": "application/json"}, b'{"what": "a b"}', 400),
        ("POST", "/api/v1/purge", {"Content-Type": "application/json"}, b'{"what": "a", "more": 1}', 400),
        ("POST", "/api/v1/purge", {"Content-Type": "text/plain"}, b'{"what": "*"}', 415),
        ("POST", "/api/v1/purge", {"Content-Type": "application/x-www-form-urlencoded"}, b"what=*", 415),
        ("POST", "/api/v1/purge", {}, b"", 415),
        ("POST", "/api/v1/purge", {"Content-Type": "application/json", "Origin": "http://x.test"}, b"{}", 403),
        ("GET", "/api/v1/status", {"Host": "x.test"}, b"", 403),
        ("GET", "/api/v1/inspect", {}, b"", 400),
        ("GET", "/api/v1/inspect?what=app:1&what=app:2", {}, b"", 400),
        ("GET", "/api/v1/inspect?what=*", {}, b"", 400),
        ("GET", "/api/v1/inspect?what=unknown:1", {}, b"", 404),
        ("GET", "/api/v1/images?most=x", {}, b"", 400),
        ("GET", "/api/v1/images?other=x", {}, b"", 400),
        ("DELETE", "/api/v1/pins?what=app:1", {}, b"", 404),
    ],
)
def test_refuses__with_one_sentence(
    replica: Replica, method: str, target: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    found, answer = raw(replica, method, target, headers, body)
    assert found == status, answer
    assert list(answer) == ["error"]
    assert answer["error"]
    assert "\n" not in answer["error"]
    assert [each["image"] for each in told(replica, "GET", "/images", what="app:1")["images"]] == [APP]


def test_lists__page_by_page(replica: Replica) -> None:
    whole = told(replica, "GET", "/images")
    assert whole["next"] is None
    found: list[str] = []
    query = {"most": "3"}
    for _ in range(10):
        page = told(replica, "GET", "/images", **query)
        found += [each["image"] for each in page["images"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert found == [each["image"] for each in whole["images"]]
    assert found == [APP, *(f"docker.io/library/many:{each}" for each in range(7))]


def test_tells__how_it_does(replica: Replica) -> None:
    status = told(replica, "GET", "/status")
    assert status["fleet"]["state"] == "alone"
    assert [each["is_this"] for each in status["fleet"]["replicas"]] == [True]
    assert status["store"]["manifests"] == 16
    assert status["hits"]["requests"] > 0
    assert status["hits"]["hits"] <= status["hits"]["requests"]
    assert [each["name"] for each in status["upstreams"]] == ["docker.io"]
    assert status["upstreams"][0]["is_up"]


def test_tells__what_other_sizes_of_the_store_were_worth(replica: Replica) -> None:
    eventually(lambda: told(replica, "GET", "/status")["advice"]["requested"] > 1000, "what was pulled is looked at")
    advice = told(replica, "GET", "/status")["advice"]
    assert 0 <= advice["half"] <= advice["same"] <= advice["double"] <= 1


def test_leaves_open__what_probes_ask(replica: Replica) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", replica.admin_port, timeout=30)) as connection:
        for path in ("/metrics", "/healthz", "/readyz"):
            connection.request("GET", path, headers={"Host": "x.test", "Origin": "http://x.test"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
