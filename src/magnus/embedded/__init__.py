"""A real PostgreSQL on this machine for demo, development and tests: no container, no daemon, root or not."""

from __future__ import annotations

from magnus.embedded._account import Account, server_account
from magnus.embedded._binaries import Binaries
from magnus.embedded._cluster import Cluster
from magnus.embedded._errors import ClusterError
from magnus.embedded._folder import temporary_home
from magnus.embedded._places import persistent, throwaway
from magnus.embedded._postmaster import PidFile, is_process_of, processes_of, running
from magnus.embedded._server import free_port

__all__ = [
    "Account",
    "Binaries",
    "Cluster",
    "ClusterError",
    "PidFile",
    "free_port",
    "is_process_of",
    "persistent",
    "processes_of",
    "running",
    "server_account",
    "temporary_home",
    "throwaway",
]
