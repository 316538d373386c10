//! The client of a bucket, from Iceberg's file-io properties.

use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};
use reqwest::Method;
use reqwest::header::{HeaderValue, IF_NONE_MATCH};

use super::Access;
use crate::http;

/// How long one request to S3 may take; an 8 MiB part passes even at 100 KB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a TCP and TLS handshake with S3 may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait between two attempts at a request.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A request is signed once for all its attempts, and S3 takes a signature of up to 15 minutes ago; `object_store` asks
/// for less than 5 (0.13.2, `RetryConfig`).
const RETRY_TIMEOUT_MAX: Duration = Duration::from_secs(240);
/// Attempts at a request: never reached, since the time is over first.
const RETRIES_MAX: usize = 10_000;

/// Makes the HTTP clients of a bucket and of its credentials. Those of `object_store` 0.13.2 follow redirects: of a PUT that is
/// answered with 303 they make a GET, whose answer, an object that was there before, they take for the write's.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows = options.get_config_value(&ClientConfigKey::AllowHttp);
        // Who asks a machine for its credentials waits less for a connection, in the words of `humantime`.
        let connect = options.get_config_value(&ClientConfigKey::ConnectTimeout);
        let connect = connect.and_then(|text| humantime::parse_duration(&text).ok());
        let client = http::client()
            .https_only(allows.as_deref() != Some("true"))
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(connect.unwrap_or(CONNECT_TIMEOUT))
            .build();
        client
            .map(|client| HttpClient::new(OnCondition(HttpClient::new(client))))
            .map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: Box::new(error),
            })
    }
}

/// Sets up the client; nothing is contacted yet.
pub(super) fn client(bucket: &str, access: &Access) -> object_store::Result<AmazonS3> {
    let get = |key: &str| access.properties.get(key).map(String::as_str);
    let client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: PAUSE_MAX,
            ..BackoffConfig::default()
        },
        max_retries: RETRIES_MAX,
        retry_timeout: access.retry_for.min(RETRY_TIMEOUT_MAX),
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(client)
        .with_http_connector(Connector)
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(region) = get("s3.region").or_else(|| get("client.region")) {
        builder = builder.with_region(region);
    }
    if let Some(id) = get("s3.access-key-id") {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = get("s3.secret-access-key") {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = get("s3.session-token") {
        builder = builder.with_token(token);
    }
    if let Some(lent) = &access.lent {
        builder = builder.with_credentials(std::sync::Arc::new(lent.clone()));
    }
    let path_style = get("s3.path-style-access").map(|v| v.eq_ignore_ascii_case("true"));
    match (get("s3.endpoint"), path_style) {
        (Some(endpoint), Some(false)) => {
            // Host-style: `object_store` wants the bucket in the endpoint then.
            let endpoint = endpoint.trim_end_matches('/');
            let endpoint = endpoint.replacen("://", &format!("://{bucket}."), 1);
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_virtual_hosted_style_request(true)
                .with_endpoint(endpoint);
        }
        (Some(endpoint), _) => {
            builder = builder
                .with_allow_http(endpoint.starts_with("http://"))
                .with_virtual_hosted_style_request(false)
                .with_endpoint(endpoint.trim_end_matches('/'));
        }
        (None, style) => {
            builder = builder.with_virtual_hosted_style_request(style == Some(false));
        }
    }
    builder.build()
}

/// Completes an upload in parts only where there is no object yet.
///
/// `object_store` 0.13.2 can ask for that in a whole put and not for parts (`aws/mod.rs`, `CompleteMultipartMode::Overwrite`).
/// The header comes after the signature, which covers those of its time: S3 wants `host` and `x-amz-*` signed, no others.
///
/// Source: S3 API reference, `CompleteMultipartUpload`, `If-None-Match`; "Authenticating Requests", `SignedHeaders`.
#[derive(Debug)]
struct OnCondition(HttpClient);

#[async_trait]
impl HttpService for OnCondition {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if completes_parts(request.method(), request.uri().query()) {
            request
                .headers_mut()
                .insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        self.0.execute(request).await
    }
}

/// Says whether a request is `CompleteMultipartUpload`; the other `POST`s, such as `?uploads` and `?delete`, name no upload.
fn completes_parts(method: &Method, query: Option<&str>) -> bool {
    let names_upload = |pair: &str| pair.starts_with("uploadId=");
    *method == Method::POST && query.is_some_and(|query| query.split('&').any(names_upload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_completed_on_condition_and_nothing_else_is() {
        let check = |method: Method, query: Option<&str>, expect: bool| {
            assert_eq!(completes_parts(&method, query), expect, "{method} {query:?}");
        };
        check(Method::POST, Some("uploadId=abc"), true);
        check(Method::POST, Some("x=1&uploadId=abc"), true);
        check(Method::POST, Some("uploads"), false);
        check(Method::POST, Some("delete"), false);
        check(Method::POST, None, false);
        check(Method::PUT, Some("partNumber=1&uploadId=abc"), false);
        check(Method::DELETE, Some("uploadId=abc"), false);
    }
}
