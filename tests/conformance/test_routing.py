"""Which upstream and which repository a request means."""

from __future__ import annotations

import socket
from urllib.parse import quote

import pytest

from tests.conformance.forms import UPSTREAM, WITH_PORT, Form, forms
from tests.conformance.wire import Door, assert_error, assert_plain
from tests.upstream import Image, Upstream

HUB = {
    "none": Form(),
    **forms("docker.io"),
    "ns index.docker.io": Form(query="ns=index.docker.io"),
    "ns registry-1.docker.io": Form(query="ns=registry-1.docker.io"),
    "name docker.io and ns registry-1.docker.io": Form(within="docker.io/", query="ns=registry-1.docker.io"),
}


@pytest.mark.parametrize("path", ["/v2/", "/v2", f"/v2/?ns={UPSTREAM}", f"/{UPSTREAM}/v2/", f"/{UPSTREAM}/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_the_ping__without_a_challenge(door: Door, upstream: Upstream, path: str, method: str) -> None:
    answer = door.ask(method, path)
    assert answer.status == 200
    assert_plain(answer)
    assert upstream.counters.headers == []


@pytest.mark.parametrize("form", forms(UPSTREAM).values(), ids=forms(UPSTREAM))
def test_finds_the_upstream__in_every_form(door: Door, upstream: Upstream, pushed: Image, form: Form) -> None:
    base = pushed.repository
    manifest = form.get(door, f"{base}/manifests/{pushed.tag}")
    assert manifest.status == 200
    assert manifest.body == upstream.content(pushed.index.digest)
    blob = pushed.layers[0]
    answer = form.get(door, f"{base}/blobs/{blob.digest}")
    assert answer.status == 200
    assert answer.body == upstream.content(blob.digest)
    for one in (manifest, answer):
        assert one.headers["OCI-Namespace"] == (UPSTREAM if form.query else None)
    assert {received.headers["Host"] for received in upstream.counters.headers} == {upstream.address}
    assert upstream.counters.requests(repository=base) == len(
        [one for one in upstream.counters.headers if one.path.startswith("/v2/") and one.path != "/v2/"]
    )


@pytest.mark.parametrize("form", forms(WITH_PORT).values(), ids=forms(WITH_PORT))
def test_finds_the_upstream__with_a_port_in_its_name(door: Door, pushed: Image, form: Form) -> None:
    answer = form.get(door, f"{pushed.repository}/manifests/{pushed.tag}")
    assert answer.status == 200
    assert answer.headers["OCI-Namespace"] == (WITH_PORT if form.query else None)


@pytest.mark.parametrize("form", HUB.values(), ids=HUB)
@pytest.mark.parametrize("short", [False, True])
def test_finds_docker_hub__and_its_library(door: Door, pushed: Image, form: Form, short: bool) -> None:
    name = pushed.repository.removeprefix("library/") if short else pushed.repository
    answer = form.get(door, f"{name}/manifests/{pushed.tag}")
    assert answer.status == 200
    assert answer.headers["Docker-Content-Digest"] == pushed.index.digest


def test_adds_no_library__elsewhere(door: Door, upstream: Upstream, pushed: Image) -> None:
    short = pushed.repository.removeprefix("library/")
    assert_error(door.get(f"/v2/{short}/manifests/{pushed.tag}?ns={UPSTREAM}"), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
    assert upstream.counters.requests(repository=short) > 0


def test_holds_content_once__whatever_the_form(door: Door, upstream: Upstream, pushed: Image) -> None:
    door.pull(pushed)
    upstream.counters.clear()
    for form in HUB.values():
        assert form.get(door, f"{pushed.repository}/manifests/{pushed.tag}").status == 200
        assert form.get(door, f"{pushed.repository}/blobs/{pushed.layers[0].digest}").status == 200
    assert upstream.counters.headers == []


def test_keeps_upstreams_apart__same_repository(door: Door, upstream: Upstream, pushed: Image) -> None:
    door.pull(pushed)
    upstream.counters.clear()
    assert door.get(f"/v2/{pushed.repository}/manifests/{pushed.tag}?ns={UPSTREAM}").status == 200
    assert upstream.counters.requests(kind="manifest") > 0


def test_names_the_namespace__on_errors_too(door: Door, upstream: Upstream, repository: str) -> None:
    answer = door.get(f"/v2/{repository}/manifests/nothing?ns={UPSTREAM}")
    assert answer.status == 404
    assert answer.headers["OCI-Namespace"] == UPSTREAM


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "rest", ["manifests/1.0", f"blobs/sha256:{'0' * 64}", "tags/list", f"referrers/sha256:{'0' * 64}"]
)
def test_refuses__ns_and_prefix_disagree(
    door: Door, upstream: Upstream, repository: str, rest: str, method: str
) -> None:
    for target in (
        f"/v2/{UPSTREAM}/{repository}/{rest}?ns=docker.io",
        f"/{UPSTREAM}/v2/{repository}/{rest}?ns=docker.io",
        f"/v2/docker.io/{repository}/{rest}?ns={quote(WITH_PORT, safe='')}",
    ):
        answer = door.ask(method, target)
        assert answer.status == 400
        if method == "GET":
            assert_error(answer, 400, "NAME_INVALID")
    assert upstream.counters.headers == []


@pytest.mark.parametrize(
    "rest", ["manifests/1.0", f"blobs/sha256:{'0' * 64}", "tags/list", f"referrers/sha256:{'0' * 64}"]
)
def test_dials_nobody__unknown_upstream(door: Door, upstream: Upstream, repository: str, rest: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bystander:
        bystander.setblocking(False)
        address = f"127.0.0.1:{bystander.getsockname()[1]}"
        for unknown in (address, "unknown.example", "localhost", "docker.io.unknown.example"):
            assert_error(door.get(f"/v2/{repository}/{rest}?ns={quote(unknown, safe='')}"), 404, "NAME_UNKNOWN")
        with pytest.raises(BlockingIOError):
            bystander.accept()
    assert upstream.counters.headers == []


def test_takes_an_unknown_first_component__for_part_of_the_name(door: Door, upstream: Upstream) -> None:
    answer = door.get("/v2/unknown.example/app/manifests/1.0")
    assert_error(answer, 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")
    assert upstream.counters.requests(repository="unknown.example/app") > 0


def test_takes_an_unknown_host_header__for_its_own_name(door: Door, pushed: Image) -> None:
    for host in ("mirror.example", "mirror.example:5000", "127.0.0.1"):
        answer = door.get(f"/v2/{pushed.repository}/manifests/{pushed.tag}", {"Host": host})
        assert answer.status == 200
