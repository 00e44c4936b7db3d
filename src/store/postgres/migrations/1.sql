-- Times are milliseconds since the epoch by the proxies' clock; "now" is always a parameter, never now().
-- Text of strangers (subjects, provider sessions) is kept as bytes or as a hash: a database may have any encoding.

CREATE TABLE sessions (
    key bytea PRIMARY KEY,
    version bigint NOT NULL,
    last_seen bigint NOT NULL,
    idle_end bigint NOT NULL,
    absolute_end bigint NOT NULL,
    returning_end bigint NOT NULL,
    ends bigint NOT NULL GENERATED ALWAYS AS (GREATEST(LEAST(idle_end, absolute_end), returning_end)) STORED,
    due bigint,
    subject bytea NOT NULL,
    provider_session bytea,
    sealing_key text NOT NULL,
    meta bytea NOT NULL,
    sealed bytea NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2);
-- What is encrypted does not compress.
ALTER TABLE sessions ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX sessions_ends ON sessions (ends);
CREATE INDEX sessions_due ON sessions (due) WHERE due IS NOT NULL;
CREATE INDEX sessions_subject ON sessions (subject);
CREATE INDEX sessions_provider_session ON sessions (provider_session) WHERE provider_session IS NOT NULL;

CREATE TABLE logins (
    browser bytea NOT NULL,
    state bytea NOT NULL,
    began bigint GENERATED ALWAYS AS IDENTITY,
    expires bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (browser, state)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX logins_expires ON logins (expires);

CREATE TABLE marks (
    name bytea PRIMARY KEY,
    at bigint NOT NULL,
    expires bigint NOT NULL
);
CREATE INDEX marks_expires ON marks (expires);

-- One row, written to learn whether writing is possible.
CREATE TABLE probe (
    one boolean PRIMARY KEY CHECK (one),
    at bigint NOT NULL
);
