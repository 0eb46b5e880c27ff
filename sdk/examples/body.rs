//! Bodies and trailers: redacts card numbers in a response as it streams by, and says so in a trailer.

use plugwright_sdk::{Answer, AsyncPlugin, ConfigError, Host, LocalResponse, Request};
use serde::de::IgnoredAny;

/// Longer runs of digits than this are hidden.
const MOST_DIGITS: usize = 12;

/// Hides card numbers.
pub struct Redact;

impl AsyncPlugin for Redact {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    async fn on_request(&self, request: Request) -> Answer {
        let mut body = request.into_body();
        if body.whole().await?.len() > 1024 {
            return Err(LocalResponse::new(413));
        }
        let mut response = body.forward().await;
        if response.is_end() {
            return Ok(());
        }
        // The length may change, and has to be said before the body.
        response.remove_header("content-length")?;
        let mut body = response.into_body();
        let mut hidden = 0;
        while let Some(chunk) = body.chunk().await? {
            let (redacted, found) = redact(&chunk);
            if found > 0 {
                body.replace(&redacted)?;
                hidden += found;
            }
        }
        body.trailers().await?.set_header("x-redacted", &hidden.to_string())?;
        Ok(())
    }
}

/// The text without long runs of digits, and how many there were. One that two chunks share is not found.
fn redact(text: &[u8]) -> (Vec<u8>, usize) {
    let (mut out, mut found) = (Vec::new(), 0);
    for run in text.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        if run.len() > MOST_DIGITS && run.iter().all(u8::is_ascii_digit) {
            out.extend_from_slice(b"(hidden)");
            found += 1;
        } else {
            out.extend_from_slice(run);
        }
    }
    (out, found)
}

plugwright_sdk::register!(async Redact);

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::{Message, Proxy, get, post, response};

    use super::Redact;

    fn proxy(upstream: Message) -> Proxy<Redact> {
        plugwright_sdk::proxy!(Redact, "examples/body").configure("{}").unwrap().upstream(upstream)
    }

    #[test]
    fn long_numbers_are_hidden_and_counted() {
        let upstream = response(200).header("content-length", "34").body("card 4111111111111111, order 12345");
        let exchange = proxy(upstream).send(get("/"));
        let response = exchange.response().unwrap();
        assert_eq!(String::from_utf8_lossy(response.bytes()), "card (hidden), order 12345");
        assert_eq!(response.trailer_lines(), ["x-redacted: 1"]);
        assert!(response.values("content-length").is_empty());
    }

    #[test]
    fn trailers_that_are_there_stay() {
        let exchange = proxy(response(200).body("fine").trailer("x-checksum", "7")).send(get("/"));
        assert_eq!(exchange.response().unwrap().trailer_lines(), ["x-checksum: 7", "x-redacted: 0"]);
        assert_eq!(exchange.response().unwrap().bytes(), b"fine");
    }

    #[test]
    fn a_response_without_a_body_has_no_trailers_either() {
        let exchange = proxy(response(204)).send(get("/"));
        assert_eq!((exchange.status(), exchange.response().unwrap().trailer_lines().len()), (204, 0));
    }

    #[test]
    fn requests_may_be_a_kibibyte_long() {
        let mut proxy = proxy(response(200));
        let exchange = proxy.send(post("/").body("x".repeat(1024)).trailer("x-sum", "1"));
        assert_eq!(exchange.forwarded().unwrap().bytes().len(), 1024);
        assert_eq!(exchange.forwarded().unwrap().trailer_lines(), ["x-sum: 1"]);
        assert_eq!(proxy.send(post("/").body("x".repeat(1025))).status(), 413);
    }
}
