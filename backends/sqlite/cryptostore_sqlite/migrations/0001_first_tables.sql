-- Every row of ownership and record begins with the account's id, which the core draws at random.
-- No foreign keys: they cost a look-up for each row, and what is deleted with an account is deleted by statements.

PRAGMA application_id = 1836606323;  -- "mxcs"

CREATE TABLE schema_version (
    id             INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version        INTEGER NOT NULL,
    min_compatible INTEGER NOT NULL
) STRICT;

INSERT INTO schema_version (id, version, min_compatible) VALUES (1, 1, 1);

CREATE TABLE account (
    id        INTEGER NOT NULL PRIMARY KEY,
    user_id   TEXT    NOT NULL,
    device_id TEXT    NOT NULL,
    UNIQUE (user_id, device_id)
) STRICT;

-- since, written_at: microseconds since 1970 (UTC)
CREATE TABLE ownership (
    account_id  INTEGER NOT NULL PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    owner       TEXT    NOT NULL,
    since       INTEGER NOT NULL,
    written_at  INTEGER NOT NULL
) STRICT;

-- With a rowid: without one, a value over a quarter of a page takes pages of its own, and inserting takes longer.
CREATE TABLE record (
    account_id INTEGER NOT NULL,
    key        BLOB    NOT NULL,
    value      BLOB    NOT NULL,
    UNIQUE (account_id, key)
) STRICT;
