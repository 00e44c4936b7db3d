//! What an operator is told of an error: the cause and the next step, in a sentence. No text of these holds a URL, a
//! password, a key or an argument of a command.

use fred::error::{Error, ErrorKind};

use super::super::StoreError;

/// Redis' own codes. In a script's error the code may stand behind some words of Redis'.
const ANSWERS: [(&str, &str); 13] = [
    ("WRONGPASS", "Redis refuses user and password (WRONGPASS): correct them in `store.url`"),
    ("NOAUTH", "Redis wants a password (NOAUTH): add it to `store.url`"),
    ("invalid password", "Redis refuses the password: correct it in `store.url`"),
    ("without any password configured", "Redis has no password: remove it from `store.url`"),
    ("READONLY", "Redis is a read-only replica (READONLY): point `store.url` at the primary, or at the Sentinels"),
    ("OOM", "Redis is full (OOM): raise its maxmemory; sessions that live are still read"),
    ("LOADING", "Redis is loading its data (LOADING): wait"),
    ("MASTERDOWN", "this Redis is a replica without its primary (MASTERDOWN): point `store.url` at the primary"),
    ("MISCONF", "Redis cannot save to disk and refuses writes (MISCONF): see its log"),
    ("NOREPLICAS", "Redis has too few replicas and refuses writes (NOREPLICAS): see its `min-replicas-to-write`"),
    ("CLUSTERDOWN", "the Redis cluster is down (CLUSTERDOWN): see `CLUSTER INFO` on a node"),
    ("cluster support disabled", "this Redis is no cluster: write `redis://` in `store.url`"),
    ("MOVED", "this Redis is one node of a cluster (MOVED): write `redis-cluster://` in `store.url`"),
];

/// Answers after which a connection is of no use: the server's role or our rights have changed, or it is starting.
const WRONG_SERVER: [&str; 5] = ["READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "CLUSTERDOWN"];

/// Whether the server is not, or no longer, one to talk to.
pub(super) fn is_wrong_server(error: &Error) -> bool {
    WRONG_SERVER.iter().any(|code| error.details().contains(code))
}

/// The cause of an error.
pub(super) fn cause(error: &Error) -> String {
    let details = error.details();
    if let Some((_, text)) = ANSWERS.iter().find(|(code, _)| details.contains(code)) {
        return (*text).to_owned();
    }
    if ["NOPERM", "has no permissions", "ACL failure"].iter().any(|words| details.contains(words)) {
        // Redis names the command, the key or the channel by its kind alone.
        let details = details.split_once(" script: ").map_or(details, |(text, _)| text);
        return format!("the user in `store.url` lacks a right ({}): see the list of rights", short(details));
    }
    match error.kind() {
        ErrorKind::Timeout => "no answer in time".to_owned(),
        ErrorKind::Protocol | ErrorKind::Parse => {
            "what listens there speaks no Redis: check host and port of `store.url`".to_owned()
        }
        ErrorKind::Canceled => "the connection was closed".to_owned(),
        ErrorKind::IO => connecting(details),
        ErrorKind::Tls => format!("no TLS with Redis: {}; see `store.ca`", short(details)),
        _ => short(&error.to_string()),
    }
}

fn connecting(details: &str) -> String {
    let lower = details.to_ascii_lowercase();
    if lower.contains("certificate") || lower.contains("tls") || lower.contains("corrupt") {
        return format!("no TLS with Redis: {}; see `store.ca`", short(details));
    }
    if lower.contains("lookup address") || lower.contains("resolve") {
        return "the host of `store.url` has no address: check its name".to_owned();
    }
    if lower.contains("refused") {
        return "connection refused: nothing listens at `store.url`".to_owned();
    }
    short(details)
}

/// Of a command that Redis does not know, Redis quotes the arguments, and those stay out.
fn short(text: &str) -> String {
    text.split_once(", with args").map_or(text, |(text, _)| text).to_owned()
}

/// The same as an error of the store.
pub(super) fn unavailable(error: &Error) -> StoreError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::InvalidArgument => StoreError::Damaged(short(&error.to_string())),
        ErrorKind::Parse if !error.details().is_empty() => StoreError::Damaged(short(&error.to_string())),
        _ => StoreError::Unavailable(cause(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_no_arguments() {
        let details = "ERR unknown command 'EVALSHA', with args beginning with: 'x' '1' 'cloakroom:s:key'";
        let error = unavailable(&Error::new(ErrorKind::Unknown, details));
        assert_eq!(error.to_string(), "the session store is unavailable: Unknown Error: ERR unknown command 'EVALSHA'");
    }

    #[test]
    fn causes_name_the_next_step() {
        let cause = |kind, details: &'static str| cause(&Error::new(kind, details));
        assert!(cause(ErrorKind::Auth, "WRONGPASS invalid username-password pair").contains("`store.url`"));
        assert!(cause(ErrorKind::Unknown, "ERR x script: y, -OOM command not allowed").contains("maxmemory"));
        assert!(cause(ErrorKind::IO, "failed to lookup address information").contains("check its name"));
        assert!(cause(ErrorKind::IO, "Connection refused (os error 111)").contains("nothing listens"));
        assert!(cause(ErrorKind::IO, "invalid peer certificate: UnknownIssuer").contains("`store.ca`"));
    }
}
