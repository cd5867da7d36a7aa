SET client_encoding = 'UTF8';
SET check_function_bodies = false;

CREATE SCHEMA cryptostore_golden;

CREATE FUNCTION cryptostore_golden.claim_batch(claimed_account bigint, claimed_epoch bigint, batch_number bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    present "cryptostore_golden".account%ROWTYPE;
BEGIN
    UPDATE "cryptostore_golden".account SET sequence = batch_number
    WHERE id = claimed_account AND epoch = claimed_epoch AND sequence = batch_number - 1;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO present FROM "cryptostore_golden".account WHERE id = claimed_account;
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

CREATE TABLE cryptostore_golden.account (
    id bigint NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C",
    device_id text NOT NULL COLLATE pg_catalog."C",
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    owner text NOT NULL,
    since timestamp with time zone NOT NULL
);

ALTER TABLE cryptostore_golden.account ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME cryptostore_golden.account_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE cryptostore_golden.device (
    account_id bigint NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C",
    device_id text NOT NULL COLLATE pg_catalog."C",
    keys jsonb NOT NULL,
    display_name text NOT NULL,
    deleted boolean NOT NULL,
    trust text NOT NULL
);

CREATE TABLE cryptostore_golden.encrypted_room (
    account_id bigint NOT NULL,
    room_id text NOT NULL COLLATE pg_catalog."C",
    settings jsonb NOT NULL
);

CREATE TABLE cryptostore_golden.inbound_group_session (
    account_id bigint NOT NULL,
    room_id text NOT NULL COLLATE pg_catalog."C",
    session_id text NOT NULL COLLATE pg_catalog."C",
    sender_key text NOT NULL COLLATE pg_catalog."C",
    pickle bytea NOT NULL,
    signing_key text NOT NULL,
    forwarding_chain jsonb NOT NULL,
    first_known_index bigint NOT NULL,
    received_at timestamp with time zone NOT NULL
);

CREATE TABLE cryptostore_golden.message_index (
    account_id bigint NOT NULL,
    session_id text NOT NULL COLLATE pg_catalog."C",
    sender_key text NOT NULL COLLATE pg_catalog."C",
    index bigint NOT NULL,
    event_id text NOT NULL,
    "timestamp" bigint NOT NULL
);

CREATE TABLE cryptostore_golden.olm_account (
    account_id bigint NOT NULL,
    pickle bytea NOT NULL,
    shared boolean NOT NULL,
    key_check bytea NOT NULL
);

CREATE TABLE cryptostore_golden.olm_message (
    account_id bigint NOT NULL,
    sender_key text NOT NULL COLLATE pg_catalog."C",
    hash text NOT NULL COLLATE pg_catalog."C"
);

CREATE TABLE cryptostore_golden.olm_session (
    account_id bigint NOT NULL,
    sender_key text NOT NULL COLLATE pg_catalog."C",
    session_id text NOT NULL COLLATE pg_catalog."C",
    pickle bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone NOT NULL
);

CREATE TABLE cryptostore_golden.outbound_group_session (
    account_id bigint NOT NULL,
    room_id text NOT NULL COLLATE pg_catalog."C",
    pickle bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    message_count bigint NOT NULL,
    shared boolean NOT NULL,
    shared_with jsonb NOT NULL,
    ignored jsonb NOT NULL
);

CREATE TABLE cryptostore_golden.outgoing_key_request (
    account_id bigint NOT NULL,
    request_id text NOT NULL COLLATE pg_catalog."C",
    session_id text NOT NULL,
    room_id text NOT NULL,
    algorithm text NOT NULL
);

CREATE TABLE cryptostore_golden.schema_version (
    version integer NOT NULL,
    min_compatible integer NOT NULL,
    one_row boolean DEFAULT true NOT NULL,
    CONSTRAINT schema_version_one_row_check CHECK (one_row)
);

CREATE TABLE cryptostore_golden.sync_token (
    account_id bigint NOT NULL,
    token text NOT NULL
);

CREATE TABLE cryptostore_golden.tracked_user (
    account_id bigint NOT NULL,
    user_id text NOT NULL COLLATE pg_catalog."C",
    outdated boolean NOT NULL,
    generation bigint NOT NULL
);

CREATE TABLE cryptostore_golden.value (
    account_id bigint NOT NULL,
    namespace text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL
);

INSERT INTO cryptostore_golden.account OVERRIDING SYSTEM VALUE VALUES (1, '@alice:example.org', 'ALICEDEVICE', 2, 2, 'golden', '2026-01-02 03:04:05.678901+00');
INSERT INTO cryptostore_golden.account OVERRIDING SYSTEM VALUE VALUES (3, '@bob:example.org', 'BOBDEVICE', 2, 2, 'golden', '2026-01-02 03:04:05.678901+00');
INSERT INTO cryptostore_golden.account OVERRIDING SYSTEM VALUE VALUES (5, '@nobody:example.org', 'EMPTY', 2, 2, 'golden', '2026-01-02 03:04:05.678901+00');
INSERT INTO cryptostore_golden.account OVERRIDING SYSTEM VALUE VALUES (7, 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', '''"`\%_;--{}$1', 2, 2, 'golden', '2026-01-02 03:04:05.678901+00');

INSERT INTO cryptostore_golden.device VALUES (1, '@bob:example.org', 'BOBDEVICE', '{}', '', false, 'unset');
INSERT INTO cryptostore_golden.device VALUES (1, '@bob:example.org', 'bobdevice', '{"": "", "ed25519": "key", "curve25519": "aßअ𝕬é ‮﻿", "''\"`\\%_;--{}$1": "{\"a\": [1]}"}', 'aßअ𝕬é ‮﻿', true, 'verified');
INSERT INTO cryptostore_golden.device VALUES (1, '@eve:example.org', 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', '{"a": null, "b": true, "c": false}', '', false, 'blacklisted');
INSERT INTO cryptostore_golden.device VALUES (1, '@mallory:example.org', 'M', '{}', '
	', false, 'ignored');
INSERT INTO cryptostore_golden.device VALUES (3, '@bob:example.org', 'BOBDEVICE', '{"ed25519": "his own"}', 'his own', false, 'unset');

INSERT INTO cryptostore_golden.encrypted_room VALUES (1, '!room:example.org', '{"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 100}');
INSERT INTO cryptostore_golden.encrypted_room VALUES (1, 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', '{"most": 9007199254740991, "text": "0", "zero": 0, "least": -9007199254740991}');
INSERT INTO cryptostore_golden.encrypted_room VALUES (1, '!settings:example.org', '{}');
INSERT INTO cryptostore_golden.encrypted_room VALUES (3, '!room:example.org', '{}');

INSERT INTO cryptostore_golden.inbound_group_session VALUES (1, '!room:example.org', 'megolm', 'curve', '\x646972656374', 'ed25519+key', '[]', 0, '2024-02-29 23:59:59.123456+00');
INSERT INTO cryptostore_golden.inbound_group_session VALUES (1, '!room:example.org', 'megolm', 'imposter', '\x00', '', '["b", "a", "b", "", "''\"`\\%_;--{}$1"]', 9223372036854775807, '0001-01-01 00:00:00.000001+00');
INSERT INTO cryptostore_golden.inbound_group_session VALUES (1, 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', ' ', '	
', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', 'aßअ𝕬é ‮﻿', '["aßअ𝕬é ‮﻿"]', 4294967296, '9999-12-31 23:59:59.999999+00');
INSERT INTO cryptostore_golden.inbound_group_session VALUES (3, '!room:example.org', 'megolm', 'curve', '\x626f622773', 'other+key', '["x"]', 7, '1969-12-31 23:59:59.999999+00');

INSERT INTO cryptostore_golden.message_index VALUES (1, 'megolm', 'curve', 0, '$event', 1709251199123);
INSERT INTO cryptostore_golden.message_index VALUES (1, 'megolm', 'curve', 10, '$tenth', -1);
INSERT INTO cryptostore_golden.message_index VALUES (1, 'megolm', 'curve', 9, '$ninth', -9223372036854775808);
INSERT INTO cryptostore_golden.message_index VALUES (1, 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', 'aßअ𝕬é ‮﻿', 9223372036854775807, '''"`\%_;--{}$1', 9223372036854775807);
INSERT INTO cryptostore_golden.message_index VALUES (3, 'megolm', 'curve', 0, '$other', 0);

INSERT INTO cryptostore_golden.olm_account VALUES (1, '\x00616c6963652773206163636f756e7400ff', true, '\x000001');
INSERT INTO cryptostore_golden.olm_account VALUES (3, '\x626f622773206163636f756e74', false, '\x');
INSERT INTO cryptostore_golden.olm_account VALUES (7, '\x', false, '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');

INSERT INTO cryptostore_golden.olm_message VALUES (1, 'curve+alice/AAAA', 'hash');
INSERT INTO cryptostore_golden.olm_message VALUES (1, 'aßअ𝕬é ‮﻿', 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬');
INSERT INTO cryptostore_golden.olm_message VALUES (3, 'curve+alice/AAAA', 'hash');

INSERT INTO cryptostore_golden.olm_session VALUES (1, 'curve+alice/AAAA', 'session-1', '\x616c6963652773207069636b6c65', '2024-02-29 23:59:59.123456+00', '9999-12-31 23:59:59.999999+00');
INSERT INTO cryptostore_golden.olm_session VALUES (1, 'curve+alice/AAAA', 'session-10', '\x', '0001-01-01 00:00:00.000001+00', '1969-12-31 23:59:59.999999+00');
INSERT INTO cryptostore_golden.olm_session VALUES (1, 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', 'aßअ𝕬é ‮﻿', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff', '1969-12-31 23:59:59.999999+00', '2024-02-29 23:59:59.123456+00');
INSERT INTO cryptostore_golden.olm_session VALUES (3, 'curve+alice/AAAA', 'session-1', '\x626f622773207069636b6c65', '0001-01-01 00:00:00.000001+00', '0001-01-01 00:00:00.000001+00');

INSERT INTO cryptostore_golden.outbound_group_session VALUES (1, '!room:example.org', '\x616c6963652773206f7574626f756e64', '2024-02-29 23:59:59.123456+00', 0, false, '[]', '[]');
INSERT INTO cryptostore_golden.outbound_group_session VALUES (1, '''"`\%_;--{}$1', '\x0000', '1969-12-31 23:59:59.999999+00', 9223372036854775807, true, '[["@bob:example.org", "B"], ["@bob:example.org", "b"], ["aßअ𝕬é ‮﻿", "''\"`\\%_;--{}$1"]]', '[["", ""]]');
INSERT INTO cryptostore_golden.outbound_group_session VALUES (3, '!room:example.org', '\x626f622773206f7574626f756e64', '0001-01-01 00:00:00.000001+00', 3, true, '[]', '[]');

INSERT INTO cryptostore_golden.outgoing_key_request VALUES (1, 'request', 'megolm', '!room:example.org', 'm.megolm.v1.aes-sha2');
INSERT INTO cryptostore_golden.outgoing_key_request VALUES (1, '''"`\%_;--{}$1', 'aßअ𝕬é ‮﻿', 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', ' ');
INSERT INTO cryptostore_golden.outgoing_key_request VALUES (3, 'request', 'other', '!other:example.org', 'm.other');

INSERT INTO cryptostore_golden.schema_version VALUES (1, 1, true);

INSERT INTO cryptostore_golden.sync_token VALUES (1, 's72594_4483_1934_aßअ𝕬é ‮﻿');
INSERT INTO cryptostore_golden.sync_token VALUES (3, '');
INSERT INTO cryptostore_golden.sync_token VALUES (7, '''"`\%_;--{}$1');

INSERT INTO cryptostore_golden.tracked_user VALUES (1, '@bob:example.org', true, 9223372036854775807);
INSERT INTO cryptostore_golden.tracked_user VALUES (1, 'aßअ𝕬é ‮﻿', false, 0);
INSERT INTO cryptostore_golden.tracked_user VALUES (3, '@bob:example.org', false, 1);

INSERT INTO cryptostore_golden.value VALUES (1, 'backup', 'version', '\x');
INSERT INTO cryptostore_golden.value VALUES (1, 'backup', 'Version', '\x00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO cryptostore_golden.value VALUES (1, 'aßअ𝕬é ‮﻿', 'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééx𝕬', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff');
INSERT INTO cryptostore_golden.value VALUES (3, 'backup', 'version', '\x626f622773');

SELECT pg_catalog.setval('cryptostore_golden.account_id_seq', 8, true);

ALTER TABLE ONLY cryptostore_golden.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (id);

ALTER TABLE ONLY cryptostore_golden.account
    ADD CONSTRAINT account_user_id_device_id_key UNIQUE (user_id, device_id);

ALTER TABLE ONLY cryptostore_golden.device
    ADD CONSTRAINT device_pkey PRIMARY KEY (account_id, user_id, device_id);

ALTER TABLE ONLY cryptostore_golden.encrypted_room
    ADD CONSTRAINT encrypted_room_pkey PRIMARY KEY (account_id, room_id);

ALTER TABLE ONLY cryptostore_golden.inbound_group_session
    ADD CONSTRAINT inbound_group_session_pkey PRIMARY KEY (account_id, room_id, session_id, sender_key);

ALTER TABLE ONLY cryptostore_golden.message_index
    ADD CONSTRAINT message_index_pkey PRIMARY KEY (account_id, session_id, sender_key, index);

ALTER TABLE ONLY cryptostore_golden.olm_account
    ADD CONSTRAINT olm_account_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY cryptostore_golden.olm_message
    ADD CONSTRAINT olm_message_pkey PRIMARY KEY (account_id, sender_key, hash);

ALTER TABLE ONLY cryptostore_golden.olm_session
    ADD CONSTRAINT olm_session_pkey PRIMARY KEY (account_id, sender_key, session_id);

ALTER TABLE ONLY cryptostore_golden.outbound_group_session
    ADD CONSTRAINT outbound_group_session_pkey PRIMARY KEY (account_id, room_id);

ALTER TABLE ONLY cryptostore_golden.outgoing_key_request
    ADD CONSTRAINT outgoing_key_request_pkey PRIMARY KEY (account_id, request_id);

ALTER TABLE ONLY cryptostore_golden.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (one_row);

ALTER TABLE ONLY cryptostore_golden.sync_token
    ADD CONSTRAINT sync_token_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY cryptostore_golden.tracked_user
    ADD CONSTRAINT tracked_user_pkey PRIMARY KEY (account_id, user_id);

ALTER TABLE ONLY cryptostore_golden.value
    ADD CONSTRAINT value_pkey PRIMARY KEY (account_id, namespace, name);

ALTER TABLE ONLY cryptostore_golden.device
    ADD CONSTRAINT device_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.encrypted_room
    ADD CONSTRAINT encrypted_room_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.inbound_group_session
    ADD CONSTRAINT inbound_group_session_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.message_index
    ADD CONSTRAINT message_index_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.olm_account
    ADD CONSTRAINT olm_account_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.olm_message
    ADD CONSTRAINT olm_message_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.olm_session
    ADD CONSTRAINT olm_session_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.outbound_group_session
    ADD CONSTRAINT outbound_group_session_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.outgoing_key_request
    ADD CONSTRAINT outgoing_key_request_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.sync_token
    ADD CONSTRAINT sync_token_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.tracked_user
    ADD CONSTRAINT tracked_user_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

ALTER TABLE ONLY cryptostore_golden.value
    ADD CONSTRAINT value_account_id_fkey FOREIGN KEY (account_id) REFERENCES cryptostore_golden.account(id) ON DELETE CASCADE;

