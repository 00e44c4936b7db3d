//! The tables, made and changed by the program itself.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::fault::Fault;

/// Each brings the tables from the version before it (its place in the list) to its own. Never change one: add another.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// Replicas that start together wait here for the one that does the work.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('cloakroom migrations ' || $1::text, 0))";

/// Brings the tables up to date, in one transaction. Asks for no rights as long as there is nothing to do.
pub(super) async fn run(client: &mut Client, schema: &str) -> Result<(), Fault> {
    if is_current(version(client).await?, schema)? {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute("SET LOCAL statement_timeout = '60s'").await?;
    transaction.execute(LOCK, &[&schema]).await?;
    // Creating a schema asks for a right that a prepared one makes needless.
    let exists = transaction.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1::text", &[&schema]).await?;
    if exists.is_none() {
        transaction.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    let table = "CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY, done timestamptz DEFAULT now())";
    transaction.batch_execute(table).await?;
    let found: Option<i32> = transaction.query_one("SELECT max(version) FROM migrations", &[]).await?.try_get(0)?;
    if is_current(found, schema)? {
        return Ok(transaction.commit().await?);
    }
    let from = usize::try_from(found.unwrap_or_default()).unwrap_or_default();
    for (before, text) in MIGRATIONS.iter().enumerate().skip(from) {
        let version = i32::try_from(before + 1).unwrap_or(i32::MAX);
        transaction.batch_execute(text).await?;
        transaction.execute("INSERT INTO migrations (version) VALUES ($1)", &[&version]).await?;
        tracing::info!(schema, version, "the tables in PostgreSQL are brought up to date");
    }
    Ok(transaction.commit().await?)
}

/// The version of the tables; `None` if there are none.
async fn version(client: &Client) -> Result<Option<i32>, Error> {
    match client.query_one("SELECT max(version) FROM migrations", &[]).await {
        Ok(row) => row.try_get(0),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_current(found: Option<i32>, schema: &str) -> Result<bool, Fault> {
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    let found = found.unwrap_or_default();
    if found > known {
        return Err(Fault::server(format!(
            "the tables in schema {schema} have version {found}, and this program knows {known}: a newer one has been \
             here; start that one"
        )));
    }
    Ok(found == known)
}
