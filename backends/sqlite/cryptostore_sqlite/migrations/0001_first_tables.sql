-- Every table of records begins its key with the account, and goes with the account.
-- Tables whose rows may be long have a rowid: without one, a row over a quarter of a page spills into pages of its own.
-- Times are microseconds since 1970; lists and mappings are JSON.

PRAGMA application_id = 1836606323;  -- "mxcs"

CREATE TABLE schema_version (
    id             INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version        INTEGER NOT NULL,
    min_compatible INTEGER NOT NULL
) STRICT;

INSERT INTO schema_version (id, version, min_compatible) VALUES (1, 1, 1);

-- AUTOINCREMENT: the id of a deleted account never comes back, so its last owner cannot write into a new one.
CREATE TABLE account (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id   TEXT    NOT NULL,
    device_id TEXT    NOT NULL,
    epoch     INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    owner     TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    UNIQUE (user_id, device_id)
) STRICT;

CREATE TABLE olm_account (
    account_id INTEGER NOT NULL PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    pickle     BLOB    NOT NULL,
    shared     INTEGER NOT NULL,
    key_check  BLOB    NOT NULL
) STRICT;

CREATE TABLE olm_session (
    account_id   INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    sender_key   TEXT    NOT NULL,
    session_id   TEXT    NOT NULL,
    pickle       BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, sender_key, session_id)
) STRICT;

CREATE TABLE olm_message (
    account_id INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    sender_key TEXT    NOT NULL,
    hash       TEXT    NOT NULL,
    PRIMARY KEY (account_id, sender_key, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE inbound_group_session (
    account_id        INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    room_id           TEXT    NOT NULL,
    session_id        TEXT    NOT NULL,
    sender_key        TEXT    NOT NULL,
    pickle            BLOB    NOT NULL,
    signing_key       TEXT    NOT NULL,
    forwarding_chain  TEXT    NOT NULL,
    first_known_index INTEGER NOT NULL,
    received_at       INTEGER NOT NULL,
    PRIMARY KEY (account_id, room_id, session_id, sender_key)
) STRICT;

CREATE TABLE outbound_group_session (
    account_id    INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    room_id       TEXT    NOT NULL,
    pickle        BLOB    NOT NULL,
    created_at    INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    shared        INTEGER NOT NULL,
    shared_with   TEXT    NOT NULL,
    ignored       TEXT    NOT NULL,
    PRIMARY KEY (account_id, room_id)
) STRICT;

CREATE TABLE device (
    account_id   INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    user_id      TEXT    NOT NULL,
    device_id    TEXT    NOT NULL,
    keys         TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    deleted      INTEGER NOT NULL,
    trust        TEXT    NOT NULL,
    PRIMARY KEY (account_id, user_id, device_id)
) STRICT;

CREATE TABLE tracked_user (
    account_id INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    user_id    TEXT    NOT NULL,
    outdated   INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (account_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE encrypted_room (
    account_id INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    room_id    TEXT    NOT NULL,
    settings   TEXT    NOT NULL,
    PRIMARY KEY (account_id, room_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE outgoing_key_request (
    account_id INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    request_id TEXT    NOT NULL,
    session_id TEXT    NOT NULL,
    room_id    TEXT    NOT NULL,
    algorithm  TEXT    NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE message_index (
    account_id INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    session_id TEXT    NOT NULL,
    sender_key TEXT    NOT NULL,
    "index"    INTEGER NOT NULL,
    event_id   TEXT    NOT NULL,
    timestamp  INTEGER NOT NULL,
    PRIMARY KEY (account_id, session_id, sender_key, "index")
) STRICT, WITHOUT ROWID;

CREATE TABLE sync_token (
    account_id INTEGER NOT NULL PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    token      TEXT    NOT NULL
) STRICT;

CREATE TABLE value (
    account_id INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    value      BLOB    NOT NULL,
    PRIMARY KEY (account_id, namespace, name)
) STRICT;
