"""The one table from error code to status."""

from __future__ import annotations

import pytest

from mirror.oci.errors import ErrorCode, RegistryError


@pytest.mark.parametrize("code", ErrorCode)
def test_has_status__every_code(code: ErrorCode) -> None:
    assert 400 <= code.status < 600
    assert RegistryError(code, "text").status == code.status


def test_keeps_apart__what_upstreams_mean() -> None:
    kinds = (ErrorCode.MANIFEST_UNKNOWN, ErrorCode.DENIED, ErrorCode.TOOMANYREQUESTS, ErrorCode.UNAVAILABLE)
    assert [code.status for code in kinds] == [404, 403, 429, 503]
