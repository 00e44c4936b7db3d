//! Every statement, each of them one round trip and one transaction of its own. Names are found by `search_path`.
//!
//! Where a statement takes several rows it locks them in the order of their keys first, so that no two of them wait for
//! each other; those that pick rows for themselves skip the locked ones.

/// Names a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    Create,
    Load,
    Replace,
    Touch,
    Delete,
    DeleteOfSubject,
    DeleteOfProviderSession,
    FindSubject,
    FindProviderSession,
    ClaimDue,
    Reschedule,
    PutLogin,
    TakeLogin,
    Mark,
    Marked,
    Census,
    Ping,
    Warnings,
    SweepSessions,
    SweepLogins,
    SweepMarks,
}

impl Query {
    /// In the order of their declaration, so that a number finds its statement.
    pub(super) const ALL: [Self; 21] = [
        Self::Create,
        Self::Load,
        Self::Replace,
        Self::Touch,
        Self::Delete,
        Self::DeleteOfSubject,
        Self::DeleteOfProviderSession,
        Self::FindSubject,
        Self::FindProviderSession,
        Self::ClaimDue,
        Self::Reschedule,
        Self::PutLogin,
        Self::TakeLogin,
        Self::Mark,
        Self::Marked,
        Self::Census,
        Self::Ping,
        Self::Warnings,
        Self::SweepSessions,
        Self::SweepLogins,
        Self::SweepMarks,
    ];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Create => CREATE,
            Self::Load => LOAD,
            Self::Replace => REPLACE,
            Self::Touch => TOUCH,
            Self::Delete => DELETE,
            Self::DeleteOfSubject => DELETE_OF_SUBJECT,
            Self::DeleteOfProviderSession => DELETE_OF_PROVIDER_SESSION,
            Self::FindSubject => FIND_SUBJECT,
            Self::FindProviderSession => FIND_PROVIDER_SESSION,
            Self::ClaimDue => CLAIM_DUE,
            Self::Reschedule => RESCHEDULE,
            Self::PutLogin => PUT_LOGIN,
            Self::TakeLogin => TAKE_LOGIN,
            Self::Mark => MARK,
            Self::Marked => "SELECT at FROM marks WHERE name = $1::bytea AND expires > $2::bigint",
            Self::Census => CENSUS,
            Self::Ping => PING,
            Self::Warnings => WARNINGS,
            Self::SweepSessions => SWEEP_SESSIONS,
            Self::SweepLogins => SWEEP_LOGINS,
            Self::SweepMarks => SWEEP_MARKS,
        }
    }
}

/// A record's columns in the order of `rows::read`, behind the key.
macro_rules! columns {
    () => {
        "key, version, last_seen, idle_end, absolute_end, returning_end, meta, sealed"
    };
}

const CREATE: &str = "
    INSERT INTO sessions (key, version, last_seen, idle_end, absolute_end, returning_end, due, sealing_key, meta, sealed,
                          subject, provider_session)
    VALUES ($1::bytea, $2::bigint, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::text, $9::bytea,
            $10::bytea, $11::bytea, $12::bytea)
    ON CONFLICT (key) DO UPDATE SET
        version = excluded.version, last_seen = excluded.last_seen, idle_end = excluded.idle_end,
        absolute_end = excluded.absolute_end, returning_end = excluded.returning_end, due = excluded.due,
        sealing_key = excluded.sealing_key, meta = excluded.meta, sealed = excluded.sealed,
        subject = excluded.subject, provider_session = excluded.provider_session";

const LOAD: &str = concat!("SELECT ", columns!(), " FROM sessions WHERE key = $1::bytea AND ends > $2::bigint");

/// Whether it was written, and the version that was there when the statement began. `ends > now` is asked of the row as
/// it was: the update itself may bring its end forward.
const REPLACE: &str = "
    WITH done AS (
        UPDATE sessions SET
            version = $2::bigint, last_seen = GREATEST(last_seen, $3::bigint), idle_end = GREATEST(idle_end, $4::bigint),
            absolute_end = $5::bigint, returning_end = GREATEST(returning_end, $6::bigint), due = $7::bigint,
            sealing_key = $8::text, meta = $9::bytea, sealed = $10::bytea
        WHERE key = $1::bytea AND version = $11::bigint AND ends > $12::bigint
        RETURNING key, version
    ), told AS MATERIALIZED (
        SELECT pg_notify(current_schema() || '_changes', 'r' || version || ':' || encode(key, 'hex'))
        FROM done WHERE $13::boolean
    )
    SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM told),
           (SELECT version FROM sessions WHERE key = $1::bytea AND ends > $12::bigint)";

const TOUCH: &str = "
    WITH touch AS MATERIALIZED (
        SELECT key, max(seen) AS seen, max(idle) AS idle, max(back) AS back
        FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) AS t (key, seen, idle, back) GROUP BY key
    ), locked AS MATERIALIZED (
        SELECT key FROM sessions WHERE key = ANY ($1::bytea[]) AND ends > $5::bigint ORDER BY key FOR NO KEY UPDATE
    )
    UPDATE sessions SET
        last_seen = GREATEST(last_seen, touch.seen), idle_end = GREATEST(idle_end, touch.idle),
        returning_end = GREATEST(returning_end, touch.back)
    FROM locked JOIN touch USING (key) WHERE sessions.key = locked.key";

const DELETE: &str = concat!(
    "
    WITH ended AS (DELETE FROM sessions WHERE key = $1::bytea RETURNING ends, ",
    columns!(),
    "), told AS MATERIALIZED (
        SELECT pg_notify(current_schema() || '_changes', 'e' || encode(key, 'hex')) FROM ended WHERE ends > $2::bigint
    )
    SELECT ",
    columns!(),
    ", (SELECT count(*) FROM told) FROM ended WHERE ends > $2::bigint"
);

macro_rules! delete_of {
    ($column:literal) => {
        concat!(
            "
    WITH locked AS MATERIALIZED (
        SELECT key FROM sessions WHERE ",
            $column,
            " = $1::bytea ORDER BY key FOR UPDATE
    ), ended AS (
        DELETE FROM sessions USING locked WHERE sessions.key = locked.key RETURNING sessions.*
    ), told AS MATERIALIZED (
        SELECT pg_notify(current_schema() || '_changes', 'e' || encode(key, 'hex')) FROM ended WHERE ends > $2::bigint
    )
    SELECT ",
            columns!(),
            ", (SELECT count(*) FROM told) FROM ended WHERE ends > $2::bigint"
        )
    };
}
const DELETE_OF_SUBJECT: &str = delete_of!("subject");
const DELETE_OF_PROVIDER_SESSION: &str = delete_of!("provider_session");

const FIND_SUBJECT: &str =
    concat!("SELECT ", columns!(), " FROM sessions WHERE subject = $1::bytea AND ends > $2::bigint");
const FIND_PROVIDER_SESSION: &str =
    concat!("SELECT ", columns!(), " FROM sessions WHERE provider_session = $1::bytea AND ends > $2::bigint");

/// Who is idle or dead loses its place on the list, and takes one of the limit for it.
const CLAIM_DUE: &str = "
    WITH next AS MATERIALIZED (
        SELECT key, last_seen >= $2::bigint AND ends > $3::bigint AS active FROM sessions
        WHERE due <= $1::bigint ORDER BY due LIMIT $5::bigint FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE sessions SET due = CASE WHEN next.active THEN $4::bigint END
    FROM next WHERE sessions.key = next.key RETURNING next.key, next.active";

const RESCHEDULE: &str = "
    WITH locked AS MATERIALIZED (
        SELECT key FROM sessions WHERE key = ANY ($1::bytea[]) ORDER BY key FOR NO KEY UPDATE
    ), new AS MATERIALIZED (
        SELECT key, max(due) AS due FROM unnest($1::bytea[], $2::bigint[]) AS t (key, due) GROUP BY key
    )
    UPDATE sessions SET due = new.due FROM locked JOIN new USING (key) WHERE sessions.key = locked.key";

/// Whether it was written, and what lived in its place. That one is locked as it is now, not as it was when the statement
/// began; one that came since is seen by the next attempt.
///
/// Logins of one browser that begin in the very same moment may make it one too many, until the next one begins.
const PUT_LOGIN: &str = "
    WITH kept AS MATERIALIZED (
        SELECT state FROM logins WHERE browser = $1::bytea AND state <> $2::bytea AND expires > $5::bigint
        ORDER BY began DESC LIMIT $6::bigint - 1
    ), dropped AS (
        DELETE FROM logins WHERE browser = $1::bytea AND state <> $2::bytea AND state NOT IN (SELECT state FROM kept)
    ), before AS MATERIALIZED (
        SELECT browser, state, sealed, expires FROM logins WHERE browser = $1::bytea AND state = $2::bytea FOR UPDATE
    ), changed AS (
        UPDATE logins SET sealed = $3::bytea, expires = $4::bigint, began = DEFAULT
        FROM before WHERE logins.browser = before.browser AND logins.state = before.state
        RETURNING before.sealed, before.expires
    ), added AS (
        INSERT INTO logins (browser, state, sealed, expires)
        SELECT $1::bytea, $2::bytea, $3::bytea, $4::bigint WHERE NOT EXISTS (SELECT FROM changed)
        ON CONFLICT (browser, state) DO NOTHING RETURNING state
    )
    SELECT (SELECT count(*) FROM changed) + (SELECT count(*) FROM added),
           (SELECT sealed FROM changed WHERE expires > $5::bigint)";

const TAKE_LOGIN: &str = "
    WITH taken AS (DELETE FROM logins WHERE browser = $1::bytea AND state = $2::bytea RETURNING sealed, expires)
    SELECT sealed FROM taken WHERE expires > $3::bigint";

const MARK: &str = "
    INSERT INTO marks (name, at, expires) VALUES ($1::bytea, $2::bigint, $3::bigint)
    ON CONFLICT (name) DO UPDATE SET at = excluded.at, expires = excluded.expires WHERE marks.expires <= $4::bigint
    RETURNING true";

/// One page in the order of keys: for each sealing key its living sessions, with the last key of the page.
const CENSUS: &str = "
    WITH page AS MATERIALIZED (
        SELECT key, sealing_key, ends FROM sessions WHERE key > $1::bytea ORDER BY key LIMIT $3::bigint
    )
    SELECT sealing_key, count(*) FILTER (WHERE ends > $2::bigint), (SELECT key FROM page ORDER BY key DESC LIMIT 1)
    FROM page GROUP BY sealing_key";

const PING: &str = "
    INSERT INTO probe (one, at) VALUES (true, $1::bigint) ON CONFLICT (one) DO UPDATE SET at = excluded.at";

const WARNINGS: &str = "
    SELECT name, setting FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'server_version_num')";

macro_rules! sweep {
    ($table:literal, $ends:literal) => {
        concat!(
            "
    WITH over AS MATERIALIZED (
        SELECT ctid FROM ",
            $table,
            " WHERE ",
            $ends,
            " <= $1::bigint
        ORDER BY ",
            $ends,
            " LIMIT $2::bigint FOR UPDATE SKIP LOCKED
    )
    DELETE FROM ",
            $table,
            " USING over WHERE ",
            $table,
            ".ctid = over.ctid RETURNING true"
        )
    };
}
const SWEEP_SESSIONS: &str = sweep!("sessions", "ends");
const SWEEP_LOGINS: &str = sweep!("logins", "expires");
const SWEEP_MARKS: &str = sweep!("marks", "expires");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_its_statement() {
        for (n, query) in Query::ALL.into_iter().enumerate() {
            assert_eq!(query as usize, n);
        }
    }
}
