-- Frozen history: later changes are later files. {schema} is the schema's name. Types are qualified, because a search
-- path might lead to another role's.

CREATE TABLE {schema}.schema_version (
    version        integer NOT NULL,
    min_compatible integer NOT NULL,
    one_row        boolean PRIMARY KEY DEFAULT true CHECK (one_row)
);

-- The id is drawn at random, and is in every other table: after a restore, no other account gets a running owner's.
CREATE TABLE {schema}.account (
    id        bigint PRIMARY KEY,
    user_id   pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    device_id pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    UNIQUE (user_id, device_id)
);

-- A row is written again with each batch, and has room beside it for its next version.
CREATE TABLE {schema}.ownership (
    account_id  bigint PRIMARY KEY,
    epoch       bigint NOT NULL,
    incarnation bigint NOT NULL,
    sequence    bigint NOT NULL,
    owner       pg_catalog.text NOT NULL,
    since       bigint NOT NULL
) WITH (fillfactor = 50);

-- Without a foreign key, which would cost a fifth of the time of a batch. Values are sealed, so they do not compress.
-- One table holds everything: vacuum and analyze when a fiftieth of it has changed, not when a fifth has.
CREATE TABLE {schema}.record (
    account_id bigint NOT NULL,
    key        pg_catalog.bytea NOT NULL,
    value      pg_catalog.bytea NOT NULL,
    PRIMARY KEY (account_id, key)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02
);
ALTER TABLE {schema}.record ALTER COLUMN value SET STORAGE EXTERNAL;

INSERT INTO {schema}.schema_version (version, min_compatible) VALUES (1, 1);
