"""The fixtures that every test on a real server stands on."""

import asyncpg
import pytest

from tests.servers import asked_versions, binaries_or_skip


@pytest.mark.parametrize("time", ["first", "second"])
async def test_every_test_has_a_fresh_database_on_the_same_server(dsn, server, time):
    """What one test makes, the next one does not find."""
    con = await asyncpg.connect(dsn)
    await con.execute("CREATE TABLE made_by_one_test()")
    assert await con.fetchval("SELECT count(*) FROM pg_stat_statements") >= 0
    assert server.is_running
    await con.close()


async def test_the_server_is_of_the_version_under_test(tcp_dsn, pg_version):
    """And reachable by TCP with a password."""
    con = await asyncpg.connect(tcp_dsn)
    assert con.get_server_version().major == pg_version
    await con.close()


@pytest.mark.one_version
def test_what_is_marked_runs_on_the_first_version_alone(request, pg_version):
    """Of those that were asked for."""
    assert pg_version == asked_versions(request.config)[0]


def test_templates_are_built_once_and_copied(databases, background_loop):
    """An application's schema is migrated once a session."""
    built = []

    async def build(dsn):
        built.append(dsn)
        con = await asyncpg.connect(dsn)
        await con.execute("CREATE TABLE from_template()")
        await con.close()

    async def has_table(name):
        async with databases.server.connect(database=name) as con:
            return await con.fetchval("SELECT to_regclass('from_template') IS NOT NULL")

    for _ in range(2):
        with databases.fresh(databases.template("template_of_a_test", build)) as name:
            assert background_loop.run(has_table(name))
    assert len(built) == 1


def test_a_stopped_server_is_started_again_for_the_next_test(databases, server):
    """A test about outages may leave it down."""
    with databases.fresh():
        server.stop_blocking()
    assert server.is_running


def test_a_missing_version_skips_its_tests_with_the_remedy(monkeypatch):
    """On a developer's machine."""
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="postgresql-99"):
        binaries_or_skip(99)


def test_a_missing_version_fails_where_the_matrix_is_a_promise(monkeypatch):
    """On the build machine nobody reads skips."""
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="postgresql-99"):
        binaries_or_skip(99)
