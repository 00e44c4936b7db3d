//! Sessions under an administrator: who may see and end them, and what follows (behaviour O11), by HTTP and by command.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use crate::backchannel_kit::*;
use crate::harness::{Browser, LOGIN, Proxy, SESSION, Wishes, World, XSRF};
use crate::kit::*;
use crate::secrets_found::Secrets;
use crate::shared_store::Op;

const TOKEN: &str = "the-admin-token-of-these-tests";

fn with_token() -> Wishes {
    Wishes { admin: format!(", token: {TOKEN}"), ..shared() }
}

async fn call(
    proxy: &Proxy,
    method: Method,
    query: &str,
    credentials: Option<&str>,
) -> (StatusCode, serde_json::Value) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.request(method, format!("http://{}/sessions{query}", proxy.admin));
    if let Some(credentials) = credentials {
        request = request.header("authorization", credentials);
    }
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status();
    (status, serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default())
}

async fn admin(world: &World, method: Method, query: &str) -> serde_json::Value {
    let (status, document) = call(&world.proxy, method, query, Some(&format!("Bearer {TOKEN}"))).await;
    assert_eq!(status, StatusCode::OK, "{query}: {document}");
    document
}

async fn listed(world: &World, query: &str) -> Vec<serde_json::Value> {
    admin(world, Method::GET, query).await["sessions"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn o11_without_a_token_in_the_settings_it_stays_closed_and_says_what_to_do() {
    let world = world(shared()).await;
    let mut browser = world.logged_in().await;
    for method in [Method::GET, Method::DELETE] {
        for credentials in [None, Some("Bearer "), Some("Bearer x")] {
            let (status, document) = call(&world.proxy, method.clone(), &format!("?user={ALICE}"), credentials).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{document}");
            assert!(document["message"].as_str().is_some_and(|text| text.contains("admin.token")), "{document}");
        }
    }
    assert_eq!(world.proxy.admin_page("/metrics").await.0, StatusCode::OK, "metrics are open all the same");
    assert!(is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o11_no_other_token_opens_it() {
    let world = world(with_token()).await;
    let (mut browser, sid) = one_session(&world).await;
    let given = newest(&world);
    let logout = token(&world, None, Some(&sid));
    let mut shown = vec![None, Some(String::new()), Some(TOKEN.to_owned()), Some(format!("Basic {TOKEN}"))];
    let wrong = [&TOKEN[1..], "wrong", &given.access_token, &logout, &ticket(&browser)];
    let wrong = wrong.into_iter().map(str::to_owned).chain([format!("{TOKEN} ")]);
    let wrong = wrong.chain(given.id_token).chain(given.refresh_token).chain(browser.cookie(XSRF).map(str::to_owned));
    shown.extend(wrong.map(|token| Some(format!("Bearer  {token}").replace("  ", " "))));
    for credentials in &shown {
        for method in [Method::GET, Method::DELETE] {
            let user = format!("?user={ALICE}");
            let credentials = credentials.as_deref().map(str::trim_start);
            if credentials.is_some_and(|text| text.trim_end() == format!("Bearer {TOKEN}")) {
                continue;
            }
            let (status, document) = call(&world.proxy, method, &user, credentials).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{credentials:?}: {document}");
            assert!(document.get("sessions").is_none());
        }
    }
    assert!(is_alive(&mut browser).await);
    // Nothing of it is on the public side.
    let draft = browser.draft(Method::DELETE, &format!("/sessions?user={ALICE}"));
    let answer = browser.send(draft.header("authorization", &format!("Bearer {TOKEN}"))).await;
    assert_eq!(
        answer.status,
        StatusCode::FORBIDDEN,
        "a request for the upstream, and without a CSRF token: {answer:?}"
    );
    assert!(is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o11_who_names_nobody_ends_nothing() {
    let world = world(with_token()).await;
    let (mut browser, sid) = one_session(&world).await;
    let id = listed(&world, &format!("?user={ALICE}")).await[0]["id"].as_str().expect("an id").to_owned();
    for query in [
        "",
        "?",
        "?user=",
        "?provider=demo",
        "?all=true",
        "?id=short",
        &format!("?user={ALICE}&user={ALICE}"),
        &format!("?user={ALICE}&provider_session={sid}"),
        &format!("?user={ALICE}&provider=other"),
        &format!("?user={ALICE}&provider=demo&provider=demo"),
        &format!("?user={ALICE}&force=1"),
        &format!("?id={id}&provider=demo"),
        &format!("?id={id}x"),
    ] {
        for method in [Method::GET, Method::DELETE] {
            let (status, document) = call(&world.proxy, method, query, Some(&format!("Bearer {TOKEN}"))).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {document}");
            assert!(document["message"].as_str().is_some_and(|text| !text.is_empty()), "{query}: {document}");
        }
    }
    let (status, _) = call(&world.proxy, Method::POST, &format!("?id={id}"), Some(&format!("Bearer {TOKEN}"))).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(is_alive(&mut browser).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn o11_sessions_are_listed_without_secrets_and_ended_everywhere() {
    let world = world(with_token()).await;
    let other = world.replica().await;
    other.knows_provider().await;
    world.demo.provider.switches().auto_login("bob");
    let mut bob = world.logged_in().await;
    world.demo.provider.switches().auto_login("alice");
    let mut secrets = Secrets::default();
    for query in ["user", "provider_session", "id"] {
        let (browser, sid) = one_session(&world).await;
        let refresh_token = newest(&world).refresh_token.expect("a refresh token");
        for (kind, name) in [("session", SESSION), ("CSRF token", XSRF), ("binding", LOGIN)] {
            secrets.add(kind, browser.cookie(name).expect("a cookie"));
        }
        let all = listed(&world, &format!("?user={ALICE}&provider=demo")).await;
        assert_eq!(all.len(), 1);
        let session = &all[0];
        for (name, value) in [("user", ALICE), ("provider", "demo"), ("site", "127.0.0.1"), ("refresh", "idle")] {
            assert_eq!(session[name], value, "{session}");
        }
        assert_eq!(session["provider_session"], sid);
        for name in ["created", "last_seen", "idle_ends", "ends"] {
            assert!(session[name].as_str().is_some_and(|time| time.ends_with('Z')), "{session}");
        }
        let id = session["id"].as_str().expect("an id");
        let selector = match query {
            "user" => format!("?user={ALICE}"),
            "provider_session" => format!("?provider_session={sid}"),
            _ => format!("?id={id}"),
        };
        assert_eq!(listed(&world, &selector).await, all);

        let mut browsers = [carry(&browser, &other), browser];
        for browser in &mut browsers {
            assert!(is_alive(browser).await);
        }
        let ended = admin(&world, Method::DELETE, &selector).await;
        assert_eq!(ended["revoked"].as_array().map(Vec::len), Some(1), "{ended}");
        secrets.assert_none_in("the answer", &format!("{all:?} {ended}"), &[]);
        let since = Instant::now();
        for browser in &mut browsers {
            while is_alive(browser).await {
                assert!(since.elapsed() < Duration::from_secs(1), "too late");
            }
        }
        eventually_revoked(&world, &refresh_token).await;
        assert!(listed(&world, &selector).await.is_empty());
        assert_eq!(admin(&world, Method::DELETE, &selector).await["revoked"], serde_json::json!([]));
    }
    secrets.add_all_of(&world);
    assert!(is_alive(&mut bob).await);
    assert_eq!(world.metric("cloakroom_logouts_total{kind=\"admin\",provider=\"demo\"}").await, 3.0);
    assert_eq!(world.metric("cloakroom_audit_events_total{event=\"admin_revoked\"}").await, 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn o11_a_store_that_fails_half_way_is_told_and_the_rest_ends_with_the_next_call() {
    let world = world(with_token()).await;
    let mut browsers = [world.logged_in().await, world.logged_in().await, world.logged_in().await];
    store(&world).fail(Op::Delete, 1);
    let user = format!("?user={ALICE}");
    let (status, document) = call(&world.proxy, Method::DELETE, &user, Some(&format!("Bearer {TOKEN}"))).await;
    assert_eq!((status, document["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("store_unavailable")));
    store(&world).heal();
    admin(&world, Method::DELETE, &user).await;
    for browser in &mut browsers {
        assert!(!is_alive(browser).await);
    }
    let revoked = world.demo.provider.ledger();
    crate::harness::eventually("all refresh tokens are revoked", || async { revoked.revoked().len() == 3 }).await;
}

fn cloakroom(line: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.arg("sessions").args(line).env_remove("CLOAKROOM_ADMIN_TOKEN").envs(environment.iter().copied());
    command.output().expect("the program")
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    assert!(!text.contains(TOKEN), "{text}");
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_and_ends_sessions() {
    let world = world(with_token()).await;
    let (mut browser, sid) = one_session(&world).await;
    let (mut second, _) = one_session(&world).await;
    let url = format!("http://{}", world.proxy.admin);
    let token = [("CLOAKROOM_ADMIN_TOKEN", TOKEN)];

    let (code, text) = said(&cloakroom(&["list", "--user", ALICE, "--admin", &url], &token));
    assert_eq!((code, text.lines().count()), (Some(0), 3), "{text}");
    assert!(text.starts_with("ID ") && text.contains(ALICE) && text.contains(&sid), "{text}");
    let (code, text) = said(&cloakroom(&["list", "--user", "nobody", "--admin", &url], &token));
    assert_eq!((code, text.as_str()), (Some(0), "no sessions\n"));

    let folder = tempfile::tempdir().expect("a folder");
    let (file, settings) = (folder.path().join("token"), folder.path().join("cloakroom.yaml"));
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    let yaml = world.yaml.replace("@PROXY@", "127.0.0.1:1").replace("@ADMIN@", &world.proxy.admin.to_string());
    std::fs::write(&settings, yaml).expect("a file");
    let (file, settings) = (file.to_str().expect("text"), settings.to_str().expect("text"));
    let revoke = ["revoke", "--provider-session", &sid, "--admin", &url, "--token-file", file];
    let (code, text) = said(&cloakroom(&revoke, &[]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("1 session ended\n"), "{text}");
    assert!(!is_alive(&mut browser).await && is_alive(&mut second).await);

    let secrets =
        [("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("TEST_SECRET", cloakroom::demo::CLIENT_SECRET)];
    let output = cloakroom(&["revoke", "--user", ALICE, "--provider", "demo", "-c", settings, "--json"], &secrets);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["revoked"][0]["user"], ALICE, "{document}");
    assert!(!is_alive(&mut second).await);

    let list = ["list", "--user", ALICE, "--admin", &url];
    for (line, environment, code, hint) in [
        (&list[..], &[][..], 1, "CLOAKROOM_ADMIN_TOKEN"),
        (&list, &[("CLOAKROOM_ADMIN_TOKEN", "wrong")], 1, "admin.token"),
        (&["list", "--user", ALICE, "--admin", "http://127.0.0.1:1"], &token, 1, "admin.address"),
        (&["list", "--user", ALICE, "--provider", "x", "--admin", &url], &token, 1, "demo"),
        (&["list", "--id", "x", "--admin", &url], &token, 1, "list of sessions"),
        (&["list", "--user", ALICE, "-c", "/no/such/file"], &token, 1, "/no/such/file"),
        (&["list", "--user", ALICE, "--admin", &format!("http://{}", world.proxy.address)], &token, 1, "admin.address"),
        (&["revoke", "--admin", &url], &token, 2, "--user"),
        (&["revoke", "--user", ALICE], &token, 2, "--admin"),
    ] {
        let (found, text) = said(&cloakroom(line, environment));
        assert_eq!(found, Some(code), "{line:?}: {text}");
        assert!(text.contains(hint), "{line:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_of_sessions_by_key_and_the_report_on_keys() {
    let wishes = shared();
    let store = wishes.shared.clone();
    let first = world(wishes).await;
    let _browser: Browser = first.logged_in().await;
    drop(first);
    let world = world(Wishes { shared: store, ..shared() }).await;
    crate::harness::eventually("the sessions are counted", || async {
        world.metric("cloakroom_sessions_by_key{key=\"test\"}").await == 1.0
    })
    .await;
    assert!(world.proxy.admin_page("/readyz?verbose").await.1.contains("keys: ready\n"));
    let odd = world
        .replica_with("secret: { env: TEST_KEY }", "secret: \"//////////////////////////////////////////8=\"")
        .await;
    crate::harness::eventually("the other key is noticed", || async {
        let (status, text) = odd.admin_page("/readyz?verbose").await;
        status == StatusCode::OK
            && text.contains("keys: not ready (another replica has another secret under the id test)")
    })
    .await;
}
