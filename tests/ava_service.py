"""AVA as its users have it: commands in processes of their own, and a service that can be stopped, killed and asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_URL = re.compile(r"AVA answers on (http://\S+?:\d+)")


def environment(**settings: str) -> dict[str, str]:
    """
    The environment of this process without settings of AVA, Magnus and libpq, and with `settings`.
    """
    ours = ("MAGNUS_", "DB_", "AVA_", "PG", "DATABASE_URL")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(ours)}, **settings}


def ava(*arguments: str, env: Mapping[str, str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """
    Run one command to its end.
    """
    return subprocess.run(
        [sys.executable, "-m", "ava.cli", *arguments],
        capture_output=True, text=True, env=env, timeout=timeout, check=False,
    )  # fmt: skip


def ava_json(*arguments: str, env: Mapping[str, str], timeout: float = 120.0) -> dict[str, Any]:
    """
    Run one command that answers in JSON; whatever it says on standard error goes to the test's output.
    """
    found = ava(*arguments, "--output-format", "json", env=env, timeout=timeout)
    sys.stderr.write(found.stderr)
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def get(url: str, token: str | None = None, timeout: float = 10.0) -> tuple[int, bytes]:
    """
    The status and body of one GET.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Service:
    """
    `ava serve` (or another command that says where it answers) on a free port.
    """

    def __init__(self, *arguments: str, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ava.cli", *(arguments or ("serve",)), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        )  # fmt: skip
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for(self, pattern: str | re.Pattern[str], timeout: float = 60.0) -> re.Match[str]:
        """
        Wait until a line of its output matches.
        """
        compiled = re.compile(pattern)

        def look() -> re.Match[str] | None:
            return next((found for line in self.lines if (found := compiled.search(line))), None)

        with self._changed:
            self._changed.wait_for(lambda: look() is not None or self._is_over, timeout)
            found = look()
        assert found is not None, f"{compiled.pattern!r} not in:\n" + "\n".join(self.lines)
        return found

    @property
    def url(self) -> str:
        """
        Where it answers; waits until it says so.
        """
        return self.wait_for(_URL)[1]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """
        Wait for its end and return the exit code.
        """
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(10.0)
        self._reader.join(10.0)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def served(dsn: str, *arguments: str, **settings: str) -> Iterator[Service]:
    """
    `ava serve` over a database, for the length of the block.
    """
    with Service("serve", *arguments, env=environment(DATABASE_URL=dsn, **settings)) as service:
        yield service
