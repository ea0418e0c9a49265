-- How the indexes $1 could be made again. It locks the table of an index with expressions, for reading.
SELECT i.oid::int8 AS oid, pg_get_indexdef(i.oid::oid) AS definition FROM unnest($1::int8[]) AS i (oid)
