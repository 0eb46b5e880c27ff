//! Requests and responses as tests write and read them.

use crate::LocalResponse;
use crate::host::Header;

/// Headers, body and trailers of a request or a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub(super) headers: Vec<Header>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<Header>,
}

/// Makes a GET request for `path` at the host `localhost`.
pub fn get(path: &str) -> Message {
    request("GET", path)
}

/// Makes a POST request for `path` at the host `localhost`.
pub fn post(path: &str) -> Message {
    request("POST", path)
}

/// Makes a request for `path` at the host `localhost`.
pub fn request(method: &str, path: &str) -> Message {
    let pseudo = [(":authority", "localhost"), (":path", path), (":method", method), (":scheme", "http")];
    pseudo.into_iter().fold(Message::default(), |message, (name, value)| message.header(name, value))
}

/// Makes an empty response.
pub fn response(status: u16) -> Message {
    Message::default().header(":status", status.to_string())
}

/// Makes the message that Envoy makes of a local response.
pub(super) fn from_local(local: &LocalResponse) -> Message {
    let mut message = response(local.status).body(local.body.clone());
    for (name, value) in &local.headers {
        message = message.header(name, value);
    }
    if local.body.is_empty() {
        return message.without("content-type").without("content-length");
    }
    message = message.without("content-length").header("content-length", local.body.len().to_string());
    let typed = !message.values("content-type").is_empty();
    if typed { message } else { message.header("content-type", "text/plain") }
}

impl Message {
    /// Adds a header. `host` is `:authority` under another name, of which there is one.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut name = name;
        if name.eq_ignore_ascii_case("host") {
            name = ":authority";
            self = self.without(name);
        }
        self.headers.push((name.to_ascii_lowercase().into_bytes(), value.as_ref().to_vec()));
        self
    }

    /// Removes all headers of a name, pseudo-headers too, for messages that nobody should send.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name.as_bytes()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push((name.to_ascii_lowercase().into_bytes(), value.as_ref().to_vec()));
        self
    }

    /// Returns all trailers as `name: value`, in order.
    pub fn trailer_lines(&self) -> Vec<String> {
        self.trailers.iter().map(line).collect()
    }

    /// Returns the values of all headers of a name, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| std::str::from_utf8(value).unwrap_or("<not UTF-8>")).collect()
    }

    /// Returns all headers but the pseudo-headers as `name: value`, in order.
    pub fn lines(&self) -> Vec<String> {
        let fields = self.headers.iter().filter(|(key, _)| !key.starts_with(b":"));
        fields.map(line).collect()
    }

    /// Returns the body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }
}

fn line((name, value): &Header) -> String {
    format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
}
