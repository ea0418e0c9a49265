-- What the columns that a load compares with hold: type, whether a unique index has it alone, and its statistics.
-- $1 schemas ('' where none was named), $2 tables, $3 columns.
SELECT magnus_replay.place,
       pg_catalog.format_type(a.atttypid, NULL) AS type,
       t.typcategory = 'A' AS is_array,
       c.relkind = 'v' AS is_of_view,
       EXISTS (SELECT FROM pg_catalog.pg_index i
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS is_unique,
       coalesce(s.is_known, false) AS is_known, s.common, s.shares, s.bounds
  FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]))
       WITH ORDINALITY AS magnus_replay(schema, relation, name, place)
  JOIN pg_catalog.pg_class c
    ON c.oid = pg_catalog.to_regclass(coalesce(pg_catalog.quote_ident(nullif(schema, '')) || '.', '')
                                      || pg_catalog.quote_ident(relation))
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a
    ON a.attrelid = c.oid AND a.attname = magnus_replay.name AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN LATERAL (SELECT true AS is_known, p.most_common_vals::text::text[] AS common,
                            p.most_common_freqs AS shares, p.histogram_bounds::text::text[] AS bounds
                       FROM pg_catalog.pg_stats p
                      WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = a.attname
                        AND t.typcategory <> 'A'
                      ORDER BY p.inherited DESC LIMIT 1) AS s ON true
