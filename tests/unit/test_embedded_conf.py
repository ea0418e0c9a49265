"""A cluster's settings: what may be set, and how it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus.embedded._conf import DEFAULTS, INCLUDE, check, render
from magnus.errors import ConfigError


def test_settings_are_one_quoted_line_each_sorted_by_name():
    """The file reads the same at every start, so a person can compare two."""
    assert render({"work_mem": "8MB", "a.b": "x"}) == "a.b = 'x'\nwork_mem = '8MB'\n"


@pytest.mark.parametrize(("value", "written"), [("it's", "it''s"), ("back\\slash", "back\\\\slash"), ("", "")])
def test_quotes_and_backslashes_arrive_as_they_are(value, written):
    """PostgreSQL's reader takes both away again."""
    assert render({"x": value}) == f"x = '{written}'\n"


@given(st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=("Cs",))))
def test_a_value_can_never_begin_a_line_of_its_own(value):
    """Whatever a value holds, it stays between its quotes."""
    line = render({"x": value})

    inside = line.removeprefix("x = '").removesuffix("'\n")
    assert inside.replace("\\\\", "").replace("''", "").count("'") == 0
    assert inside.replace("''", "'").replace("\\\\", "\\") == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("work_mem = 1\nport", "5432"),
        ("", "x"),
        ("1x", "x"),
        ("port", "5432"),
        ("PORT", "5432"),
        ("listen_addresses", "*"),
        ("unix_socket_directories", "/tmp"),
        ("data_directory", "/"),
        ("work_mem", "1MB\nport = 1"),
        ("work_mem", "1\0MB"),
    ],
)
def test_what_is_not_a_setting_or_not_the_callers_is_refused(name, value):
    """Line breaks would smuggle a second setting in; the address is the cluster's own business."""
    with pytest.raises(ConfigError):
        check({name: value})


def test_both_libraries_are_preloaded_by_default():
    """As one list in a file: ALTER SYSTEM's quoting of such a list is what keeps servers from starting."""
    assert "shared_preload_libraries = 'pg_stat_statements,auto_explain'\n" in render(DEFAULTS)


def test_the_include_is_relative_so_that_a_cluster_may_be_moved():
    """The data folder refers to the file beside it, wherever both are."""
    assert "include_if_exists = '../server.conf'" in INCLUDE
