"""AWS's clock and botocore's failures: what everything that is timed or tried again rests on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from freezegun import freeze_time

from chalicelib.aws.clients import call
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.threads import Threads
from chalicelib.domain.errors import UNANSWERED, AwsError, StoreError

AWS_TIME = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


class Answer:
    """An HTTP answer of AWS's."""

    def __init__(self, date: str | None) -> None:
        self.headers = {"date": date} if date else {}


class Host:
    """A host's monotonic clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def at(moment: datetime) -> Answer:
    return Answer(moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))


class TestClock:
    """P15: leases and ends go by AWS's time."""

    @pytest.mark.parametrize("host_is_off_by", [timedelta(minutes=-5), timedelta(minutes=5), timedelta(days=400)])
    def test_two_workers_agree_on_the_time_however_wrong_their_hosts_are(self, host_is_off_by: timedelta) -> None:
        with freeze_time(AWS_TIME + host_is_off_by):
            wrong = AwsClock(Host())
            wrong.received(at(AWS_TIME))
            assert wrong.now() == AWS_TIME

    def test_time_goes_on_between_two_answers(self) -> None:
        host = Host()
        clock = AwsClock(host)
        clock.received(at(AWS_TIME))
        host.seconds += 7.5
        assert clock.now() == AWS_TIME + timedelta(seconds=7.5)

    def test_an_answer_that_was_long_under_way_does_not_turn_the_time_back(self) -> None:
        host = Host()
        clock = AwsClock(host)
        clock.received(at(AWS_TIME + timedelta(seconds=3)))
        clock.received(at(AWS_TIME))
        assert clock.now() == AWS_TIME + timedelta(seconds=3)

    def test_a_process_that_was_frozen_learns_the_time_from_its_next_answer(self) -> None:
        host = Host()  # whose clock stands still while it is frozen
        clock = AwsClock(host)
        clock.received(at(AWS_TIME))
        clock.received(at(AWS_TIME + timedelta(hours=1)))
        assert clock.now() == AWS_TIME + timedelta(hours=1)

    @pytest.mark.parametrize("date", [None, "yesterday", "Fri, 99 Nov 2026 12:00:00 GMT"])
    def test_an_answer_without_a_readable_date_tells_nothing(self, date: str | None) -> None:
        clock = AwsClock(Host())
        clock.received(at(AWS_TIME))
        clock.received(Answer(date))
        assert clock.now() == AWS_TIME


def failing(error: Exception) -> Any:
    def send(**_: Any) -> Any:
        raise error

    return send


def refused(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "EnableKey")


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "code", "retryable"),
        [
            (refused("AccessDeniedException"), "AccessDeniedException", False),
            (refused("ThrottlingException"), "ThrottlingException", True),
            (refused("NobodyHasHeardOfThis"), "NobodyHasHeardOfThis", True),
            (ConnectTimeoutError(endpoint_url="x"), "ConnectTimeoutError", True),
            (ReadTimeoutError(endpoint_url="x"), UNANSWERED, True),
            (NoCredentialsError(), "NoCredentialsError", True),
            (ResponseParserError("?"), "UnreadableAnswer", True),
        ],
    )
    def test_every_failure_has_aws_code_and_says_whether_trying_again_can_help(
        self, error: Exception, code: str, retryable: bool
    ) -> None:
        with pytest.raises(AwsError) as raised:
            call("kms:EnableKey", failing(error))
        assert (raised.value.code, raised.value.problem.retryable) == (code, retryable)

    def test_what_the_tables_refuse_is_told_apart_since_nothing_can_be_recorded_then(self) -> None:
        with pytest.raises(StoreError):
            call("dynamodb:TransactWriteItems", failing(refused("InternalServerError", 500)))


class TestThreads:
    def test_answers_come_in_the_order_of_the_questions(self) -> None:
        gather = Threads()
        assert gather([partial(int, number) for number in range(20)]) == list(range(20))

    def test_nothing_asked_is_nothing_answered(self) -> None:
        nothing: list[Any] = []
        assert Threads()(nothing) == []

    def test_an_error_is_raised_only_when_every_read_has_ended(self) -> None:
        ended = []

        def good() -> None:
            ended.append(True)

        def bad() -> None:
            raise AwsError("kms:DescribeKey", "Throttled", "no")

        with pytest.raises(AwsError):
            Threads()([bad, good, good])
        assert ended == [True, True]
