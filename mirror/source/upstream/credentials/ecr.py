"""Amazon's registries: a password for twelve hours, by the `boto3` of the extra `ecr`."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.config import Upstream
from mirror.source.upstream.credentials.credential import Credential, CredentialError, usable
from mirror.source.upstream.credentials.leases import Lease, believed

_PUBLIC = "public.ecr.aws"
_PUBLIC_REGION = "us-east-1"
# How the name of a user's own key begins; those of a role are made anew for each session.
_OWN_KEY = "AKIA"
_PRIVATE = re.compile(
    r"(?P<account>\d+)\.dkr[.-]ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)"
    r"\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn"
    r"|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)"
)


class Registry(NamedTuple):
    """Whose registry it is, where, and how it is asked; the public one is no account's."""

    account: str
    region: str
    is_fips: bool = False


def registry_of(upstream: Upstream) -> Registry | None:
    """Return the registry that an upstream's name or URL tells of, None if neither does."""
    for host in (upstream.name, urlsplit(upstream.url).hostname or ""):
        if host == _PUBLIC:
            return Registry("", _PUBLIC_REGION)
        match = _PRIVATE.fullmatch(host)
        if match is not None:
            return Registry(match["account"], match["region"], match["fips"] is not None)
    return None


def fetch(registry: Registry) -> Lease[Credential | None]:
    """Return a registry's password, asked for with what boto3 finds in environment, files or instance.

    Raises:
        CredentialError: boto3 finds nothing, or Amazon says no.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(
        connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2}, use_fips_endpoint=registry.is_fips
    )
    service = "ecr" if registry.account else "ecr-public"
    arguments = {"registryIds": [registry.account]} if registry.account else {}
    session = boto3.Session()
    try:
        with contextlib.closing(session.client(service, region_name=registry.region, config=config)) as client:
            answer = client.get_authorization_token(**arguments)["authorizationData"]
            key = session.get_credentials().access_key
    except ClientError as error:
        said = error.response.get("Error", {})
        # What follows may quote the request, and with it a session's token.
        message = re.split(r"\n|\. ", said.get("Message", ""))[0]
        raise CredentialError("provider ecr: Amazon gave no password", f"{said.get('Code')}: {message}") from None
    except BotoCoreError as error:
        raise CredentialError("provider ecr: Amazon gave no password", f"{type(error).__name__}: {error}") from None
    found = answer[0] if isinstance(answer, list) else answer
    username, _, password = base64.b64decode(found["authorizationToken"]).decode().partition(":")
    seconds = believed(found["expiresAt"].timestamp() - time.time())
    account = f"ecr:{key}" if key.startswith(_OWN_KEY) else ""
    return Lease(usable("provider ecr", username, password)._replace(account=account), seconds)
