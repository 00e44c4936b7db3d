//! One connection: opened, set up, with every statement prepared.

use std::pin::Pin;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{Stream, StreamExt as _, stream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Error, Row, Statement};

use super::address::Address;
use super::fault::Fault;
use super::migrate;
use super::sql::Query;
use tokio_postgres::types::ToSql;

/// Longest wait for a connection that can be used, TLS, password and prepared statements included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that acknowledges nothing for so long is gone.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes connections.
pub(super) struct Dialer {
    address: Address,
    /// A checked name.
    pub(super) schema: String,
    statement_timeout: Duration,
}

/// A connection with its prepared statements.
pub(super) struct Session {
    client: Client,
    statements: Vec<Statement>,
    _driver: Task,
}

/// A task that ends with its handle.
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn of<T>(handle: &JoinHandle<T>) -> Self {
        Self(handle.abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a connection says by itself; it works only while this is asked.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<AsyncMessage, Error>> + Send>>;

impl Dialer {
    pub(super) fn new(mut address: Address, schema: String, statement_timeout: Duration) -> Self {
        let config = &mut address.config;
        config.connect_timeout(CONNECT_TIMEOUT / 2).tcp_user_timeout(TCP_TIMEOUT);
        config.keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(2));
        config.keepalives_retries(2);
        Self { address, schema, statement_timeout }
    }

    /// Host and port, or the folder of the socket, for logs.
    pub(super) fn server(&self) -> String {
        let config = &self.address.config;
        let names = config.get_hosts().iter().enumerate().map(|(n, host)| {
            let port = config.get_ports().get(n).or_else(|| config.get_ports().first()).copied().unwrap_or(5432);
            match host {
                tokio_postgres::config::Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                tokio_postgres::config::Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        });
        names.collect::<Vec<_>>().join(",")
    }

    /// A connection that needs nothing of the tables.
    pub(super) async fn connect(&self) -> Result<(Client, Messages), Fault> {
        let connecting = self.address.config.connect(self.address.tls.clone());
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        let (client, mut connection) = connected.map_err(|_| Fault::server("PostgreSQL does not answer"))??;
        Ok((client, Box::pin(stream::poll_fn(move |cx| connection.poll_message(cx)))))
    }

    /// A connection for commands; with `migrate`, the tables are made or brought up to date first.
    pub(super) async fn open(&self, migrate: bool) -> Result<Session, Fault> {
        let (mut client, mut messages) = self.connect().await?;
        // Notices mean nothing here.
        let driver = Task::of(&tokio::spawn(async move { while let Some(Ok(_)) = messages.next().await {} }));
        self.within(client.batch_execute(&self.set_up())).await?;
        if migrate {
            migrate::run(&mut client, &self.schema).await?;
        }
        // One round trip for all of them: requests wait for no answers.
        let prepared = try_join_all(Query::ALL.map(|query| client.prepare(query.text())));
        let statements = self.within(prepared).await?;
        Ok(Session { client, statements, _driver: driver })
    }

    /// Statements that end themselves, found by plain names and planned once. No statement should walk a whole table,
    /// whatever the planner believes of a new one's size: each has its index.
    fn set_up(&self) -> String {
        format!(
            "SET search_path = \"{}\"; SET statement_timeout = {}; SET default_transaction_isolation = 'read committed'; \
             SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; \
             SET client_min_messages = error",
            self.schema,
            self.statement_timeout.as_millis().max(1)
        )
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
        Ok(timeout(CONNECT_TIMEOUT, work).await.map_err(|_| Fault::server("PostgreSQL does not answer"))??)
    }
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) async fn query(&self, query: Query, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Fault> {
        match self.statements.get(query as usize) {
            Some(statement) => Ok(self.client.query(statement, values).await?),
            None => Err(Fault::server("a statement was not prepared")),
        }
    }
}
