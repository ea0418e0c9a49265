"""What importing the package may bring in."""

import subprocess
import sys

import magnus

HEAVY = [
    "pydantic",
    "pydantic_settings",
    "fastapi",
    "starlette",
    "rich",
    "cyclopts",
    "structlog",
    "uvicorn",
    "uvloop",
    "sqlalchemy",
]


def test_importing_the_core_imports_no_extra():
    """`import magnus` brings asyncpg and the standard library, nothing heavy, even when it is installed."""
    code = f"import sys, magnus; print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_the_list_is_sorted():
    """`__all__` is the public API: sorted, complete, importable."""
    assert list(magnus.__all__) == sorted(magnus.__all__)
    assert all(hasattr(magnus, name) for name in magnus.__all__)
