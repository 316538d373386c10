//! How HTTP is spoken, whoever the server is: a request goes to the address that somebody wrote down and nowhere else, and
//! an answer is taken as it was sent, up to a length.
//!
//! All clients of the process begin here; `tests/fast/layers.rs` says so.

use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};

/// Begins a client.
///
/// No redirect is followed, of no method. One of a POST makes a GET of it (301, 302, 303), and the answer to that looks like
/// the one to the POST; one of any request carries headers and bodies to a host that nobody named: `reqwest` 0.12 takes
/// `authorization` out there, but neither headers of our own nor S3's session token. That a GET could follow within its host
/// isn't worth the second rule: an address that redirects is mended in one place.
///
/// Nothing is unpacked either, so that a length is one of memory. No feature of `reqwest` that would unpack is on, and another
/// crate that switches one on changes nothing here.
pub fn client() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("aperio/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
}

/// Returns where a redirect points to, as scheme, host and port: the rest may hold secrets. `None` where it says nothing.
pub fn sent_on_to(response: &Response) -> Option<String> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let to = response.url().join(location).ok()?;
    response
        .status()
        .is_redirection()
        .then(|| to.origin().ascii_serialization())
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than any should be, by its own word.
    #[error("its answer has {told} bytes, and {bytes_max} are taken at most")]
    Long {
        /// The length that its head tells.
        told: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// It is longer than any should be, and doesn't tell how long.
    #[error("its answer goes on after {had} bytes, and {bytes_max} are taken at most")]
    Endless {
        /// What had come when it was left.
        had: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It didn't arrive whole.
    #[error(transparent)]
    Failed(#[from] reqwest::Error),
}

/// Waits for a whole body of `bytes_max` at most; what is longer is left where that shows.
///
/// # Errors
/// Any [`BodyError`].
pub async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let told = response.content_length();
    if let Some(told) = told.filter(|told| usize::try_from(*told).is_ok_and(|told| told > bytes_max)) {
        return Err(BodyError::Long { told, bytes_max });
    }
    let mut body = Vec::new();
    // Ends: with the body, or when it has grown beyond its limit.
    while let Some(part) = response.chunk().await? {
        let had = body.len() + part.len();
        if had > bytes_max {
            return Err(BodyError::Endless { had, bytes_max });
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Waits for the first `bytes_max` of a body, or all of a shorter one: as much as a message to people needs.
///
/// # Errors
/// What `reqwest` says where even those don't arrive.
pub async fn beginning(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    // Ends: with the body, or when there is enough of it.
    while let Some(part) = response.chunk().await? {
        let room = bytes_max - body.len();
        body.extend_from_slice(&part[..part.len().min(room)]);
        if body.len() == bytes_max {
            break;
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with this head, and with `part` as often as it is taken, `times` at most.
    async fn answered(head: &str, part: &'static [u8], times: usize) -> Response {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut block = [0; 4096];
            let _ = stream.read(&mut block).expect("a request");
            stream.write_all(head.as_bytes()).expect("it waits for the head");
            // Ends: with the body, or when nobody takes it any more.
            for _ in 0..times {
                if stream.write_all(part).is_err() {
                    return;
                }
            }
        });
        let client = client().build().expect("a client");
        client
            .get(format!("http://{address}/"))
            .send()
            .await
            .expect("an answer")
    }

    const CHUNK: &[u8] = b"8\r\nabcdefgh\r\n";

    #[tokio::test]
    async fn a_body_is_taken_up_to_its_limit_and_both_numbers_are_told() {
        let told = |bytes: u32| format!("200 OK\r\ncontent-length: {bytes}");
        let whole = answered(&told(8), b"abcdefgh", 1).await;
        assert_eq!(body(whole, 8).await.expect("it fits"), b"abcdefgh");
        let long = body(answered(&told(9), b"abcdefghi", 1).await, 8).await;
        let long = long.expect_err("too long").to_string();
        assert_eq!(long, "its answer has 9 bytes, and 8 are taken at most");
        let chunked = "200 OK\r\ntransfer-encoding: chunked";
        let endless = body(answered(chunked, CHUNK, usize::MAX).await, 100_000).await;
        let BodyError::Endless {
            had,
            bytes_max: 100_000,
        } = endless.expect_err("no end")
        else {
            panic!("another error");
        };
        assert!(had > 100_000 && had < 10_000_000, "{had}");
        let short = body(answered(&told(9), b"abcdefgh", 1).await, 9).await;
        assert!(matches!(short, Err(BodyError::Failed(_))), "{short:?}");
        let begun = beginning(answered(chunked, CHUNK, usize::MAX).await, 10).await;
        assert_eq!(begun.expect("enough"), b"abcdefghab");
    }

    #[tokio::test]
    async fn what_is_packed_stays_so() {
        let packed = b"\x1f\x8b\x08\0\0\0\0\0";
        let head = "200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 8";
        let taken = body(answered(head, packed, 1).await, 8).await;
        assert_eq!(taken.expect("bytes"), packed);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_tells_no_more_than_a_host() {
        for status in [301, 302, 303, 307, 308] {
            let to = |location: &str| format!("{status} X\r\nlocation: {location}\r\ncontent-length: 0");
            let elsewhere = answered(&to("https://u:p@login.example:8443/a?token=t"), b"", 0).await;
            assert_eq!(elsewhere.status().as_u16(), status);
            assert_eq!(sent_on_to(&elsewhere).as_deref(), Some("https://login.example:8443"));
            let here = answered(&to("/login"), b"", 0).await;
            assert_eq!(sent_on_to(&here), Some(here.url().origin().ascii_serialization()));
        }
        let created = answered("201 Created\r\nlocation: /a\r\ncontent-length: 0", b"", 0).await;
        assert_eq!(sent_on_to(&created), None);
    }
}
