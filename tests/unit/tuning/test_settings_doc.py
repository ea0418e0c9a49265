"""The page of rules is in step with the rules."""

from __future__ import annotations

from tests.settings_doc import DOC, document


def test_the_page_says_what_the_rules_say():
    """`make docs` wrote it."""
    assert DOC.read_text() == document()
