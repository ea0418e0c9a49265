"""A real PostgreSQL on this machine for demo, development and tests: no container, no daemon, root or not."""

from __future__ import annotations

from magnus.embedded._binaries import Binaries
from magnus.embedded._cluster import Cluster
from magnus.embedded._errors import ClusterError
from magnus.embedded._places import persistent, throwaway

__all__ = ["Binaries", "Cluster", "ClusterError", "persistent", "throwaway"]
