"""What a process of a server is, by its title."""

import pytest

from magnus.testing._processes import kind_of


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("postgres: walsender replicator 127.0.0.12(40000) streaming 0/3000148", "walsender"),
        ("postgres: ava: walsender replicator 127.0.0.12(40000) streaming 0/3000148", "walsender"),
        ("postgres: checkpointer", "checkpointer"),
        ("postgres: ava: checkpointer", "checkpointer"),
        ("postgres: ava: logical replication launcher", "logical replication"),
        ("postgres: app book 127.0.0.1(40000) idle", "backend"),
        ("postgres: ava: app book 127.0.0.1(40000) idle in transaction", "backend"),
    ],
)
def test_a_process_is_known_by_its_title_with_and_without_a_cluster_name(title, kind):
    """Patroni gives every server its scope as `cluster_name`."""
    assert kind_of(title) == kind
