//! The client as `openidconnect` wants it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use url::Url;

use super::{Client, Endpoint, Error};
use crate::oidc::credentials::Credentials;

impl Client {
    /// This client for one endpoint.
    pub(in crate::oidc) fn endpoint(&self, endpoint: Endpoint) -> Call {
        Call { client: self.clone(), endpoint, url: None, total: self.limits.total, credentials: None }
    }
}

/// A [`Client`] bound to one endpoint.
pub(in crate::oidc) struct Call {
    client: Client,
    endpoint: Endpoint,
    url: Option<Url>,
    total: Duration,
    credentials: Option<Arc<Credentials>>,
}

impl Call {
    /// Proves with each request that it is ours.
    pub(in crate::oidc) fn proving(mut self, credentials: &Arc<Credentials>) -> Self {
        self.credentials = Some(credentials.clone());
        self
    }

    /// Sends to this address, whatever the request says.
    pub(in crate::oidc) fn to(mut self, url: Url) -> Self {
        self.url = Some(url);
        self
    }

    /// Waits as long as a refresh may take.
    pub(in crate::oidc) fn for_refresh(mut self) -> Self {
        self.total = self.client.limits.refresh;
        self
    }
}

impl<'c> AsyncHttpClient<'c> for Call {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Error>> + Send + 'c>>;

    fn call(&'c self, mut request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            if let Some(url) = &self.url {
                *request.uri_mut() = url.as_str().parse().map_err(|_| Error::Invalid)?;
            }
            match &self.credentials {
                Some(proofs) => self.client.send_proved(self.endpoint, &request, self.total, proofs, None).await,
                None => self.client.send(self.endpoint, request, self.total, None).await,
            }
        })
    }
}
