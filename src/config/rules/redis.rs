//! The URL of a Redis: one server, the primary that Sentinels name, or a cluster.

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// What is wrong with the URL of a Redis. Never shows any of it: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// No URL at all.
    #[error("this is no URL")]
    Syntax,
    /// The scheme decides how to connect.
    #[error(
        "this is no Redis URL: it begins with none of `redis://`, `redis-sentinel://`, `redis-cluster://` and, for TLS, \
         `rediss://`, `rediss-sentinel://`, `rediss-cluster://`"
    )]
    Scheme,
    /// `redis:///0` and the like.
    #[error("this Redis URL names no host")]
    NoHost,
    /// Nothing listens there.
    #[error("port 0 of this Redis URL is no port")]
    Port,
    /// The path is the number of the database.
    #[error("the path of this Redis URL is not the number of a database (0 to 255)")]
    Database,
    /// There is but database 0 in a cluster.
    #[error("a Redis cluster has no databases; leave the path out")]
    ClusterDatabase,
    /// Escapes that make no text.
    #[error("user or password of this Redis URL are no UTF-8 text")]
    Credentials,
    /// They would go unheeded.
    #[error(
        "a parameter of this Redis URL means nothing here: only `node`, and for Sentinel `sentinelServiceName`, \
         `sentinelUsername` and `sentinelPassword`, each once but `node`"
    )]
    Parameters,
    /// One server is one.
    #[error("parameters of this Redis URL (`?` or `#` and what follows) mean nothing for a single server")]
    SingleParameters,
    /// Another Sentinel or node.
    #[error("a `node` of this Redis URL is not `host:port`")]
    Node,
    /// Sentinels may watch several primaries.
    #[error("this Redis URL does not say which primary the Sentinels watch: add `?sentinelServiceName=mymaster`")]
    ServiceName,
}

/// A Redis URL, read.
pub struct RedisUrl {
    /// Whether all connections use TLS.
    pub tls: bool,
    /// Servers to begin with: the one, the Sentinels, or some nodes of the cluster.
    pub hosts: Vec<(String, u16)>,
    /// Who asks, at the servers that hold data.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<String>,
    /// Number of the database.
    pub database: Option<u8>,
    /// What stands there.
    pub kind: RedisKind,
}

/// Kinds of deployment.
pub enum RedisKind {
    /// One server.
    Single,
    /// Whichever server the Sentinels call primary.
    Sentinel {
        /// The name that the primary goes by.
        service: String,
        /// Who asks the Sentinels.
        username: Option<String>,
        /// Their password.
        password: Option<String>,
    },
    /// Redis Cluster.
    Cluster,
}

impl RedisUrl {
    /// Whether the URL holds a secret.
    #[must_use]
    pub fn holds_a_password(&self) -> bool {
        self.password.is_some() || matches!(&self.kind, RedisKind::Sentinel { password: Some(_), .. })
    }
}

/// Reads
/// - `redis[s]://[[user:]password@]host[:port][/database]`
/// - `redis[s]-sentinel://[[user:]password@]host[:port][/database]?sentinelServiceName=name[&node=host:port]…`
///   `[&sentinelUsername=…][&sentinelPassword=…]`
/// - `redis[s]-cluster://[[user:]password@]host[:port][?node=host:port]…`
///
/// # Errors
/// [`RedisUrlError`]
pub fn redis_url(text: &str) -> Result<RedisUrl, RedisUrlError> {
    let url = Url::parse(text).map_err(|_| RedisUrlError::Syntax)?;
    let (tls, form) = match url.scheme() {
        "redis" => (false, Form::Single),
        "rediss" => (true, Form::Single),
        "redis-sentinel" => (false, Form::Sentinel),
        "rediss-sentinel" => (true, Form::Sentinel),
        "redis-cluster" => (false, Form::Cluster),
        "rediss-cluster" => (true, Form::Cluster),
        _ => return Err(RedisUrlError::Scheme),
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(RedisUrlError::NoHost)?;
    if url.port() == Some(0) {
        return Err(RedisUrlError::Port);
    }
    let port = if form == Form::Sentinel { 26379 } else { 6379 };
    let database = match url.path().strip_prefix('/').unwrap_or_default() {
        "" => None,
        _ if form == Form::Cluster => return Err(RedisUrlError::ClusterDatabase),
        number => Some(number.parse().map_err(|_| RedisUrlError::Database)?),
    };
    let mut parsed = RedisUrl {
        tls,
        hosts: vec![(bare(host), url.port().unwrap_or(port))],
        username: decoded(url.username())?,
        password: url.password().map(decoded).transpose()?.flatten(),
        database,
        kind: if form == Form::Cluster { RedisKind::Cluster } else { RedisKind::Single },
    };
    if form == Form::Single {
        let more = url.query().is_some() || url.fragment().is_some();
        return if more { Err(RedisUrlError::SingleParameters) } else { Ok(parsed) };
    }
    let [mut service, mut username, mut password] = [const { None }; 3];
    for (name, value) in url.query_pairs() {
        let once = match (&*name, form) {
            ("node", _) => {
                parsed.hosts.push(node(&value)?);
                continue;
            }
            ("sentinelServiceName", Form::Sentinel) => &mut service,
            ("sentinelUsername", Form::Sentinel) => &mut username,
            ("sentinelPassword", Form::Sentinel) => &mut password,
            _ => return Err(RedisUrlError::Parameters),
        };
        if once.replace(value.into_owned()).is_some() {
            return Err(RedisUrlError::Parameters);
        }
    }
    if url.fragment().is_some() {
        return Err(RedisUrlError::Parameters);
    }
    if form == Form::Sentinel {
        let service = service.filter(|name| !name.is_empty()).ok_or(RedisUrlError::ServiceName)?;
        parsed.kind = RedisKind::Sentinel { service, username, password };
    }
    Ok(parsed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Sentinel,
    Cluster,
}

/// An IPv6 address has brackets in a URL, and must have none where it is resolved. `url` parses hosts of schemes it does
/// not know as text, so the brackets are looked for.
fn bare(host: &str) -> String {
    match (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')), Host::parse(host)) {
        (Some(bare), Ok(Host::Ipv6(_))) => bare.to_owned(),
        _ => host.to_owned(),
    }
}

fn decoded(part: &str) -> Result<Option<String>, RedisUrlError> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| RedisUrlError::Credentials)?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

fn node(text: &str) -> Result<(String, u16), RedisUrlError> {
    let (host, port) = text.rsplit_once(':').ok_or(RedisUrlError::Node)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(RedisUrlError::Node)?;
    let host = bare(host);
    if host.is_empty() || host.contains(['/', '@', ' ']) { Err(RedisUrlError::Node) } else { Ok((host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<(String, u16)> {
        redis_url(text).unwrap_or_else(|error| panic!("{text}: {error}")).hosts
    }

    fn host(name: &str, port: u16) -> (String, u16) {
        (name.to_owned(), port)
    }

    #[test]
    fn each_kind_is_read() {
        assert_eq!(hosts("redis://cache.example.com"), [host("cache.example.com", 6379)]);
        assert_eq!(hosts("redis://cache/"), [host("cache", 6379)]);
        assert_eq!(hosts("redis://127.0.0.1:7000/3"), [host("127.0.0.1", 7000)]);
        assert_eq!(hosts("redis://[::1]:7000"), [host("::1", 7000)]);
        let url = redis_url("rediss://alice:p%40ss@cache/3").unwrap();
        assert_eq!((url.username.as_deref(), url.password.as_deref()), (Some("alice"), Some("p@ss")));
        assert!(url.tls && url.database == Some(3) && url.holds_a_password());

        let url =
            "redis-sentinel://:pw@s1/1?sentinelServiceName=main&node=s2:26380&node=[::1]:1&sentinelPassword=p%26q";
        assert_eq!(hosts(url), [host("s1", 26379), host("s2", 26380), host("::1", 1)]);
        let RedisKind::Sentinel { service, username, password } = redis_url(url).unwrap().kind else { panic!("{url}") };
        assert_eq!((service.as_str(), username, password.as_deref()), ("main", None, Some("p&q")));
        assert!(redis_url("redis-sentinel://s1?sentinelServiceName=m&sentinelPassword=p").unwrap().holds_a_password());

        let url = "rediss-cluster://n1:7000?node=n2:7001";
        assert_eq!(hosts(url), [host("n1", 7000), host("n2", 7001)]);
        let url = redis_url(url).unwrap();
        assert!(url.tls && matches!(url.kind, RedisKind::Cluster) && !url.holds_a_password());
    }

    #[test]
    fn d3_mistakes_in_a_redis_url_are_named_without_the_password() {
        for (text, expected) in [
            ("hunter2", RedisUrlError::Syntax),
            ("redis://:hunter2@cache:port", RedisUrlError::Syntax),
            ("redis-sentinel://:hunter2@s1:1,s2:2/main", RedisUrlError::Syntax),
            ("hunter2://cache", RedisUrlError::Scheme),
            ("http://:hunter2@cache", RedisUrlError::Scheme),
            ("redis:///1", RedisUrlError::NoHost),
            ("redis://:hunter2@cache:0", RedisUrlError::Port),
            ("redis://:hunter2@cache/sessions", RedisUrlError::Database),
            ("redis://:hunter2@cache/256", RedisUrlError::Database),
            ("redis://:hunter2@cache//3", RedisUrlError::Database),
            ("redis://:hunter2%ff@cache", RedisUrlError::Credentials),
            ("redis://:hunter2@cache?db=3", RedisUrlError::SingleParameters),
            ("redis-cluster://:hunter2@cache/1", RedisUrlError::ClusterDatabase),
            ("redis-cluster://:hunter2@cache?nodes=a:1", RedisUrlError::Parameters),
            ("redis-cluster://:hunter2@cache?node=a", RedisUrlError::Node),
            ("redis-cluster://:hunter2@cache?node=a:0", RedisUrlError::Node),
            ("redis-cluster://:hunter2@cache?node=hunter2@a:1", RedisUrlError::Node),
            ("redis-cluster://:hunter2@cache?sentinelServiceName=a", RedisUrlError::Parameters),
            ("redis-sentinel://:hunter2@s1", RedisUrlError::ServiceName),
            ("redis-sentinel://:hunter2@s1/main", RedisUrlError::Database),
            ("redis-sentinel://:hunter2@s1?sentinelServiceName=", RedisUrlError::ServiceName),
            ("redis-sentinel://s1?sentinelServiceName=a&sentinelServiceName=hunter2", RedisUrlError::Parameters),
            ("redis-sentinel://s1?sentinelServiceName=a#hunter2", RedisUrlError::Parameters),
        ] {
            let Err(error) = redis_url(text) else { panic!("{text} is taken") };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert_eq!(error, expected, "{text}");
        }
    }
}
