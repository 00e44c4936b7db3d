//! The request that is asked about, read without changing its path: whether that is ambiguous is the proxy's to say.

use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// A request that might come.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    /// As it was given.
    pub(super) url: String,
    /// Whether the browser speaks TLS.
    pub(super) tls: bool,
    /// Port of the address.
    pub(super) port: u16,
    /// As it goes over the wire.
    pub(super) raw_path: String,
    /// Path and query.
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// What could not be taken as it was given.
    pub(super) notes: Vec<String>,
}

impl Question {
    /// Reads a command line.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub(super) fn parse(method: &str, url: &str, fields: &[String]) -> Result<Self, String> {
        let no_url =
            || format!("`{url}` is no address: write it as in a browser, for example https://app.example.com/api");
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("`{method}` is no method: write for example GET or POST"))?;
        if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(format!("methods are written in capitals: {}", method.as_str().to_ascii_uppercase()));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(no_url)?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(no_url()),
        };
        let mut notes = Vec::new();
        let (rest, fragment) = rest.split_once('#').map_or((rest, false), |(rest, _)| (rest, true));
        if fragment {
            notes.push("browsers keep what follows `#` to themselves: it was left out".to_owned());
        }
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at).ok_or_else(no_url)?,
            None => (rest, ""),
        };
        if authority.is_empty() {
            return Err(no_url());
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if path.is_empty() { "/" } else { path };
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| no_url())?);
        for field in fields {
            let (name, value) = read_field(field)?;
            // Sessions are in the store of the server, which is not asked here, and keys of tokens at providers.
            if matches!(name, COOKIE | AUTHORIZATION) {
                notes.push(format!(
                    "`{name}` counts for conditions of routes only: no session is looked up here, no token judged"
                ));
            }
            headers.append(name, value);
        }
        Ok(Self {
            method,
            url: url.to_owned(),
            tls,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            raw_path: path.to_owned(),
            // What is no URI at all is refused for its path.
            uri: target.parse().unwrap_or_default(),
            headers,
            notes,
        })
    }
}

fn read_field(field: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("`{field}` is no header field: write for example --header \"Accept: text/html\"");
    let (name, value) = field.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?))
}
