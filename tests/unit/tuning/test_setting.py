"""Settings and units: a value is read, compared and written as the server does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from magnus.tuning import units
from magnus.tuning.facts import Context, Setting, split_list
from magnus.tuning.units import GB, MB
from tests.tuning_facts import defaults, settings


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("64MB", "kB", 65536), ("64MB", "8kB", 8192), ("1GB", "MB", 1024), ("1.5GB", "kB", 1_572_864),
        ("16384", "8kB", 16384), ("5min", "s", 300), ("1h", "ms", 3_600_000), ("500us", "ms", 0.5), ("-1", "kB", -1),
        ("0.9", None, 0.9), (" 10 ", None, 10), ("1e3", "ms", 1000), ("64mb", "kB", None), ("64 XB", "kB", None),
        ("10MB", None, None), ("10s", "kB", None), ("ten", "kB", None), ("", "kB", None), ("nan", "kB", None),
        ("1e999", "kB", None), ("0x10", "kB", None),
    ],
)  # fmt: skip
def test_a_number_counts_in_the_settings_own_unit(text, unit, expected):
    """Units of the documentation, case-sensitive as in PostgreSQL."""
    assert units.number(text, unit) == expected


@pytest.mark.parametrize(
    ("amount", "unit", "expected"),
    [
        (2 * GB, "8kB", "2GB"), (10 * MB, "kB", "10MB"), (1.5 * GB, "kB", "1536MB"), (136 * MB, "kB", "136MB"),
        (900_000, "s", "15min"), (1000, "ms", "1s"), (10_000, "ms", "10s"), (-1, "kB", "-1"), (0, "ms", "0"),
        (5000, "8kB", "8kB"), (200, None, "200"), (0.01, None, "0.01"), (86_400_000, "min", "1d"),
    ],
)  # fmt: skip
def test_an_amount_is_written_with_the_largest_whole_unit(amount, unit, expected):
    """So that a person can read it back at a glance."""
    assert units.written(amount, unit) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * GB), ("8g", 8 * GB), ("512 MiB", 512 * MB), ("1073741824", GB), ("1.5GB", 3 * GB // 2),
     ("8 kb", 8192), ("-1GB", None), ("8PB", None), ("0", None), ("lots", None), ("", None)],
)  # fmt: skip
def test_a_persons_size_of_a_machine(text, expected):
    """Spelled as people do."""
    assert units.memory(text) == expected


@pytest.mark.parametrize(("size", "expected"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (999 * MB, "999 MB"),
                                                (1010 * MB, "1010 MB"), (2.5 * GB, "2.5 GB")])  # fmt: skip
def test_sizes_for_people(size, expected):
    """Three figures."""
    assert units.shown(size) == expected


@pytest.mark.parametrize("version", [15, 18])
def test_every_real_setting_is_read_back_from_its_text(version):
    """What is shown for a value means that value, for all types and units."""
    for setting in defaults(version).values():
        assert setting.is_same(setting.text), setting
        if setting.context != "internal" and setting.name not in {"archive_command", "data_directory"}:
            assert setting.refusal(setting.text) is None, setting


def test_octal_modes_and_fractions_keep_their_text():
    """log_file_mode is shown as 0600; a fraction of a millisecond is not rounded."""
    assert defaults(18)["log_file_mode"].text == "0600"
    delay = replace(defaults(18)["vacuum_cost_delay"], value="0.5")
    assert delay.text == "0.5ms"
    assert delay.is_same("500us")


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("work_mem", "1kB", "64"), ("work_mem", "lots", "number"), ("work_mem", "64QB", "unit"),
        ("effective_io_concurrency", "2000", "1000"), ("io_method", "io_uring", "worker"),
        ("wal_compression", "lz4", "pglz"), ("jit", "maybe", "on or off"), ("work_mem", "64MB\n", "line"),
        ("wal_segment_size", "1GB", "cannot"), ("max_connections", "1.0GB", "without a unit"),
        ("search_path", "a\0b", "line"), ("max_connections", "0", "from 1"),
    ],
)  # fmt: skip
def test_what_the_server_would_refuse_is_refused_with_the_reason(name, value, named):
    """Bounds, enumvals of this build, type, and a line end that would end a line of a file."""
    assert named in (settings()[name].refusal(value) or "")


@pytest.mark.parametrize(
    ("name", "first", "second", "same"),
    [
        ("work_mem", "64MB", "65536", True), ("work_mem", "64MB", "64kB", False), ("jit", "on", "TRUE", True),
        ("shared_preload_libraries", "a, b", '"a",b', True), ("shared_preload_libraries", "a,b", "b,a", False),
        ("wal_compression", "PGLZ", "pglz", True), ("random_page_cost", "1.1", "1.10", True),
        ("cluster_name", "A", "a", False),
    ],
)  # fmt: skip
def test_two_texts_are_compared_by_meaning(name, first, second, same):
    """As the server would store them."""
    assert settings()[name].is_same_as(first, second) is same


def test_when_a_change_takes_effect_follows_the_context():
    """From pg_settings.context of this version: autovacuum_max_workers needs a restart up to 17 only."""
    found = settings()
    assert found["shared_buffers"].when is Context.RESTART
    assert found["log_connections"].when is Context.NEW_SESSIONS
    assert found["work_mem"].when is found["checkpoint_timeout"].when is Context.NOW
    assert found["autovacuum_max_workers"].when is Context.NOW
    assert settings(15)["autovacuum_max_workers"].when is Context.RESTART


def test_what_waits_for_a_restart_is_the_next_value():
    """In the setting's own unit; without a restart pending it is what it is."""
    waiting = replace(settings()["shared_buffers"], pending_restart=True, pending_value="2GB")
    assert waiting.next.amount == 2 * GB
    assert waiting.amount == 128 * MB
    assert settings()["work_mem"].next is settings()["work_mem"]


def test_lists_are_taken_apart_at_commas():
    """Quotes and blanks go."""
    assert split_list(' a, "b-c" ,,d') == ("a", "b-c", "d")
    assert split_list("") == ()


def test_which_files_and_sources_count():
    """auto.conf is what RESET would lose; the command line is what ALTER SYSTEM cannot reach."""
    basis = Setting("work_mem", "4096", "kB")
    assert replace(basis, sourcefile="/x/postgresql.auto.conf").in_auto_conf
    assert not replace(basis, sourcefile="/x/postgresql.conf").in_auto_conf
    assert replace(basis, source="command line").is_outranked
    assert not basis.is_outranked
