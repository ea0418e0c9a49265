"""Answers of the database that are kept in the process: `cached`, and the cache of one database."""

from magnus.cache._cache import QueryCache, Question
from magnus.cache._cached import Cached, cached
from magnus.cache._loading import KeyedExecution, checks_of, is_loading, loading
from magnus.cache._triggers import install, remove
from magnus.cache._watcher import Watcher

__all__ = [
    "Cached", "KeyedExecution", "QueryCache", "Question", "Watcher", "cached", "checks_of", "install", "is_loading",
    "loading", "remove",
]  # fmt: skip
