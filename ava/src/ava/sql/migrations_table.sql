create table if not exists ava_migrations (
    version bigint not null primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default clock_timestamp()
);
comment on table ava_migrations is 'Which schema files were applied, with their checksums.';
