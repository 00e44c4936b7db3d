//! What other replicas have changed: `LISTEN` on a connection of its own.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, interval_at, timeout};
use tokio_postgres::AsyncMessage;

use super::super::Change;
use super::super::record::SessionKey;
use super::dial::Task;
use super::fault::Fault;
use super::link::{Retry, Shared};
use super::pool::Pool;

/// How often the connection is asked for a sign of life, and how long it has to give one: a silent one is found out
/// within two of these.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Listens, and listens again, as long as there is a link.
pub(super) async fn keep(shared: &Shared) {
    let mut retry = Retry::default();
    loop {
        // Whether PostgreSQL is there at all is found out, and told, elsewhere.
        let Some(pool) = shared.until_up().await else { return };
        let begun = Instant::now();
        let fault = match listen(shared, &pool).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        };
        if begun.elapsed() > HEARTBEAT {
            retry.held(begun.elapsed());
        }
        if retry.is_news(&fault.text) {
            tracing::warn!(reason = fault.text, "changes of other replicas are not heard of for the moment");
        }
        retry.wait().await;
    }
}

enum Never {}

/// Passes on what is told until the connection ends, or the pool: both are to be of the same server. After a failover
/// the old one may live on, answer to heartbeats, and never tell anything again.
async fn listen(shared: &Shared, pool: &Pool) -> Result<Never, Fault> {
    let (client, mut messages) = shared.dialer.connect().await?;
    let changes = shared.changes.clone();
    let mut driver = tokio::spawn(async move {
        loop {
            match messages.next().await {
                Some(Ok(AsyncMessage::Notification(told))) => {
                    // What this version cannot read may mean anything. Nobody listening is no error.
                    let _ = changes.send(read(told.payload()).unwrap_or(Change::Missed));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Fault::from(error),
                None => return Fault::server("connection closed"),
            }
        }
    });
    let _ended_with_us = Task::of(&driver);
    let silent = || Fault::server("the connection that listens does not answer");
    let command = format!("LISTEN \"{}_changes\"", shared.dialer.schema);
    timeout(HEARTBEAT, client.batch_execute(&command)).await.map_err(|_| silent())??;
    // From here on nothing goes unheard. What came before may have.
    let _ = shared.changes.send(Change::Missed);
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        tokio::select! {
            ended = &mut driver => return Err(ended.unwrap_or_else(|error| Fault::server(error.to_string()))),
            reason = pool.over() => return Err(Fault::server(&*reason)),
            _ = beat.tick() => timeout(HEARTBEAT, client.check_connection()).await.map_err(|_| silent())??,
        }
    }
}

/// `r{version}:{key}` or `e{key}`, keys in hexadecimal.
fn read(text: &str) -> Option<Change> {
    if let Some(key) = text.strip_prefix('e') {
        return Some(Change::Ended(key_of(key)?));
    }
    let (version, key) = text.strip_prefix('r')?.split_once(':')?;
    Some(Change::Replaced(key_of(key)?, version.parse().ok()?))
}

fn key_of(hex: &str) -> Option<SessionKey> {
    let mut key = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (n, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(SessionKey::from_bytes(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_the_rest_is_not() {
        let key = SessionKey::from_bytes([0xab; 32]);
        let hex = "ab".repeat(32);
        assert_eq!(read(&format!("e{hex}")), Some(Change::Ended(key)));
        assert_eq!(read(&format!("r7:{hex}")), Some(Change::Replaced(key, 7)));
        for odd in ["", "e", "r7", "r:ab", "x", &format!("r-1:{hex}"), &format!("e{hex}0"), &"e+f".repeat(21)] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
