"""How the server behaves: one flat set of dials, all of them off by default, turned at any time from any thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tests.upstream.failures import Failure, Shape
from tests.upstream.routes import Origin


@dataclass(slots=True)
class Dials:
    """Every way in which the server can depart from a plain, open, well-behaved registry."""

    # Anything
    failures: list[Failure] = field(default_factory=list)
    """Error answers; the first that matches is given."""
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds to wait before an answer, by kind; "*" is for the kinds not named."""
    black_hole: set[str] = field(default_factory=set)
    """Kinds of request that are accepted and never answered; "*" is all."""
    black_hole_times: int | None = None
    """How many requests fall into the hole; None: all."""
    hang_up: set[str] = field(default_factory=set)
    """Kinds of request that get no answer but the end of their connection; "*" is all."""
    hang_up_times: int | None = None
    """How many requests are hung up on; None: all."""
    cookie: str | None = None
    """A Set-Cookie header on every answer."""

    # No registry's answers, by kind of request; "*" is all
    endless: set[str] = field(default_factory=set)
    """Kinds answered 200 with a chunked body that never ends."""
    gzip_bomb: set[str] = field(default_factory=set)
    """Kinds answered 200 with 1 MiB of gzip that holds 1 GiB, whether gzip is accepted or not."""
    heavy_headers: set[str] = field(default_factory=set)
    """Kinds answered with 1 MiB of headers beside their own."""
    heavy_header_line: int = 4000
    """Bytes of each of those headers' lines; 2**20: one line."""
    drip_headers: set[str] = field(default_factory=set)
    """Kinds whose headers come byte by byte, and never end."""
    drip_body: set[str] = field(default_factory=set)
    """Kinds whose headers come at once, and 1 MiB of body byte by byte."""
    drip_seconds: float = 0.05
    """The time between two bytes of a drip."""

    # Limits
    manifest_quota: int | None = None
    """Manifest GETs left, as Docker Hub counts them: HEAD is free, then 429. None: no quota, no headers."""
    manifest_quota_limit: int = 100
    """The limit that the quota's headers announce, with a window of 21600 s."""
    user_quotas: dict[str, int] = field(default_factory=dict)
    """Manifest GETs left to each of these users, instead of `manifest_quota`."""
    manifest_rate: float | None = None
    """Manifest GETs a second (ECR Public: 1); more are 429."""
    manifest_burst: int = 1
    """How many manifest GETs may come at once under `manifest_rate`."""
    limit_body: Shape = "json"
    """The shape of the 429 of a quota or a rate; "plain" is the text of Docker Hub's guard against abuse."""
    limit_retry_after: str | None = None
    """The Retry-After header of that 429, as it goes out."""
    login_limit: int | None = None
    """Failed logins within 3 minutes (GitLab: 30) after which everything that logs in is 403."""
    login_ban_seconds: float = 3600.0
    """How long that lasts."""

    # Who is let in
    auth: Literal["none", "bearer", "basic"] = "none"
    """What the registry asks for; pushes too."""
    auth_origins: set[Origin] = field(default_factory=lambda: {"registry"})
    """Which origins ask for it on their `/v2/` paths (signed URLs never do)."""
    users: dict[str, str] = field(default_factory=dict)
    """User names and passwords."""
    anonymous: bool = True
    """Whether a token is given to a caller without credentials (for pulls alone)."""
    private: set[str] = field(default_factory=set)
    """Repositories that are closed to anonymous callers."""
    private_status: Literal[401, 403] = 401
    """The registry's answer to a token that does not open what is asked for."""
    wrong_password: Literal[401, 403] = 401
    """The answer to a login that fails; 403 is ECR's DENIED for a password that has expired."""
    missing_repository: Literal[404, 401] = 404
    """The answer for a repository that does not exist; 401 is Docker Hub's insufficient_scope, after a token."""
    not_found_body: Shape = "json"
    """The shape of every 404."""
    not_found_code: str | None = None
    """The code in a JSON 404; None: the right one."""
    ping_open: bool = False
    """Whether `/v2/` answers 200 without a token."""
    basic_type: str = "application/json"
    """Content-Type of the Basic challenge's body (ECR: text/plain)."""
    basic_open: bool = False
    """Whether Basic is asked only for what is private, and for pushes."""

    # The challenge
    challenge: bool = True
    """Whether a 401 has a WWW-Authenticate header at all."""
    challenge_scheme: str = "Bearer"
    """The scheme as it is spelled."""
    challenge_service: str | None = "registry.test"
    """None: no service."""
    challenge_quotes: bool = True
    """Whether parameter values other than the realm are quoted."""
    challenge_scope: Literal["always", "never", "get"] = "always"
    """Whether the scope is named; "get": not in the answer to a HEAD."""
    challenge_scope_text: str | None = None
    """An opaque scope instead of the usual one (ECR Public: "aws"); the token must have been asked for with it."""
    challenge_extra: list[str] = field(default_factory=list)
    """More WWW-Authenticate header lines, sent before the real one."""
    challenge_parameters: str = ""
    """More parameters, as written, ahead of the realm: `error="a \\"quoted\\" word",` for one."""
    challenge_realm: Literal["own", "foreign"] = "own"
    """Whether the realm is on the registry's origin or on the one for tokens."""
    realm_path: str = "/token"
    """The realm's path, one of those that `routes` knows; `{repository}` stands for the repository's first part."""
    expired_challenge: bool = True
    """Whether the 401 for a token that was once good has a challenge."""
    expired_realm: str | None = None
    """The realm in the challenge to a token that was once good (nvcr.io: a dead end)."""

    # Tokens
    token_fields: tuple[str, ...] = ("token", "access_token")
    """The fields that hold the token."""
    token_shape: Literal["normal", "huge", "broken"] = "normal"
    """"huge" is more than 64 KiB, "broken" is not JSON."""
    token_type: str = "application/json"
    """Content-Type of the token answer."""
    token_expires_in: int | None = 300
    """The lifetime announced; None: no field."""
    token_issued_at: str | None = None
    """The time of issue announced; None: no field."""
    token_lifetime: float = 300.0
    """The lifetime kept, in seconds."""
    token_late: bool = False
    """Whether the first use of each token is answered 401."""
    token_empty_grant: bool = False
    """Whether tokens open nothing."""
    token_denied: Literal[401, 403] | None = None
    """Status of the token answer for a repository that is not there or not open to the caller (GHCR); None: a token."""
    token_strict_scope: bool = False
    """Whether a scope that is malformed is answered 400 (Quay)."""
    token_post: int | None = 405
    """Status for a POST; None: it works like GET."""
    exchange: dict[str, str] = field(default_factory=dict)
    """Cloud access tokens that `/oauth2/exchange` takes (ACR), and whose password it gives out as refresh token."""

    # Redirects
    redirect: bool = False
    """Whether blobs are redirected to the CDN origin, with a signed URL."""
    redirect_manifests: bool = False
    """Whether manifests are redirected too, to themselves on the CDN origin."""
    redirect_tags: bool = False
    """Whether lists of tags are redirected in the same way."""
    redirect_status: Literal[301, 302, 303, 307, 308] = 307
    redirect_head: bool = True
    """Whether HEAD is redirected like GET."""
    redirect_relative: bool = False
    """Whether the Location is relative: the registry's own origin then serves the signed URL."""
    redirect_hops: int = 1
    """How many redirects lead to the bytes; 0 or fewer: an endless loop."""
    redirect_to: str | None = None
    """A Location to send instead: to a link-local address, or from https to http."""
    cdn_hosts: tuple[str, ...] = ("127.0.0.1",)
    """Host names for the CDN, used in turn."""
    cdn_strict: bool = True
    """Whether the CDN minds an Authorization header, and answers 403 to a query that is not the signed one, raw."""
    cdn_authorization: Literal[400, 403] = 400
    """How a strict CDN answers an Authorization header."""
    cdn_seconds: float | None = None
    """How long a signed URL is good; then 403."""
    cdn_uses: int | None = None
    """How many requests a signed URL is good for; then 403."""
    cdn_head_status: int | None = None
    """Status for a HEAD on a signed URL; None: answered."""

    # Blob answers
    blob_ranges: Literal["served", "ignored", "wrong", "shifted", "refused"] = "served"
    """Range honoured; answered 200 with everything; answered with a Content-Range that is one too far, its size with
    it; answered with the bytes one before, whose Content-Range says so with the right size; 416."""
    blob_digests: set[str] | None = None
    """The blobs that the dials below act on; None: all."""
    blob_cut: int | None = None
    """Close the connection after exactly so many bytes of an answer that has more."""
    blob_cut_times: int | None = None
    """How many answers are cut; None: all."""
    blob_cut_reset: bool = False
    """Whether a cut is a TCP reset (bytes on their way may be lost) and not an orderly end."""
    blob_stall: int | None = None
    """Stop sending after so many bytes of an answer."""
    blob_stall_seconds: float | None = None
    """How long a stall lasts; None: until `release()`, or until the client leaves."""
    blob_stall_times: int | None = None
    """How many answers stall; None: all."""
    blob_rate: int | None = None
    """Bytes per second of each answer."""
    blob_rate_total: int | None = None
    """Bytes per second of all answers together."""
    blob_crawl_times: int = 0
    """How many answers to come are sent at 4 KiB a second."""
    blob_corrupt: bool = False
    """Whether one byte in the middle is flipped."""
    blob_extra: int = 0
    """Bytes sent beyond what Content-Length says; negative: so many fewer, then the connection ends."""
    blob_resize: int = 0
    """Bytes by which the blob itself, and Content-Length with it, is longer (or shorter, if negative)."""
    blob_length: Literal["announced", "chunked", "close"] = "announced"
    """Content-Length; chunked without it; or without it until the connection ends."""
    blob_gzip: bool = False
    """Whether a blob goes out gzipped (Content-Encoding) to a request that accepts gzip; such answers are not cut,
    and count as sent what was sent of the gzipped form."""
    blob_type: str = "application/octet-stream"
    blob_digest_header: bool = True

    # Manifest answers
    manifest_head_status: int | None = None
    """Status for a HEAD, for example 403, 405, 503."""
    manifest_head_digest: bool = True
    manifest_head_length: bool = True
    manifest_head_type: str | None = None
    """Content-Type of a HEAD answer; None: the right one."""
    manifest_checksum: bool = False
    """Whether answers carry X-Checksum-Sha256 (Artifactory)."""
    manifest_get_digest: bool = True
    manifest_type: str | None = None
    """Content-Type of a GET answer; None: the right one."""
    manifest_length: bool = True
    """Whether a GET answer has a Content-Length (else it is chunked)."""
    manifest_accept: Literal["ignored", "strict", "schema1"] = "ignored"
    """What happens to an Accept without the manifest's type: nothing; 404; another body, signed schema1."""
    manifest_corrupt: bool = False
    """Whether one byte of the body is changed; the headers stay."""
    manifest_wrong_digest: bool = False
    """Whether Docker-Content-Digest names another digest."""

    # Listings
    tags_page: int | None = None
    """The longest page given; None: as asked."""
    tags_max: int | None = None
    """An `n` above this is 405 (ECR: 1000)."""
    tags_link: Literal["relative", "absolute", "foreign", "opaque", "loop", "none"] = "relative"
    """The next page's Link; "foreign" names another host; "opaque" carries a cursor, and a rebuilt one is 405; "loop"
    names the page itself."""
    tags_null: bool = False
    """Whether a listing is null where it would be empty."""
    tags_digests: bool = False
    """Whether digests stand among the tags (Artifactory)."""
    tags_scope: str = "pull"
    """The action that a token needs for a listing (ACR: metadata_read)."""
    tags_type: str = "application/json"
    dash_tags: bool = False
    """Whether the tag `sha256-<hex>` leads to the subject itself (GitLab)."""
    referrers: Literal["served", "missing", "html", "redirected", "login"] = "served"
    """Served; 404; a login page with 200; 303 to another path; 302 to a login page with 200."""
    referrers_end: int = 429
    """Status where redirected referrers end (GHCR: 404 or 429)."""
    referrers_type: str = "application/vnd.oci.image.index.v1+json"
    referrers_filter: bool = True
    """Whether artifactType is applied (and OCI-Filters-Applied sent)."""
    referrers_page: int | None = None
    """The longest page of referrers; None: all."""
    referrers_loop: bool = False
    """Whether each page of referrers names itself as the next."""
