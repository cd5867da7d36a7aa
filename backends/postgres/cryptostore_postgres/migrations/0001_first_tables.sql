-- Frozen history: later changes are later files. {schema} is the schema's name.

CREATE TABLE {schema}.schema_version (
    version        integer NOT NULL,
    min_compatible integer NOT NULL,
    one_row        boolean PRIMARY KEY DEFAULT true CHECK (one_row)
);

-- The id is never used twice, so an owner of an account that was deleted and made anew is told apart.
CREATE TABLE {schema}.account (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id   text COLLATE "C" NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    epoch     bigint NOT NULL,
    sequence  bigint NOT NULL,
    owner     text NOT NULL,
    since     timestamptz NOT NULL,
    UNIQUE (user_id, device_id)
);

CREATE TABLE {schema}.olm_account (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    pickle     bytea NOT NULL,
    shared     boolean NOT NULL,
    key_check  bytea NOT NULL,
    PRIMARY KEY (account_id)
);

CREATE TABLE {schema}.olm_session (
    account_id   bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    sender_key   text COLLATE "C" NOT NULL,
    session_id   text COLLATE "C" NOT NULL,
    pickle       bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, sender_key, session_id)
);

CREATE TABLE {schema}.olm_message (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    sender_key text COLLATE "C" NOT NULL,
    hash       text COLLATE "C" NOT NULL,
    PRIMARY KEY (account_id, sender_key, hash)
);

CREATE TABLE {schema}.inbound_group_session (
    account_id        bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    room_id           text COLLATE "C" NOT NULL,
    session_id        text COLLATE "C" NOT NULL,
    sender_key        text COLLATE "C" NOT NULL,
    pickle            bytea NOT NULL,
    signing_key       text NOT NULL,
    forwarding_chain  jsonb NOT NULL,
    first_known_index bigint NOT NULL,
    received_at       timestamptz NOT NULL,
    PRIMARY KEY (account_id, room_id, session_id, sender_key)
);

CREATE TABLE {schema}.outbound_group_session (
    account_id    bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    room_id       text COLLATE "C" NOT NULL,
    pickle        bytea NOT NULL,
    created_at    timestamptz NOT NULL,
    message_count bigint NOT NULL,
    shared        boolean NOT NULL,
    shared_with   jsonb NOT NULL,
    ignored       jsonb NOT NULL,
    PRIMARY KEY (account_id, room_id)
);

CREATE TABLE {schema}.device (
    account_id   bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    user_id      text COLLATE "C" NOT NULL,
    device_id    text COLLATE "C" NOT NULL,
    keys         jsonb NOT NULL,
    display_name text NOT NULL,
    deleted      boolean NOT NULL,
    trust        text NOT NULL,
    PRIMARY KEY (account_id, user_id, device_id)
);

CREATE TABLE {schema}.tracked_user (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    user_id    text COLLATE "C" NOT NULL,
    outdated   boolean NOT NULL,
    generation bigint NOT NULL,
    PRIMARY KEY (account_id, user_id)
);

CREATE TABLE {schema}.encrypted_room (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    room_id    text COLLATE "C" NOT NULL,
    settings   jsonb NOT NULL,
    PRIMARY KEY (account_id, room_id)
);

CREATE TABLE {schema}.outgoing_key_request (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    request_id text COLLATE "C" NOT NULL,
    session_id text NOT NULL,
    room_id    text NOT NULL,
    algorithm  text NOT NULL,
    PRIMARY KEY (account_id, request_id)
);

CREATE TABLE {schema}.message_index (
    account_id  bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    session_id  text COLLATE "C" NOT NULL,
    sender_key  text COLLATE "C" NOT NULL,
    "index"     bigint NOT NULL,
    event_id    text NOT NULL,
    "timestamp" bigint NOT NULL,
    PRIMARY KEY (account_id, session_id, sender_key, "index")
);

CREATE TABLE {schema}.sync_token (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    token      text NOT NULL,
    PRIMARY KEY (account_id)
);

CREATE TABLE {schema}.value (
    account_id bigint NOT NULL REFERENCES {schema}.account ON DELETE CASCADE,
    namespace  text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    value      bytea NOT NULL,
    PRIMARY KEY (account_id, namespace, name)
);

-- Takes the batch's number, with the account's row locked until the transaction ends, or raises, so that the rest of
-- the pipeline is skipped: MC001 committed already, MC002 fenced (the detail names the owner), MC003 no such account.
CREATE FUNCTION {schema}.claim_batch(claimed_account bigint, claimed_epoch bigint, batch_number bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    present {schema}.account%ROWTYPE;
BEGIN
    UPDATE {schema}.account SET sequence = batch_number
    WHERE id = claimed_account AND epoch = claimed_epoch AND sequence = batch_number - 1;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO present FROM {schema}.account WHERE id = claimed_account;
    IF NOT FOUND THEN
        RAISE 'the account was deleted' USING ERRCODE = 'MC003';
    END IF;
    IF present.epoch = claimed_epoch AND present.sequence = batch_number THEN
        RAISE 'the batch was committed already' USING ERRCODE = 'MC001';
    END IF;
    RAISE 'the account was taken over' USING ERRCODE = 'MC002', DETAIL = json_build_object(
        'owner', present.owner,
        'since', (extract(epoch FROM present.since) * 1000000)::bigint
    );
END
$$;

INSERT INTO {schema}.schema_version (version, min_compatible) VALUES (1, 1);
