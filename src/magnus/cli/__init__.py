"""The command line's entry point: arguments -> calls -> exit codes; nothing heavy is imported before it runs."""

from __future__ import annotations

import sys
from importlib import util
from typing import TYPE_CHECKING

from magnus.cli import render
from magnus.cli.answer import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line and return its exit code: 0 done, 2 usage or configuration, 3 no database, 130 interrupted.

    Answers go to standard output, everything else to standard error. An error that is expected is one line.
    """
    if util.find_spec("cyclopts") is None or util.find_spec("rich") is None:
        render.complain("the command line is not installed", advice="pip install 'magnus-db[cli]'")
        return ExitCode.USAGE
    from magnus.cli.app import run

    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        render.complain("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        render.close_stdout()
        return ExitCode.DONE
