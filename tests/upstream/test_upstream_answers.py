"""Everything but blobs goes wrong as the dials say: manifests, listings, tokens, and the server as a whole."""

from __future__ import annotations

import json
import time
from typing import Literal

import pytest

from tests.upstream import Failure, Upstream
from tests.upstream.exchange import Reply, ask, dial


class TestManifestDials:
    def test_answers_head__with_less(self, upstream: Upstream) -> None:
        upstream.push_image("library/app", "1")
        dials = upstream.dials
        dials.manifest_head_digest = dials.manifest_head_length = False
        dials.manifest_head_type = "application/octet-stream"
        headers = ask(upstream.url, "/v2/library/app/manifests/1", "HEAD").headers
        assert not {"docker-content-digest", "content-length", "transfer-encoding"} & headers.keys()
        assert headers["content-type"] == "application/octet-stream"

    def test_minds_accept__when_strict(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1")
        upstream.dials.manifest_accept = "strict"
        path = "/v2/library/app/manifests/1"
        accepted = f"application/json, {image.index.media_type};q=0.5"
        assert ask(upstream.url, path, Accept="application/json").status == 404
        assert ask(upstream.url, path, Accept=accepted).status == 200

    def test_corrupts(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1")
        upstream.dials.manifest_corrupt = True
        reply = ask(upstream.url, "/v2/library/app/manifests/1")
        assert reply.headers["docker-content-digest"] == image.index.digest
        assert reply.body != upstream.content(image.index.digest)
        assert len(reply.body) == image.index.size

    def test_counts_pulls_down__head_is_free(self, upstream: Upstream) -> None:
        upstream.push_image("library/app", "1")
        upstream.dials.manifest_quota = 1
        path = "/v2/library/app/manifests/1"
        replies = [ask(upstream.url, path, method) for method in ("HEAD", "GET", "HEAD", "GET")]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["ratelimit-remaining"] for reply in replies] == [f"{n};w=21600" for n in (1, 0, 0, 0)]


class TestFailures:
    def test_fails__so_many_times_and_only_what_matches(self, upstream: Upstream) -> None:
        upstream.push_image("library/app", "1")
        failure = Failure(503, kind="manifest", method="GET", skip=1, times=2, body="html", retry_after="7")
        upstream.dials.failures.append(failure)
        path = "/v2/library/app/manifests/1"
        replies = [ask(upstream.url, path) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 503, 503, 200]
        assert replies[1].headers["retry-after"] == "7"
        assert replies[1].headers["content-type"].startswith("text/html")

    def test_swallows_requests__in_a_black_hole(self, upstream: Upstream) -> None:
        upstream.dials.black_hole = {"manifest"}
        with dial(upstream.url) as connection:
            connection.settimeout(0.5)
            connection.sendall(b"GET /v2/library/app/manifests/1 HTTP/1.1\r\nHost: upstream\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert ask(upstream.url, "/v2/").status == 200

    def test_hangs_up__so_many_times(self, upstream: Upstream) -> None:
        upstream.dials.hang_up, upstream.dials.hang_up_times = {"ping"}, 1
        with dial(upstream.url) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: upstream\r\n\r\n")
            assert connection.recv(1) == b""
        assert ask(upstream.url, "/v2/").status == 200

    def test_waits_before_an_answer(self, upstream: Upstream) -> None:
        upstream.dials.latency = {"ping": 0.2}
        began = time.monotonic()
        ask(upstream.url, "/v2/")
        assert time.monotonic() - began >= 0.2

    def test_sets_a_cookie__on_blobs_and_manifests(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1", layers=(1000,))
        upstream.dials.cookie = "sid=1; Path=/"
        for path in (f"blobs/{image.layers[0].digest}", "manifests/1"):
            assert ask(upstream.url, f"/v2/library/app/{path}").headers["set-cookie"] == "sid=1; Path=/"

    def test_reset__restores_every_dial(self, upstream: Upstream) -> None:
        upstream.dials.failures.append(Failure(500))
        assert ask(upstream.url, "/v2/").status == 500
        upstream.reset()
        assert ask(upstream.url, "/v2/").status == 200

    def test_pause__refuses_and_comes_back_on_the_same_port(self, upstream: Upstream) -> None:
        upstream.push_image("library/app", "1")
        with dial(upstream.url) as idle:
            upstream.pause()
            assert idle.recv(1) == b""
        for url in (upstream.url, upstream.cdn_url):
            with pytest.raises(ConnectionRefusedError):
                dial(url)
        upstream.resume()
        assert ask(upstream.url, "/v2/library/app/manifests/1").status == 200


def challenge(reply: Reply) -> str:
    assert reply.status == 401
    return reply.headers["www-authenticate"]


def token(upstream: Upstream, scope: str, field: str = "token", **headers: str) -> str:
    reply = ask(upstream.url, f"/token?service=registry.test&scope={scope}", **headers)
    assert reply.status == 200, reply
    return str(json.loads(reply.body)[field])


class TestTokens:
    PATH = "/v2/library/app/manifests/1"
    SCOPE = "repository:library/app:pull"

    @pytest.fixture
    def guarded(self, upstream: Upstream) -> Upstream:
        upstream.push_image("library/app", "1")
        upstream.dials.auth = "bearer"
        return upstream

    def test_challenges__then_a_token_opens(self, guarded: Upstream) -> None:
        expected = f'Bearer realm="{guarded.url}/token",service="registry.test",scope="{self.SCOPE}"'
        assert challenge(ask(guarded.url, self.PATH)) == expected
        key = f"Bearer {token(guarded, self.SCOPE)}"
        assert ask(guarded.url, self.PATH, Authorization=key).status == 200
        other = f"Bearer {token(guarded, 'repository:library/other:pull')}"
        assert "insufficient_scope" in challenge(ask(guarded.url, self.PATH, Authorization=other))

    def test_opens_private_repository__to_a_user_alone(self, guarded: Upstream) -> None:
        guarded.dials.private, guarded.dials.users = {"library/app"}, {"ann": "secret"}
        anonymous = f"Bearer {token(guarded, self.SCOPE)}"
        assert ask(guarded.url, self.PATH, Authorization=anonymous).status == 401
        known = f"Bearer {token(guarded, self.SCOPE, Authorization='Basic YW5uOnNlY3JldA==')}"
        assert ask(guarded.url, self.PATH, Authorization=known).status == 200
        assert ask(guarded.url, f"/token?scope={self.SCOPE}", Authorization="Basic YW5uOndyb25n").status == 401

    def test_refuses_first_use__when_late(self, guarded: Upstream) -> None:
        guarded.dials.token_late = True
        key = f"Bearer {token(guarded, self.SCOPE)}"
        assert [ask(guarded.url, self.PATH, Authorization=key).status for _ in range(2)] == [401, 200]

    def test_names_other_realm__once_expired(self, guarded: Upstream) -> None:
        guarded.dials.expired_realm, guarded.dials.token_lifetime = f"{guarded.cdn_url}/token", 0
        key = f"Bearer {token(guarded, self.SCOPE)}"
        assert guarded.cdn_url in challenge(ask(guarded.url, self.PATH, Authorization=key))
        assert guarded.url in challenge(ask(guarded.url, self.PATH))

    def test_challenges_nobody__once_expired(self, guarded: Upstream) -> None:
        guarded.dials.expired_challenge, guarded.dials.token_lifetime = False, 0
        key = f"Bearer {token(guarded, self.SCOPE)}"
        assert "www-authenticate" not in ask(guarded.url, self.PATH, Authorization=key).headers
        assert challenge(ask(guarded.url, self.PATH))

    def test_challenges_on_the_other_origin__that_manifests_redirect_to(self, guarded: Upstream) -> None:
        guarded.dials.auth_origins, guarded.dials.redirect_manifests = {"cdn"}, True
        target = ask(guarded.url, self.PATH).headers["location"]
        assert target == guarded.cdn_url + self.PATH
        assert challenge(ask(guarded.cdn_url, self.PATH))
        key = f"Bearer {token(guarded, self.SCOPE)}"
        assert ask(guarded.cdn_url, self.PATH, Authorization=key).status == 200

    def test_words_the_challenge__as_dialled(self, guarded: Upstream) -> None:
        dials = guarded.dials
        dials.challenge_service, dials.challenge_scheme, dials.challenge_scope = None, "bEaReR", "get"
        dials.challenge_parameters = r'error="a \"quoted\" word",'
        expected = rf'bEaReR error="a \"quoted\" word",realm="{guarded.url}/token"'
        assert challenge(ask(guarded.url, self.PATH, "HEAD")) == expected
        assert challenge(ask(guarded.url, self.PATH)) == f'{expected},scope="{self.SCOPE}"'

    def test_shapes_the_token__as_dialled(self, guarded: Upstream) -> None:
        guarded.dials.token_fields, guarded.dials.token_expires_in = ("access_token",), None
        document = json.loads(ask(guarded.url, f"/token?scope={self.SCOPE}").body)
        assert document.keys() == {"access_token"}
        guarded.dials.token_shape = "huge"
        assert len(ask(guarded.url, f"/token?scope={self.SCOPE}").body) > 2**16

    def test_answers_missing_repository__after_a_token(self, guarded: Upstream) -> None:
        guarded.dials.missing_repository = 401
        key = f"Bearer {token(guarded, 'repository:library/none:pull')}"
        reply = ask(guarded.url, "/v2/library/none/manifests/1", Authorization=key)
        assert "insufficient_scope" in challenge(reply)


class TestListings:
    @pytest.fixture
    def tagged(self, upstream: Upstream) -> Upstream:
        for tag in ("c", "a", "b"):
            upstream.push_manifest("library/app", tag, b"{}", "application/json")
        return upstream

    @pytest.mark.parametrize("link", ["relative", "absolute", "opaque"])
    def test_pages_tags(self, tagged: Upstream, link: Literal["relative", "absolute", "opaque"]) -> None:
        tagged.dials.tags_link = link
        path, pages = "/v2/library/app/tags/list?n=2", []
        while path:
            reply = ask(tagged.url, path)
            pages.append(json.loads(reply.body)["tags"])
            target = reply.headers.get("link", "<").partition("<")[2].partition(">")[0]
            assert target.startswith("http") == (link == "absolute" and bool(target))
            path = target.removeprefix(tagged.url)
        assert pages == [["a", "b"], ["c"]]

    def test_refuses_rebuilt_cursor(self, tagged: Upstream) -> None:
        tagged.dials.tags_link = "opaque"
        assert ask(tagged.url, "/v2/library/app/tags/list?n=2&last=a").status == 405

    @pytest.mark.parametrize(
        ("mode", "status", "content_type"),
        [("missing", 404, "application/json"), ("html", 200, "text/html"), ("redirected", 303, None)],
    )
    def test_has_no_referrers(
        self,
        upstream: Upstream,
        mode: Literal["missing", "html", "redirected"],
        status: int,
        content_type: str | None,
    ) -> None:
        image = upstream.push_image("library/app", "1")
        upstream.dials.referrers = mode
        reply = ask(upstream.url, f"/v2/library/app/referrers/{image.index.digest}")
        assert reply.status == status
        if content_type is None:
            assert ask(upstream.url, reply.headers["location"]).status == 429
        else:
            assert reply.headers["content-type"].startswith(content_type)

    def test_lists_referrers__filtered(self, upstream: Upstream) -> None:
        image = upstream.push_image("library/app", "1")
        for kind in ("sbom", "signature"):
            document = {"artifactType": f"test/{kind}", "subject": image.index.document}
            body = json.dumps(document).encode()
            upstream.push_manifest("library/app", kind, body, "application/vnd.oci.image.manifest.v1+json")
        path = f"/v2/library/app/referrers/{image.index.digest}"
        assert len(json.loads(ask(upstream.url, path).body)["manifests"]) == 2
        reply = ask(upstream.url, f"{path}?artifactType=test/sbom")
        assert [one["artifactType"] for one in json.loads(reply.body)["manifests"]] == ["test/sbom"]
        assert reply.headers["oci-filters-applied"] == "artifactType"
        upstream.dials.referrers_page = 1
        assert "page=1" in ask(upstream.url, path).headers["link"]
