//! The HTTP server of [`Observed`]: four pages, each made when it is asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::Observed;

/// Connections served at once; more wait. A scraper and a few probes need one each.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take to say what it wants.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// How long one connection is kept, however often it is used: idle ones must not keep others out.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// The wait after a connection couldn't be taken, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Binds `address` and answers on it as long as the runtime lives.
///
/// - returns the address that is listened on, its port found where `address` names 0.
///
/// # Errors
/// As the operating system says: the port is taken, the address isn't this machine's.
pub async fn start(address: SocketAddr, observed: Arc<Observed>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    info!(%address, "serving /metrics, /health/live, /health/ready and /status");
    tokio::spawn(accept(listener, observed));
    Ok(address)
}

async fn accept(listener: TcpListener, observed: Arc<Observed>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Ends with the runtime.
    loop {
        let slot = Arc::clone(&slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection isn't taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let observed = Arc::clone(&observed);
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = respond(&observed, request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_WAIT)
                .serve_connection(TokioIo::new(stream), answer);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_LIFE, connection).await {
                debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
}

fn respond(observed: &Observed, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let response = Response::builder();
    let answer = if !matches!(*method, Method::GET | Method::HEAD) {
        response
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD")
            .body(Full::default())
    } else if let Some(page) = observed.page(path) {
        let status = match page.well {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        response
            .status(status)
            .header(CONTENT_TYPE, page.content_type)
            .body(Full::from(page.text))
    } else {
        let pages = "there is /metrics, /health/live, /health/ready and /status\n";
        response.status(StatusCode::NOT_FOUND).body(Full::from(pages))
    };
    answer.expect("constant headers make a response")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::memory::Memory;
    use crate::observe::metrics::Metrics;
    use crate::observe::{Phase, Table};

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn each_page_has_its_status_and_a_taken_port_is_told() {
        let table: Arc<Table> = Arc::default();
        let observed = Arc::new(Observed {
            run: "r".into(),
            metrics: Metrics::new(),
            tables: vec![Arc::clone(&table)],
            memory: Memory::new(1),
            started: Instant::now(),
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = start(any, Arc::clone(&observed)).await.expect("a free port");
        for (request, status) in [
            ("GET /metrics", "200 OK"),
            ("HEAD /metrics", "200 OK"),
            ("GET /status?pretty", "200 OK"),
            ("GET /health/live", "200 OK"),
            ("GET /health/ready", "503 Service Unavailable"),
            ("POST /metrics", "405 Method Not Allowed"),
            ("GET /metrics/", "404 Not Found"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        }
        table.enters(Phase::Running);
        assert!(ask(address, "GET /health/ready").await.starts_with("HTTP/1.1 200"));
        let taken = start(address, observed).await.expect_err("it is taken");
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    }
}
