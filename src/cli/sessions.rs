//! `cloakroom sessions`: who has which sessions, and their end, through the admin listener of a running server.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use url::Url;

use super::FAILED;
use super::admin_listener::{checked, reachable};
use crate::config::{self, Env};
use crate::listener::tls::install_crypto_provider;
use crate::primitives::secret::SecretText;

/// Longest wait for the server.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `sessions` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show sessions
    List(Call),
    /// End sessions, and revoke their refresh tokens at the provider
    Revoke(Call),
}

#[derive(Debug, clap::Args)]
struct Call {
    #[command(flatten)]
    who: Who,
    /// Only sessions of this provider, by its name in the settings
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    provider: Option<String>,
    #[command(flatten)]
    server: Server,
    /// File with the admin token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "token_env"])]
    token_file: Option<PathBuf>,
    /// Environment variable with the admin token
    #[arg(long, value_name = "NAME", default_value = "CLOAKROOM_ADMIN_TOKEN", conflicts_with = "config")]
    token_env: String,
    /// Print the server's JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Who {
    /// All sessions of a user: `sub` at the provider
    #[arg(long, value_name = "SUB")]
    user: Option<String>,
    /// All sessions of one session at the provider: `sid`
    #[arg(long, value_name = "SID")]
    provider_session: Option<String>,
    /// One session, by its id in a list
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Server {
    /// The server's settings file, for address and token of its admin listener
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the admin listener, for example http://127.0.0.1:9090
    #[arg(long, value_name = "URL")]
    admin: Option<Url>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let (call, method) = match &args.what {
        What::List(call) => (call, reqwest::Method::GET),
        What::Revoke(call) => (call, reqwest::Method::DELETE),
    };
    match ask(call, method).and_then(|document| tell(call, &document)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn ask(call: &Call, method: reqwest::Method) -> anyhow::Result<Value> {
    let (mut url, token) = server(call)?;
    url.set_path("/sessions");
    let who = [("user", &call.who.user), ("provider_session", &call.who.provider_session), ("id", &call.who.id)];
    for (name, value) in who.into_iter().chain([("provider", &call.provider)]) {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let place = url.origin().ascii_serialization();
    let (status, body) = runtime.block_on(async {
        // The token goes to the server alone: neither to a proxy nor to where a redirect leads.
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
        let request = client.build()?.request(method, url).bearer_auth(token.expose());
        let answer = request.send().await.map_err(reqwest::Error::without_url).with_context(|| {
            format!("no answer from the admin listener at {place}; does the server run, and is `admin.address` right?")
        })?;
        Ok::<_, anyhow::Error>((answer.status(), answer.text().await.unwrap_or_default()))
    })?;
    let document: Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    match (status.as_u16(), text("error"), text("message")) {
        (200, ..) if document.is_object() => Ok(document),
        (401, Some("unauthorized"), _) => {
            bail!("the admin token is wrong: show the one that the running server has as `admin.token`")
        }
        (_, _, Some(message)) => bail!("the server refuses: {message}"),
        _ => bail!("{place} is no admin listener of Cloakroom (status {status}); look at `admin.address`"),
    }
}

/// Address and token of the admin listener.
fn server(call: &Call) -> anyhow::Result<(Url, SecretText)> {
    if let Some(file) = &call.server.config {
        let loaded = config::load(file, &Env::process()).map_err(|mistakes| {
            anyhow::anyhow!("{}{} mistakes in {}", mistakes.plain(), mistakes.errors(), mistakes.file())
        })?;
        let admin = loaded.settings.admin.context("these settings have no `admin` section: add one, and restart")?;
        let token = admin.token.context("these settings have no `admin.token`: add one, and restart")?;
        return Ok((Url::parse(&format!("http://{}", reachable(admin.address)))?, token));
    }
    let url = checked(call.server.admin.as_ref().context("name the server with -c FILE or --admin URL")?)?;
    let token = match &call.token_file {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => std::env::var(&call.token_env).map_err(|_| {
            anyhow::anyhow!("no admin token: set the variable {}, or name a file with --token-file", call.token_env)
        })?,
    };
    let token = token.trim();
    if token.is_empty() {
        bail!("the admin token is empty");
    }
    Ok((url, SecretText::new(token.to_owned())))
}

fn tell(call: &Call, document: &Value) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let text = if call.json { format!("{document}\n") } else { table(document) };
    // A reader that has gone away is nobody's mistake.
    out.write_all(text.as_bytes()).ok();
    Ok(())
}

const COLUMNS: [(&str, &str); 8] = [
    ("ID", "id"),
    ("USER", "user"),
    ("PROVIDER", "provider"),
    ("SITE", "site"),
    ("PROVIDER SESSION", "provider_session"),
    ("CREATED", "created"),
    ("LAST SEEN", "last_seen"),
    ("ENDS", "ends"),
];

fn table(document: &Value) -> String {
    let revoked = document.get("revoked").is_some();
    let rows = document.get("sessions").or_else(|| document.get("revoked")).and_then(Value::as_array);
    let rows: &[Value] = rows.map_or(&[], Vec::as_slice);
    let end = match (revoked, rows.len()) {
        (false, 0) => return "no sessions\n".to_owned(),
        (true, 0) => return "no sessions ended: there were none\n".to_owned(),
        (false, _) => String::new(),
        (true, 1) => "1 session ended\n".to_owned(),
        (true, many) => format!("{many} sessions ended\n"),
    };
    let cell = |row: &Value, name: &str| {
        let text = row.get(name).and_then(Value::as_str).unwrap_or("-");
        // What a provider put into a name must not steer the terminal.
        text.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect::<String>()
    };
    let widths = COLUMNS.map(|(title, name)| {
        rows.iter().map(|row| cell(row, name).chars().count()).chain([title.len()]).max().unwrap_or_default()
    });
    let line = |cells: [String; COLUMNS.len()]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(COLUMNS.map(|(title, _)| title.to_owned()));
    for row in rows {
        text.push_str(&line(COLUMNS.map(|(_, name)| cell(row, name))));
    }
    text + &end
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_lines_up_and_steers_no_terminal() {
        let session = json!({"id": "k", "user": "al\u{1b}[31mice", "provider": "keycloak", "site": "app.example.com",
            "provider_session": null, "created": "2026-01-01T00:00:00Z", "last_seen": "x", "ends": "y"});
        let text = table(&json!({ "sessions": [session] }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("PROVIDER"), lines[1].find("keycloak"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(table(&json!({ "revoked": [session, session] })).ends_with("2 sessions ended\n"));
        assert_eq!(table(&json!({ "sessions": [] })), "no sessions\n");
        assert!(table(&json!({ "revoked": [] })).contains("there were none"));
    }
}
