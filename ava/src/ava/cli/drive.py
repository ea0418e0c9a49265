"""`ava drive`: a mixed workload against a running AVA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from ava.cli import progress, render
from ava.cli.exits import CommandError, Exit

Format = Literal["text", "json"]

_REQUESTS: Final = 10_000  # when neither a number nor a duration is asked for
_OTHER_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Options:
    """
    What the command line asked for; impossible combinations raise CommandError when the run begins.
    """

    url: str
    requests: int | None
    concurrency: int
    duration: float | None
    rate: float | None
    seed: int
    is_retrying: bool
    timeout: float
    output_format: Format
    is_progress_shown: bool


async def drive(options: Options) -> int:
    """
    Run the workload, print its figures, and return 1 when the server broke a promise.

    Raises:
        CommandError: impossible options, nothing answers, or the tokens of this seed are not known there.
    """
    from ava.serving import raise_file_limit
    from ava.tokens import demo_token
    from ava.workload import discovery
    from ava.workload.pacing import Pace
    from ava.workload.requests import Workload
    from ava.workload.runner import ATTEMPTS, Driver, connect

    check_url(options.url)
    try:
        pace = Pace(_limit(options), options.duration, options.rate)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if raise_file_limit() < options.concurrency + _OTHER_FILES:
        raise CommandError(f"--concurrency {options.concurrency} is above the limit of open files (ulimit -n)")
    async with connect(
        options.url, lambda account: demo_token(options.seed, account), concurrency=options.concurrency,
        answer_timeout=options.timeout,
    ) as api:  # fmt: skip
        try:
            market = await discovery.discover(api)
        except discovery.DiscoveryError as error:
            raise CommandError(str(error), Exit.DATABASE if error.is_unreachable else Exit.USAGE) from None
        workload = Workload(market, seed=options.seed)
        driver = Driver(api, workload, pace, attempts=ATTEMPTS if options.is_retrying else 1)
        with progress.drive_view(is_shown=options.is_progress_shown) as on_progress:
            result = await driver.run(options.concurrency, on_progress)
    code = Exit.DONE if result.is_clean else Exit.ANSWER_IS_NO
    if options.output_format == "json":
        render.as_json("drive", code, render.result_document(result))
    else:
        render.show(render.result_table(result))
    return code


def _limit(options: Options) -> int | None:
    if options.requests is None and options.duration is None:
        return _REQUESTS
    return options.requests


def check_url(url: str) -> None:
    """
    Refuse what is no address of an HTTP server.

    Raises:
        CommandError: naming the option.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.path.strip("/") or parts.query or parts.fragment:
        raise CommandError("--url must be like http://127.0.0.1:8000")
