-- What is in slow_query_log since $1 seconds ago, by fingerprint. $2: the most rows, $3: parts of the trend. The names
-- in braces are put in: columns that an older table may lack, and the order.
WITH logged AS (
    SELECT l.query, l.query_signature AS signature, l.duration_ms, l."timestamp",
           {fingerprint} AS fingerprint, {queryid} AS queryid, {skipped} AS skipped, {outcome} AS outcome,
           {caller} AS caller, {route} AS route,
           least($3::int - 1, greatest(0, floor(
               (1 - extract(epoch FROM now() - l."timestamp")::float8 / $1::float8) * $3::int)))::int AS part
      FROM {table} AS l
     WHERE l."timestamp" > now() - $1::float8 * interval '1 second'
),
parts AS (
    SELECT fingerprint, part, count(*)::int AS times FROM logged GROUP BY fingerprint, part
)
SELECT l.fingerprint,
       min(l.query) AS query,
       max(l.signature) AS signature,
       mode() WITHIN GROUP (ORDER BY l.queryid) AS queryid,
       count(*) AS logged,
       (count(*) + coalesce(sum(l.skipped), 0))::bigint AS occurrences,
       avg(l.duration_ms)::float8 AS avg_ms,
       max(l.duration_ms)::float8 AS max_ms,
       sum(l.duration_ms)::float8 AS total_ms,
       (percentile_cont(0.95) WITHIN GROUP (ORDER BY l.duration_ms::float8)) AS p95_ms,
       count(*) FILTER (WHERE l.outcome <> 'ok') AS failed,
       max(l."timestamp") AS last_at,
       mode() WITHIN GROUP (ORDER BY l.caller) AS caller,
       mode() WITHIN GROUP (ORDER BY l.route) AS route,
       (SELECT array_agg(coalesce(p.times, 0) ORDER BY g.part)
          FROM generate_series(0, $3::int - 1) AS g (part)
          LEFT JOIN parts AS p ON p.part = g.part AND p.fingerprint IS NOT DISTINCT FROM l.fingerprint) AS trend
  FROM logged AS l
 GROUP BY l.fingerprint
 ORDER BY {order} DESC, l.fingerprint
 LIMIT $2
