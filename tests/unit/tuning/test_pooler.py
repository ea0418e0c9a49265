"""PgBouncer's configuration: the connections fit the server, the limits fit the services, names stay names."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from magnus import ConfigError, DatabaseConfig
from magnus.cli.pgbouncer import clients_of
from magnus.tuning.facts import Host, Role
from magnus.tuning.pooler import Clients, lines_of, render, sizes_of
from tests.tuning_facts import defaults, facts, host, settings

CLIENTS = clients_of(DatabaseConfig(), 10)
DEPLOYED = Path(__file__).parents[3] / "deploy" / "pgbouncer" / "pgbouncer.ini"


def on(cpus=4, most=100, kept=3, **changes):
    """Facts of a server with so many connections, of which it keeps some for superusers."""
    kept_back = replace(defaults(18)["max_connections"], name="superuser_reserved_connections", value=str(kept))
    found = {**settings(18, max_connections=str(most)), kept_back.name: kept_back}
    basis = facts(host(cpus=cpus), **changes)
    return replace(basis, server=replace(basis.server, settings=found))


def values(found, clients=CLIENTS, wanted=None):
    return {line.name: line.value for line in lines_of(sizes_of(found, clients, wanted), clients, found.server)}


def test_the_connections_of_any_server_are_never_more_than_it_has():
    """Those of the pooler, those past it, and those that it keeps for superusers."""
    chance = random.Random(5)
    for _ in range(2_000):
        most, kept = chance.randint(5, 2_000), chance.randint(0, 20)
        found = on(chance.randint(1, 128), most, kept)
        clients = Clients(chance.randint(1, 100), chance.randint(1, 100), 120.0, 31.0, 60.0, 5.0)
        try:
            sizes = sizes_of(found, clients)
        except ConfigError as error:
            assert (most - kept - 2 * clients.processes - 5 < 2, error.field) == (True, "--processes")  # noqa: PT017
            continue
        assert sizes.total + sizes.direct + kept <= most
        text = values(found, clients)
        assert int(text["default_pool_size"]) + int(text["reserve_pool_size"]) == int(text["max_db_connections"])
        assert 1 <= int(text["min_pool_size"]) <= int(text["default_pool_size"])
        assert int(text["max_client_conn"]) >= clients.processes * clients.pool_size


def test_four_connections_a_cpu_and_what_was_asked_for_where_it_fits():
    """Without CPUs PgBouncer's own number, and the file says so."""
    assert sizes_of(on(4), CLIENTS).total == 16
    assert sizes_of(on(64), CLIENTS).total == 72
    assert sizes_of(on(4), CLIENTS, 40).total == 40
    unknown = replace(on(), host=Host(memory=1))
    assert sizes_of(unknown, CLIENTS).total == 20
    assert "--cpus" in render(unknown, CLIENTS)
    for wanted in (1, 73):
        with pytest.raises(ConfigError, match="--connections"):
            sizes_of(on(), CLIENTS, wanted)


def test_the_poolers_limits_are_above_the_services_own():
    """Whoever is nearer ends a wait first, and says why; a dead server is noticed as soon as there."""
    config = DatabaseConfig(
        lane_timeouts={"background": 300.0}, idle_in_transaction_session_timeout=20, connect_timeout=3
    )
    found = values(facts(), clients_of(config, 10))
    assert int(found["query_wait_timeout"]) > 300
    assert int(found["idle_transaction_timeout"]) > 20
    assert (found["query_timeout"], found["client_idle_timeout"]) == ("0", "0")
    assert (found["server_connect_timeout"], found["server_login_retry"]) == ("3", "1")


def test_a_remote_server_is_spoken_to_with_tls():
    """And its certificate is verified."""
    assert values(facts(is_local=False))["server_tls_sslmode"] == "verify-full"
    assert "server_tls_sslmode" not in values(facts(is_local=True))


def test_names_stay_names():
    """Whatever a database or a role is called, no line of the file comes from it."""
    found = facts(
        database='a\'b; "c" host=evil', host="/run/it's", roles=(Role('app"; DROP'), Role("good"), Role("x\ny = 1"))
    )
    lines = render(found, CLIENTS).splitlines()
    assert "\"a'b; \"\"c\"\" host=evil\" = host='/run/it''s' port=5432 dbname='a''b; \"c\" host=evil'" in lines
    assert "stats_users = good" in lines
    names = {line.split(" = ")[0] for line in lines if " = " in line and not line.startswith((";", '"'))}
    assert names == set(values(found))
    with pytest.raises(ConfigError):
        render(facts(database="a\nb"), CLIENTS)


def test_the_file_in_deploy_is_what_is_printed_for_such_a_server():
    """Ten processes, four CPUs, another machine: python -m tests.unit.tuning.test_pooler writes it."""
    assert DEPLOYED.read_text() == deployed()


def deployed():
    return render(on(4, is_local=False), CLIENTS)


if __name__ == "__main__":
    DEPLOYED.parent.mkdir(exist_ok=True)
    DEPLOYED.write_text(deployed())
