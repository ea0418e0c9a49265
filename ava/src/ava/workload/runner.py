"""Sends the workload over HTTP and counts the answers; `verdict` decides what they mean, `pacing` when to send."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import TYPE_CHECKING, Final

import aiohttp

from ava.workload import verdict
from ava.workload.tally import Tally
from ava.workload.verdict import Answer, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ava.workload.pacing import Pace
    from ava.workload.requests import Request, Workload
    from ava.workload.tally import Result

ATTEMPTS: Final = 20
"""How often a request is sent, at most, while the server says that it is overloaded."""

_REPORT_INTERVAL: Final = 0.5


class Api:
    """
    AVA over HTTP, as its accounts.
    """

    def __init__(self, session: aiohttp.ClientSession, token: Callable[[int], str]) -> None:
        self._session = session
        self._token = token

    async def send(self, request: Request) -> Answer:
        """
        Send once and return the answer, also when there is none.
        """
        headers = {"Authorization": f"Bearer {self._token(request.account_id)}"}
        if request.content_type:
            headers["Content-Type"] = request.content_type
        if request.idempotency_key:
            headers["Idempotency-Key"] = request.idempotency_key
        try:
            async with self._session.request(
                request.method, request.path, params=request.query, data=request.body, headers=headers
            ) as response:
                body = await response.read()
                return Answer(response.status, verdict.retry_after(response.headers.get("Retry-After")), body)
        except TimeoutError:
            return Answer(0, error="timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(0, error=type(error).__name__)


@contextlib.asynccontextmanager
async def connect(
    url: str, token: Callable[[int], str], *, concurrency: int, answer_timeout: float = 60.0
) -> AsyncIterator[Api]:
    """
    Open a client of `concurrency` connections; `answer_timeout` bounds one answer, seconds.
    """
    connector = aiohttp.TCPConnector(limit=concurrency, limit_per_host=concurrency)
    limits = aiohttp.ClientTimeout(total=answer_timeout)
    async with aiohttp.ClientSession(url, connector=connector, timeout=limits) as session:
        yield Api(session, token)


class Driver:
    """
    One run: `concurrency` clients that take requests off one workload.

    A client that is told to repeat a request sends it again as its very next one, and the run fails when the two
    answers differ.
    """

    def __init__(self, api: Api, workload: Workload, pace: Pace, *, attempts: int = ATTEMPTS) -> None:
        self._api = api
        self._workload = workload
        self._pace = pace
        self._attempts = attempts
        self._indices = itertools.count()
        self._began = 0.0
        self._uniform = random.Random().uniform  # noqa: S311  # jitter
        self.tally = Tally()

    async def run(self, concurrency: int, on_progress: Callable[[Result, float], None] | None = None) -> Result:
        """
        Drive until the pace says that it is over and every request is answered.

        `on_progress` gets the figures so far and the share done, twice a second.
        """
        self._began = time.monotonic()
        reporter = None if on_progress is None else asyncio.create_task(self._report(on_progress))
        try:
            async with asyncio.TaskGroup() as clients:
                for _ in range(concurrency):
                    clients.create_task(self._client())
        finally:
            if reporter is not None:
                reporter.cancel()
        return self.tally.result(self._elapsed())

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    async def _report(self, on_progress: Callable[[Result, float], None]) -> None:
        while True:
            await asyncio.sleep(_REPORT_INTERVAL)
            elapsed = self._elapsed()
            on_progress(self.tally.result(elapsed), self._pace.share(self.tally.requests, elapsed))

    async def _client(self) -> None:
        first: tuple[Request, Answer] | None = None
        while (due := await self._turn()) is not None:
            if first is not None:
                request, earlier = first
                answer = await self._request(request, due)
                self._compare(request, earlier, answer)
                first = None
                continue
            request = self._workload.next()
            answer = await self._request(request, due)
            if request.is_repeated and answer.status and answer.status != 503:
                first = request, answer

    async def _turn(self) -> float | None:
        index = next(self._indices)
        if not self._pace.has(index, self._elapsed()):
            return None
        due = self._pace.due(index)
        if due is None:
            return self._elapsed()
        await asyncio.sleep(max(0.0, due - self._elapsed()))
        return due

    async def _request(self, request: Request, due: float) -> Answer:
        answer = await self._send(request)
        self.tally.finish(request.operation, self._elapsed() - due)
        match verdict.judge(answer, may_refuse=request.may_be_refused):
            case Verdict.OK:
                if not self._workload.learn(request, answer.body):
                    self.tally.fail(request.operation, "unreadable answer")
            case Verdict.REFUSED:
                self.tally.refused += 1
            case Verdict.SHED:
                self.tally.shed += 1
            case Verdict.FAILED:
                self.tally.fail(request.operation, verdict.reason(answer))
        return answer

    async def _send(self, request: Request) -> Answer:
        for attempt in itertools.count(1):
            answer = await self._api.send(request)
            self.tally.statuses[str(answer.status or "none")] += 1
            is_shed = verdict.judge(answer, may_refuse=True) is Verdict.SHED
            if not is_shed or attempt >= self._attempts:
                return answer
            self.tally.retries += 1
            await asyncio.sleep(verdict.pause(answer, attempt, self._uniform))
        raise AssertionError("unreachable")

    def _compare(self, request: Request, earlier: Answer, answer: Answer) -> None:
        if not answer.status or answer.status == 503:  # already counted, nothing to compare
            return
        self.tally.repeats += 1
        if not verdict.is_equal(earlier, answer):
            self.tally.fail(request.operation, "unequal repeat")
