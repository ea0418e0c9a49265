"""Custom or generic plans, measured."""

from __future__ import annotations

import pytest

from magnus import Database, DatabaseConfig
from magnus.insight import plan_mode
from magnus.insight._plan_mode import advice

SKEWED = """
CREATE TABLE skewed (kind int, n int);
INSERT INTO skewed SELECT CASE WHEN g > 59900 THEN 1 ELSE 0 END, g FROM generate_series(1, 60000) g;
CREATE INDEX ON skewed (kind); CREATE INDEX ON skewed (n); ANALYZE skewed;
"""
MANY = "SELECT 1 FROM " + ", ".join(f"one AS t{n}" for n in range(8)) + " WHERE t0.id = $1"


@pytest.mark.parametrize(
    ("custom", "generic", "expected"),
    [
        ((1.0, 1.0), (1.0, 2.0), "force_custom_plan"),
        ((1.0, 1.0), (0.5, 0.5), "force_generic_plan"),
        ((1.0, 1.0), (1.2, 0.9), "auto"),
        ((1.0, 1.0), (0.1, 1.6), "force_custom_plan"),
    ],
)
def test_the_worst_sample_decides_for_custom_plans_and_the_sum_for_generic_ones(custom, generic, expected):
    assert advice(custom, generic) == expected


async def test_a_rare_value_among_frequent_ones_wants_plans_of_its_own(dsn):
    """And many joins of little tables want one that is made once; on the connections of the layer and of the driver."""
    async with Database(DatabaseConfig(dsn=dsn, max_pool_size=2, min_pool_size=1, slow_log="off")) as db:
        await db.execute(SKEWED)
        await db.execute("CREATE TABLE one (id int); INSERT INTO one VALUES (1); ANALYZE one")
        async with db.acquire() as con:
            found = await plan_mode(con, "SELECT n FROM skewed WHERE kind = $1 ORDER BY n LIMIT 1", [[1], [0]])
            assert found.advice == "force_custom_plan"
            assert found.generic[0] > found.custom[0]
            found = await plan_mode(con, MANY, [[1]])
            assert found.advice == "force_generic_plan"
            assert await con.fetchval("SHOW plan_cache_mode") == "auto"
            with pytest.raises(ValueError, match="sample"):
                await plan_mode(con, MANY, [])
