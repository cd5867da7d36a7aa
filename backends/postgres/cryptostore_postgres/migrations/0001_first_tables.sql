-- Frozen history: later changes are later files. {schema} is the schema's name. Types are qualified, because a search
-- path might lead to another role's.

CREATE TABLE {schema}.schema_version (
    version        integer NOT NULL,
    min_compatible integer NOT NULL,
    one_row        boolean PRIMARY KEY DEFAULT true CHECK (one_row)
);

-- The id is drawn at random, and is in every other table: after a restore, no other account gets a running owner's.
-- The role is that which made the account.
CREATE TABLE {schema}.account (
    id        bigint PRIMARY KEY,
    user_id   pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    device_id pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    role      pg_catalog.name NOT NULL DEFAULT current_user,
    UNIQUE (user_id, device_id)
);
CREATE INDEX account_role ON {schema}.account (role);

-- A row is written again with each batch, and has room beside it for its next version.
CREATE TABLE {schema}.ownership (
    account_id  bigint PRIMARY KEY,
    epoch       bigint NOT NULL,
    incarnation bigint NOT NULL,
    sequence    bigint NOT NULL,
    owner       pg_catalog.text NOT NULL,
    since       bigint NOT NULL,
    written_at  bigint NOT NULL
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

-- To a role that does not own the tables, the accounts of others are not there, and the version is to be read alone.
-- The array is made once a statement, and a row is looked up by index as before.
CREATE POLICY read_alone ON {schema}.schema_version FOR SELECT USING (true);
CREATE POLICY own_accounts ON {schema}.account USING (role OPERATOR(pg_catalog.=) current_user);
CREATE POLICY own_accounts ON {schema}.ownership USING (account_id OPERATOR(pg_catalog.=) ANY (
    ARRAY(SELECT id FROM {schema}.account WHERE role OPERATOR(pg_catalog.=) current_user)));
CREATE POLICY own_accounts ON {schema}.record USING (account_id OPERATOR(pg_catalog.=) ANY (
    ARRAY(SELECT id FROM {schema}.account WHERE role OPERATOR(pg_catalog.=) current_user)));
ALTER TABLE {schema}.schema_version ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.account ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.ownership ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.record ENABLE ROW LEVEL SECURITY;

INSERT INTO {schema}.schema_version (version, min_compatible) VALUES (1, 1);
