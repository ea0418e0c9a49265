-- What could change a session without being named in the text of a statement. One row; PostgreSQL 15 to 18.
--   $1: extensions whose functions are known to leave nothing behind; $2: words that a parenthesis may follow anyway.
WITH RECURSIVE
known AS (
    SELECT d.objid AS oid
      FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
     WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_extension'::regclass
       AND d.deptype = 'e' AND e.extname = ANY ($1::text[])
),
proc AS (
    SELECT p.oid, p.proname::text AS name, n.nspname::text AS schema, l.lanname::text AS language,
           p.prosrc, p.prosqlbody, p.proargdefaults, p.pronargs, p.pronargdefaults, p.proargtypes,
           p.oid < 16384 AS is_system,
           k.oid IS NOT NULL AS is_known,
           CASE
               WHEN p.oid >= 16384 THEN k.oid IS NOT NULL
               WHEN p.proname ~ '(_to_xml|xmlschema)' THEN false
               WHEN p.provolatile <> 'v' THEN true
               ELSE p.proname ~ ('^(random(_normal)?|gen_random_uuid|uuidv[47]|clock_timestamp|timeofday|'
                   'nextval|currval|lastval|setval|pg_sleep(_for|_until)?|pg_notify|'
                   'pg_(try_)?advisory_xact_lock(_shared)?|pg_.*_size|pg_stat_(get_.*|clear_snapshot|reset.*|have_stats)|'
                   'pg_(cancel|terminate)_backend|pg_is_.*|pg_(current|last)_.*|pg_xact_.*|pg_control_.*|'
                   'pg_(safe_snapshot_)?blocking_pids|pg_lock_status|pg_notification_queue_usage|'
                   'pg_partition_(ancestors|tree)|txid_status|array_(shuffle|sample)|pg_sequence_last_value|'
                   'current_query|pg_jit_available|pg_get_.*|pg_ls_.*dir|pg_stat_file|pg_read_(binary_)?file|'
                   'pg_show_.*|pg_prepared_xact|pg_available_.*|bernoulli|system|amvalidate|'
                   'suppress_redundant_updates_trigger|tsvector_update_trigger(_column)?|unique_key_recheck|RI_.*)$')
           END AS is_safe
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_catalog.pg_language l ON l.oid = p.prolang
      LEFT JOIN known k ON k.oid = p.oid
),
foreign_proc AS (SELECT * FROM proc WHERE NOT is_system AND NOT is_known),
unsafe AS (SELECT oid, name FROM proc WHERE is_system AND NOT is_safe),
rel AS (
    SELECT c.oid, c.relname::text AS name, n.nspname::text AS schema, c.relkind, c.oid < 16384 AS is_system
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(temp|toast)'
),
-- Expressions and queries that the server keeps: where, on which relation, whether a read runs them, the text of the tree.
kept AS (
    SELECT 'view or rule on ' || r.schema || '.' || r.name AS place, r.oid AS relid, true AS is_read,
           w.ev_action::text || coalesce(w.ev_qual::text, '') AS tree
      FROM pg_catalog.pg_rewrite w JOIN rel r ON r.oid = w.ev_class WHERE NOT r.is_system
    UNION ALL
    SELECT 'policy on ' || r.schema || '.' || r.name, r.oid, true,
           coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '')
      FROM pg_catalog.pg_policy p JOIN rel r ON r.oid = p.polrelid
    UNION ALL
    SELECT 'default or generated column of ' || r.schema || '.' || r.name, r.oid, a.attgenerated = 'v', d.adbin::text
      FROM pg_catalog.pg_attrdef d JOIN rel r ON r.oid = d.adrelid
      JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    UNION ALL
    SELECT CASE WHEN c.contypid <> 0 THEN 'check of domain ' || c.contypid::regtype
                ELSE 'check on ' || coalesce(r.schema || '.' || r.name, '') END, r.oid, c.contypid <> 0, c.conbin::text
      FROM pg_catalog.pg_constraint c LEFT JOIN rel r ON r.oid = c.conrelid
     WHERE c.conbin IS NOT NULL AND c.oid >= 16384
    UNION ALL
    SELECT 'trigger on ' || r.schema || '.' || r.name, r.oid, false, t.tgqual::text
      FROM pg_catalog.pg_trigger t JOIN rel r ON r.oid = t.tgrelid WHERE t.tgqual IS NOT NULL
    UNION ALL
    SELECT 'index on ' || r.schema || '.' || r.name, r.oid, true,
           coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '')
      FROM pg_catalog.pg_index i JOIN rel r ON r.oid = i.indrelid
     WHERE NOT r.is_system AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
    UNION ALL
    SELECT 'partitioning of ' || r.schema || '.' || r.name, r.oid, true, t.partexprs::text
      FROM pg_catalog.pg_partitioned_table t JOIN rel r ON r.oid = t.partrelid WHERE t.partexprs IS NOT NULL
    UNION ALL
    SELECT 'statistics on ' || r.schema || '.' || r.name, r.oid, false, s.stxexprs::text
      FROM pg_catalog.pg_statistic_ext s JOIN rel r ON r.oid = s.stxrelid WHERE s.stxexprs IS NOT NULL
    UNION ALL
    SELECT 'function ' || p.schema || '.' || p.name, NULL, false,
           coalesce(p.prosqlbody::text, '') || coalesce(p.proargdefaults::text, '')
      FROM foreign_proc p WHERE p.prosqlbody IS NOT NULL OR p.proargdefaults IS NOT NULL
    UNION ALL
    SELECT 'type ' || t.oid::regtype, NULL, true, t.typdefaultbin::text
      FROM pg_catalog.pg_type t WHERE t.typdefaultbin IS NOT NULL AND t.oid >= 16384
),
used AS (
    SELECT k.place, k.relid, k.is_read, f.found[1]::oid AS function
      FROM kept k, LATERAL regexp_matches(k.tree, ':funcid ([0-9]+)', 'g') AS f (found)
),
touched AS (
    SELECT DISTINCT u.place, u.relid, u.is_read,
           EXISTS (SELECT FROM unsafe x WHERE x.oid = u.function) AS is_unsafe
      FROM used u
     WHERE EXISTS (SELECT FROM unsafe x WHERE x.oid = u.function)
        OR EXISTS (SELECT FROM foreign_proc x WHERE x.oid = u.function)
),
-- A view over pg_settings that is updated calls set_config through a rule.
over_settings AS (
    SELECT DISTINCT r.oid, r.schema || '.' || r.name AS name
      FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
      JOIN rel r ON r.oid = w.ev_class AND NOT r.is_system
     WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
       AND d.refobjid = 'pg_catalog.pg_settings'::regclass
),
-- Which relation a read of another goes on to.
leads AS (
    SELECT w.ev_class AS reader, d.refobjid AS reads
      FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
     WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
       AND w.ev_class >= 16384 AND d.refobjid <> w.ev_class
    UNION
    SELECT p.polrelid, d.refobjid
      FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy p ON p.oid = d.objid
     WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
       AND d.refobjid <> p.polrelid
    UNION
    SELECT i.inhparent, i.inhrelid FROM pg_catalog.pg_inherits i
),
unsafe_rel (oid) AS (
    SELECT relid FROM touched WHERE is_read AND relid IS NOT NULL
    UNION
    SELECT oid FROM rel WHERE relkind = 'f'
    UNION
    SELECT l.reader FROM leads l JOIN unsafe_rel u ON u.oid = l.reads
),
-- Functions of the users' that run without being called by name: operators, casts, types, domains, a row's "column".
silent AS (
    SELECT p.schema || '.' || p.name AS name
      FROM foreign_proc p
     WHERE p.name = ANY ($2::text[])
        OR EXISTS (
            SELECT FROM pg_catalog.pg_depend d
             WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = p.oid
               AND d.classid NOT IN (
                   'pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass,
                   'pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_class'::regclass,
                   'pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_event_trigger'::regclass,
                   'pg_catalog.pg_statistic_ext'::regclass))
        OR (p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1
            AND EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p', 'd')))
    UNION
    SELECT place FROM touched WHERE is_read AND relid IS NULL
)
SELECT (SELECT array_agg(name) FROM (SELECT name FROM proc GROUP BY name HAVING bool_and(is_safe)) s) AS safe_functions,
       (SELECT array_agg(DISTINCT name) FROM unsafe) AS unsafe_functions,
       coalesce((SELECT array_agg(schema || '.' || name) FROM foreign_proc WHERE language NOT IN ('sql', 'plpgsql')),
                '{}') AS unreadable,
       coalesce((SELECT array_agg(ARRAY[schema || '.' || name, prosrc]) FROM foreign_proc
                  WHERE language IN ('sql', 'plpgsql') AND prosqlbody IS NULL), '{}') AS bodies,
       coalesce((SELECT array_agg(place) FROM touched WHERE is_unsafe), '{}')
           || coalesce((SELECT array_agg('view ' || name) FROM over_settings), '{}') AS places,
       coalesce((SELECT array_agg(name) FROM silent), '{}') AS silent,
       (SELECT array_agg(ARRAY[schema, name, (NOT EXISTS (SELECT FROM unsafe_rel u WHERE u.oid = rel.oid))::text])
          FROM rel) AS relations
