//! A bare Pingora proxy, and the upstream behind both.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::Response;
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::prelude::{HttpPeer, ProxyHttp, Server, Session};
use pingora::protocols::http::ServerSession;
use pingora::server::configuration::ServerConf;
use pingora::services::listening::Service;
use pingora_proxy::http_proxy_service;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.total_connection_timeout = Some(Duration::from_secs(4));
        peer.options.read_timeout = Some(Duration::from_secs(60));
        peer.options.write_timeout = Some(Duration::from_secs(60));
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }
}

/// `bare LISTEN UPSTREAM`
pub(crate) fn proxy(arguments: &[String]) {
    let mut server = server(1);
    let mut service = http_proxy_service(&server.configuration, Bare { upstream: address(arguments, 3) });
    service.add_tcp(&address(arguments, 2).to_string());
    server.add_service(service);
    server.run_forever();
}

struct Hello;

#[async_trait]
impl ServeHttp for Hello {
    async fn response(&self, _: &mut ServerSession) -> Response<Vec<u8>> {
        let body = vec![b'x'; 1024];
        let mut response = Response::new(body);
        response.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from_static("1024"));
        response
    }
}

/// `upstream LISTEN`
pub(crate) fn upstream(arguments: &[String]) {
    let mut server = server(1);
    let mut service = Service::new("upstream".to_owned(), HttpServer::new_app(Hello));
    service.add_tcp(&address(arguments, 2).to_string());
    server.add_service(service);
    server.run_forever();
}

fn server(threads: usize) -> Server {
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 1024, max_retries: 3, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    server
}

fn address(arguments: &[String], position: usize) -> SocketAddr {
    arguments.get(position).and_then(|text| text.parse().ok()).expect("an address")
}
