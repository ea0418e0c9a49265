"""AVA's command line: arguments -> calls -> exit codes."""

from __future__ import annotations


def main() -> int:
    """
    Run the command that the arguments name and return its exit code.
    """
    from ava.cli.app import run

    return run()
