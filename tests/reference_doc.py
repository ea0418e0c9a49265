"""docs/cli.md and docs/api.md from the command line and the public names themselves.

python tests/reference_doc.py --write
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import magnus
from magnus.cli.app import whole

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = """# The public names

`make docs` writes this page from the docstrings. All of it is imported from `magnus`.
"""


def commands() -> str:
    """
    The page of the command line.
    """
    return whole().generate_docs(output_format="markdown").rstrip() + "\n"


def names() -> str:
    """
    The page of the library.
    """
    return HEAD + "".join(_entry(name, getattr(magnus, name)) for name in magnus.__all__)


def _entry(name: str, found: Any) -> str:
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return f"\n## {name}\n\n`{found!r}`\n"
    text = f"\n## {name}\n\n```text\n{_head(name, found)}\n\n{_doc(found)}\n```\n"
    if not inspect.isclass(found) or issubclass(found, BaseException):
        return text
    methods = [
        (key, value) for key, value in inspect.getmembers(found)
        if not key.startswith("_") and inspect.isroutine(value) and (value.__doc__ or "").strip()
        and (getattr(value, "__module__", None) or "").startswith("magnus")
    ]  # fmt: skip
    parts = (f"\n### {name}.{key}\n\n```text\n{_head(key, value)}\n\n{_doc(value)}\n```\n" for key, value in methods)
    return text + "".join(parts)


def _head(name: str, found: Any) -> str:
    kind = "class " if inspect.isclass(found) else "async " if inspect.iscoroutinefunction(found) else ""
    try:
        signature = str(inspect.signature(found))
    except (TypeError, ValueError):
        signature = ""
    return f"{kind}{name}{signature if len(signature) < 400 else '(…)'}"


def _doc(found: Any) -> str:
    return inspect.cleandoc(found.__doc__ or "")


PAGES = {"cli.md": commands, "api.md": names}


if __name__ == "__main__":
    for name, make in PAGES.items():
        if "--write" in sys.argv:
            (DOCS / name).write_text(make())
        else:
            sys.stdout.write(make())
