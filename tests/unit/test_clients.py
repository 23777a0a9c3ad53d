"""AWS's clock and botocore's failures: what everything that is timed or tried again rests on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier, Event, Thread, current_thread
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

    def test_of_two_threads_the_one_with_the_earlier_response_does_not_turn_the_time_back(self) -> None:
        """It read the time before the other, and notes it after it."""
        early_at_work, go_on = Event(), Event()

        def monotonic() -> float:
            if current_thread() is early:
                early_at_work.set()
                go_on.wait(30)
            return 1000.0

        clock = AwsClock(monotonic)
        early = Thread(target=clock.received, args=(at(AWS_TIME),), daemon=True)
        later = Thread(target=clock.received, args=(at(AWS_TIME + timedelta(seconds=3)),), daemon=True)
        early.start()
        assert early_at_work.wait(30)
        later.start()
        later.join(0.2)  # it waits for the other
        go_on.set()
        early.join(30)
        later.join(30)
        assert clock.now() == AWS_TIME + timedelta(seconds=3)


class TestThreads:
    def test_jobs_run_at_the_same_time(self) -> None:
        """Each waits until as many are at work as may be."""
        together = Barrier(4)
        assert len(Threads(4)([partial(together.wait, 30) for _ in range(8)])) == 8

    def test_no_more_jobs_run_at_the_same_time_than_may(self) -> None:
        at_work: list[int] = []
        most: list[int] = []
        together = Barrier(3)

        def job() -> None:
            at_work.append(1)
            together.wait(30)
            most.append(len(at_work))
            together.wait(30)
            at_work.pop()

        Threads(3)([job] * 9)
        assert max(most) == 3

    @pytest.mark.parametrize("most", [1, 4])
    def test_jobs_that_call_it_themselves_end_though_there_are_fewer_threads_than_jobs(self, most: int) -> None:
        threads, sums = Threads(8, most), []

        def outer(number: int) -> int:
            return sum(threads([partial(int, number)] * 5))

        def work() -> None:
            sums.extend(threads([partial(outer, number) for number in range(20)]))

        working = Thread(target=work, daemon=True)
        working.start()
        working.join(30)
        assert sums == [5 * number for number in range(20)]

    def test_of_several_errors_the_first_jobs_is_raised(self) -> None:
        with pytest.raises(AwsError, match="first"):
            Threads()([dict, failing(AwsError("kms:DescribeKey", "A", "first")), failing(ValueError("second"))])

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
