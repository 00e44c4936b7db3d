//! What an operator may have got wrong, told by name.

use super::*;

fn fresh_role(server: &PostgresServer, options: &str) -> String {
    let name = server.fresh_schema();
    server.sql(&format!("CREATE ROLE {name} LOGIN {options}"));
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_and_not_shown() {
    let server = PostgresServer::start();
    server.sql("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right'");
    let with = |password: &str| {
        let settings = settings(&server, &format!("guarded:{password}"), "guarded");
        store(settings::PostgresStore { command_timeout: COMMAND_TIMEOUT, ..settings }, &Clock::system())
    };
    let text = until_refused(&with("hunter2"), "wrong user or password").await;
    assert!(!text.contains("hunter2"), "{text}");
    time_to_recover(&with("right")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_database_is_told() {
    let mut settings = settings(shared(), "postgres", "cloakroom");
    settings.url = SecretText::new(format!("{}_that_is_not", shared().url()));
    until_refused(&store(settings, &Clock::system()), "there is no such database").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_make_tables_is_told_what_to_do() {
    let server = shared();
    let role = fresh_role(server, "");
    let schema = server.fresh_schema();
    let store = store(settings(server, &role, &schema), &Clock::system());
    let text = until_refused(&store, "the user lacks a right").await;
    assert!(text.contains("store.schema"), "{text}");
    // Prepared by the administrator, it needs no right to make schemas.
    server.sql(&format!("CREATE SCHEMA {schema} AUTHORIZATION {role}"));
    time_to_recover(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_a_postgres_that_turns_read_only_is_told_and_found_when_it_takes_writes_again() {
    let server = PostgresServer::start();
    let store = impatient(&server);
    time_to_recover(&store).await;
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    let turn = |to: &str| {
        server.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {to}"));
        server.sql("SELECT pg_reload_conf()");
    };
    turn("on");
    until_refused(&store, "read-only").await;
    assert!(store.create(&fresh_key(), &record(Clock::system().now())).await.is_err());
    // What is read there may be out of date: after a failover the old primary looks just like this.
    assert!(matches!(store.load(&key).await, Err(StoreError::Unavailable(_))));
    turn("off");
    time_to_recover(&store).await;
    assert!(store.load(&key).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_a_full_disk_is_told_and_reading_goes_on() {
    let server = shared();
    let settings = settings(server, "postgres", &server.fresh_schema());
    let schema = settings.schema.clone();
    let store = store(settings, &Clock::system());
    let key = fresh_key();
    store.create(&key, &record(Clock::system().now())).await.unwrap();
    server.sql(&format!(
        "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE 'could not extend file' USING ERRCODE = '53100'; END $$; \
         CREATE TRIGGER disk BEFORE INSERT ON {schema}.sessions EXECUTE FUNCTION {schema}.refuse()"
    ));
    let error = store.create(&fresh_key(), &record(Clock::system().now())).await.unwrap_err().to_string();
    assert!(error.contains("the disk of PostgreSQL is full"), "{error}");
    assert!(store.load(&key).await.unwrap().is_some());
    server.sql(&format!("DROP TRIGGER disk ON {schema}.sessions"));
    store.create(&fresh_key(), &record(Clock::system().now())).await.unwrap();
}

/// Fewer connections than the settings allow are used, not missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_connections_are_made_do_with() {
    let server = shared();
    let role = fresh_role(server, "CONNECTION LIMIT 4");
    let schema = server.fresh_schema();
    server.sql(&format!("CREATE SCHEMA {schema} AUTHORIZATION {role}"));
    let store = Arc::new(store(settings(server, &role, &schema), &Clock::system()));
    time_to_recover(&store).await;
    for _ in 0..3 {
        let all = (0..100).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create(&fresh_key(), &record(Clock::system().now())).await })
        });
        for result in futures::future::join_all(all).await {
            result.unwrap().expect("it waits for one of those that there are");
        }
    }
    let none = fresh_role(server, "CONNECTION LIMIT 0");
    let store = self::store(settings(server, &none, &schema), &Clock::system());
    until_refused(&store, "too many connections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_version_are_left_alone() {
    let server = shared();
    let schema = server.fresh_schema();
    time_to_recover(&store(settings(server, "postgres", &schema), &Clock::system())).await;
    server.sql(&format!("INSERT INTO {schema}.migrations (version) VALUES (99)"));
    let text = until_refused(&store(settings(server, "postgres", &schema), &Clock::system()), "version 99").await;
    assert!(text.contains(&schema), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_were_dropped_are_made_again() {
    let server = shared();
    let schema = server.fresh_schema();
    let store = store(settings(server, "postgres", &schema), &Clock::system());
    time_to_recover(&store).await;
    server.sql(&format!("DROP SCHEMA {schema} CASCADE"));
    assert!(store.ping().await.is_err());
    time_to_recover(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_lose_sessions_are_warned_of() {
    let store = store(settings(shared(), "postgres", &shared().fresh_schema()), &Clock::system());
    let warnings = store.warnings().await;
    assert_eq!(warnings.len(), 2, "the tests' own server forgoes fsync and full_page_writes: {warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("may lose sessions")));
}
