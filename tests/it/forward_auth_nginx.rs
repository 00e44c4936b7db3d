//! The example for nginx in docs/how-to/forward-auth.md, as it stands there, with a real nginx between browser and
//! application.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use reqwest::{Method, StatusCode};

use crate::backchannel_kit::ALICE;
use crate::harness::{Browser, PATIENCE, SESSION, Wishes, XSRF, eventually, free_address};
use crate::kit::*;

/// Gone when dropped.
struct Nginx {
    process: Child,
    directory: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nginx {
    /// A machine without nginx fails the test: an example that was not tried is none.
    async fn start(address: SocketAddr, server: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = directory.path().to_str().expect("text");
        let temporary =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {home};\n"));
        let settings = format!(
            "daemon off;\nmaster_process off;\npid {home}/pid;\nerror_log {home}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{}\n{server}}}\n",
            temporary.concat()
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, settings).expect("settings");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(home).arg("-e").arg(format!("{home}/error.log")).arg("-c").arg(&file);
        let process = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is needed: apt-get install nginx-light");
        let nginx = Self { process, directory };
        let listens = async || tokio::net::TcpStream::connect(address).await.is_ok();
        tokio::time::timeout(PATIENCE, eventually("nginx listens", listens))
            .await
            .unwrap_or_else(|_| panic!("{}", nginx.log()));
        nginx
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

/// The block of the page that is marked so.
fn block(page: &str, mark: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{mark}\n")).expect("such a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_keeps_out_lets_in_and_lets_no_client_name_itself() {
    let (front, questions) = (free_address(), free_address());
    let world = world(Wishes {
        listener: format!(" }}, {{ address: \"{questions}\", forward_auth: x_original"),
        more: "trusted_proxies: [127.0.0.1]".into(),
        routes: r#"
      - { path: /open/, upstream: demo, access: public }
      - { path: /closed/, upstream: demo, allow: [{ claim: department, equals: sales }] }
      - { path: /, upstream: demo, identity_headers: { X-User-Id: sub } }
"#
        .into(),
        ..Wishes::default()
    })
    .await;
    let page = include_str!("../../docs/how-to/forward-auth.md");
    let mut server = block(page, "nginx");
    for (placeholder, value) in [
        ("listen 443 ssl;", format!("listen {front};")),
        ("app.example.com", "127.0.0.1".into()),
        ("cloakroom.internal:8080", world.proxy.address.to_string()),
        ("cloakroom.internal:8081", questions.to_string()),
        ("app.internal:3000", world.demo.upstream.address().to_string()),
    ] {
        assert!(server.contains(placeholder), "{placeholder}");
        server = server.replace(placeholder, &value);
    }
    let server: String = server.lines().filter(|line| !line.contains("ssl_")).map(|line| format!("{line}\n")).collect();
    let nginx = Nginx::start(front, &server).await;
    let (mut browser, recorder) = (Browser::new(front), world.demo.upstream.recorder());

    let answer = browser.fetch("/data").await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::UNAUTHORIZED, "session_missing"),
        "{answer:?} {}",
        nginx.log()
    );
    let answer = browser.navigate("/data?x=1").await;
    assert_eq!(answer.status, StatusCode::FOUND, "{answer:?} {}", nginx.log());
    assert_eq!(answer.location(), format!("http://{front}/auth/login?return_to=%2Fdata%3Fx%3D1"));
    // What a client says of the original request, or of itself, counts for nothing.
    for (name, value) in [
        ("x-original-url", format!("http://{front}/open/x")),
        ("x-original-method", "OPTIONS".to_owned()),
        ("x-forwarded-uri", "/open/x".to_owned()),
        ("x-forwarded-host", "evil.example.com".to_owned()),
        ("content-type", "application/grpc".to_owned()),
    ] {
        let draft = browser.draft(Method::GET, "/data").header(name, &value);
        assert_eq!(browser.send(draft).await.status, StatusCode::UNAUTHORIZED, "{name}");
    }
    assert_eq!(recorder.count(), 0, "nothing went upstream");

    browser.log_in(answer.location().split_once(&browser.origin()).expect("ours").1).await;
    browser.set_cookie("theirs", "1");
    let draft = browser
        .draft(Method::GET, "/data?x=1")
        .header("x-user-id", "root")
        .header("authorization", "Bearer evil")
        .header("x-user-context", "e30");
    let answer = browser.send(draft).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?} {}", nginx.log());
    let received = recorder.last().expect("a request");
    assert_eq!(received.header_all("authorization"), [format!("Bearer {}", newest(&world).access_token)]);
    assert_eq!(received.header_all("x-user-id"), [ALICE]);
    assert_eq!(received.header("x-user-context"), None);
    assert_eq!(received.header_all("cookie"), ["theirs=1"], "our cookies stay in front");
    assert!(answer.headers.get("authorization").is_none(), "{answer:?}");
    // The listener of browsers answers no question, whoever asks.
    let draft = browser.draft(Method::GET, "/auth/check").header("x-original-method", "GET");
    let answer = browser.send(draft.header("x-original-url", &format!("http://{front}/data"))).await;
    assert_eq!((answer.status, answer.headers.get("authorization")), (StatusCode::NOT_FOUND, None));

    recorder.clear();
    let draft = browser.draft(Method::POST, "/data").body("x");
    assert_eq!(browser.send(draft).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.fetch("/closed/x").await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.fetch("/open/..%2fdata").await.status, StatusCode::FORBIDDEN);
    assert_eq!(recorder.count(), 0, "nothing went upstream");
    assert!(browser.cookie(XSRF).is_some() && browser.cookie(SESSION).is_some());
    assert_eq!(browser.write(Method::POST, "/data", "x").await.status, StatusCode::OK, "{}", nginx.log());
    assert_eq!(browser.fetch("/open/x").await.status, StatusCode::OK);
    let received = recorder.last().expect("a request");
    assert_eq!((received.header("authorization"), received.header("x-user-id")), (None, None));
}
