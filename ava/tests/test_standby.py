"""AVA with a real standby that stands still: what an account sees may be old, who may see it never."""

from __future__ import annotations

import pytest
from service import BERT, seed, serving

from magnus.testing import until_replayed


def reads_of(ava):
    return ava.app.state.magnus.database.get_stats()["replicas"]["members"][0]["reads"]


@pytest.mark.one_version
async def test_a_revoked_token_is_401_at_once_though_the_standby_has_not_heard_of_it(streamed):
    """The standby answers what may be old, and for it the token is still valid."""
    dsns, primary, standby = streamed
    await seed(dsns)
    await until_replayed(primary, standby)
    lagging = {"replicas": (standby.dsn(),), "replica_max_lag": 3600.0}
    async with standby.connect() as behind, serving(dsns, database=lagging, warmup_connections=0) as ava:
        await behind.execute("select pg_wal_replay_pause()")
        before = reads_of(ava)
        assert (await ava.get("/api/account")).status_code == 200
        assert reads_of(ava) > before

        await ava.admin.execute("update api_tokens set revoked_at = now() where account_id = 1")
        for _ in range(3):
            assert (await ava.get("/api/account")).status_code == 401

        assert await behind.fetchval("select revoked_at is null from api_tokens where account_id = 1")
        before = reads_of(ava)
        assert (await ava.get("/api/account", account=BERT)).status_code == 200
        assert reads_of(ava) > before
