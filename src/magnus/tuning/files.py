"""Replaces the server's postgresql.auto.conf on this machine's disk: atomically, durably, owned as before."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from magnus.tuning.local import Site


def replace(site: Site, content: bytes) -> None:
    """
    Put new content in the file's place; a reader or a crash sees the old one or the new one.

    The name of the draft is one that PostgreSQL's own tools ignore, and no symbolic link is followed to it.
    """
    descriptor, name = tempfile.mkstemp(dir=site.data, prefix="postgresql.auto.conf.magnus.")
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            site.account.own(fresh, 0o600)
            os.fsync(file.fileno())
        fresh.replace(site.auto_conf)
        folder = os.open(site.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
