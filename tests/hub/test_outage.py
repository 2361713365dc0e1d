"""An outage alone, its clock in the test's hand: who is asked, and when."""

from __future__ import annotations

import pytest

from mirror.hub.outages import Outage
from mirror.oci.errors import ErrorCode, Failure, RegistryError
from mirror.oci.reference import Repository, Tag

A, B, C, D = (Repository("a.test", name) for name in ("a", "b", "c", "d"))
ONE, TWO = Tag("1"), Tag("2")


def error(failure: Failure, retry_after: int | None = None) -> RegistryError:
    return RegistryError(ErrorCode.UNAVAILABLE, "it failed", failure=failure, retry_after=retry_after)


@pytest.fixture
def outage() -> Outage[Tag]:
    return Outage()


class TestWho:
    @pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.DNS, Failure.TLS, Failure.TIMEOUT, Failure.TOO_MANY])
    def test_fails__everywhere__by_the_address_or_the_account(self, outage: Outage[Tag], failure: Failure) -> None:
        outage.began(A, ONE, error(failure), 0)
        assert outage.met(B, ONE, 0) is failure

    @pytest.mark.parametrize("failure", [Failure.SERVER, Failure.RESET, Failure.CREDENTIALS])
    def test_fails__one_repository(self, outage: Outage[Tag], failure: Failure) -> None:
        outage.began(A, ONE, error(failure), 0)
        assert outage.met(A, TWO, 0) is failure
        assert outage.met(B, ONE, 0) is None

    def test_fails__everywhere__once_many_repositories_do(self, outage: Outage[Tag]) -> None:
        for each in (A, B):
            outage.began(each, ONE, error(Failure.SERVER), 0)
        assert outage.met(D, ONE, 0) is None
        outage.began(C, ONE, error(Failure.SERVER), 0)
        assert outage.met(D, ONE, 0) is Failure.SERVER

    def test_fails__never_everywhere__by_credentials_or_what_is_local(self, outage: Outage[Tag]) -> None:
        for each in (A, B, C):
            outage.began(each, ONE, error(Failure.CREDENTIALS), 0)
            outage.began(each, TWO, error(Failure.TOO_MANY), 0, is_local=True)
        assert outage.met(D, ONE, 0) is None

    def test_fails__one_that_fails_alone__does_not_stop_the_others_again(self, outage: Outage[Tag]) -> None:
        outage.began(A, ONE, error(Failure.TIMEOUT), 0)
        outage.answered(B)
        outage.began(A, ONE, error(Failure.TIMEOUT), 1)
        assert outage.met(B, ONE, 1) is None
        assert outage.met(A, ONE, 1) is Failure.TIMEOUT

    def test_changes__while_it_lasts(self, outage: Outage[Tag]) -> None:
        outage.began(A, ONE, error(Failure.REFUSED), 0)
        outage.began(B, ONE, error(Failure.SERVER), 2)
        assert outage.met(C, ONE, 2) is Failure.SERVER
        outage.began(B, ONE, error(Failure.TOO_MANY, 60), 4)
        assert outage.met(C, ONE, 4) is Failure.TOO_MANY
        assert outage.due(30, "") == []
        outage.began(B, ONE, error(Failure.CREDENTIALS), 65)
        assert outage.met(C, ONE, 65) is None


class TestEnd:
    def test_ends__with_any_answer__the_others_are_asked_once(self, outage: Outage[Tag]) -> None:
        outage.began(A, ONE, error(Failure.TIMEOUT), 0)
        outage.began(B, ONE, error(Failure.TIMEOUT), 0)
        outage.answered(C)
        assert outage.met(A, ONE, 1) is None
        assert outage.met(A, ONE, 1) is Failure.TIMEOUT
        assert outage.met(B, ONE, 1) is None
        for each in (A, B):
            outage.answered(each)
        assert outage.is_over

    def test_ends__when_nobody_pulls_any_more(self, outage: Outage[Tag]) -> None:
        outage.began(A, ONE, error(Failure.REFUSED), 0)
        outage.met(B, ONE, 500)
        outage.due(650, "")
        assert not outage.is_over
        outage.due(1200, "")
        assert outage.is_over

    def test_ends__for_all__once_the_credentials_are_good_again(self, outage: Outage[Tag]) -> None:
        for each in (A, B):
            outage.began(each, ONE, error(Failure.CREDENTIALS), 0, identity="x")
        outage.answered(A)
        assert outage.met(B, ONE, 1) is None
        assert outage.met(B, ONE, 1) is Failure.CREDENTIALS


class TestDue:
    @pytest.mark.parametrize(
        ("failure", "retry_after", "shortest", "longest"),
        [
            (Failure.SERVER, 30, 0.5, 3),
            (Failure.REFUSED, 10, 0.5, 3),
            (Failure.TIMEOUT, 10, 0.5, 3),
            (Failure.TOO_MANY, 77, 77, 78),
            (Failure.CREDENTIALS, None, 45, 58),
        ],
    )
    def test_asks__not_before_and_soon_after(
        self, outage: Outage[Tag], failure: Failure, retry_after: int | None, shortest: float, longest: float
    ) -> None:
        outage.began(A, ONE, error(failure, retry_after), 100)
        assert outage.due(100 + shortest - 0.1, "") == []
        assert outage.due(100 + longest, "") == [(A, ONE)]
        assert outage.due(100 + longest, "") == [], "one at a time"

    def test_asks__at_once__as_somebody_else(self, outage: Outage[Tag]) -> None:
        outage.began(A, ONE, error(Failure.CREDENTIALS), 0, identity="old")
        assert outage.due(1, "old") == []
        assert outage.due(1, "new") == [(A, ONE)]

    def test_asks__for_another_repository_first__then_in_turn(self, outage: Outage[Tag]) -> None:
        outage.began(A, ONE, error(Failure.TIMEOUT), 0)
        outage.met(A, TWO, 0)
        outage.met(B, ONE, 0)
        chosen = [outage.due(moment, "")[0] for moment in (10, 20, 30)]
        assert chosen[0] == (B, ONE)
        assert set(chosen[1:]) == {(A, ONE), (A, TWO)}

    def test_asks__for_a_few_at_once__of_many_that_fail_alone(self, outage: Outage[Tag]) -> None:
        names = [Repository("a.test", f"r{number}") for number in range(10)]
        for each in names:
            outage.began(each, ONE, error(Failure.CREDENTIALS), 0, identity="old")
        asked = [key for moment in range(4) for key in outage.due(60 + moment / 100, "old")]
        assert sorted(repository for repository, _ in asked) == sorted(names)
