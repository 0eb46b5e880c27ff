//! What plugins do that Envoy answers with a hang, a crash, or a truncated or corrupted response.
//!
//! The harness does not imitate it. It says so, by name, with the filter, the callback and the hostcall.

use crate::header_map::HeaderMap;
use crate::stream::state::StreamState;

/// The hazards, by what the plugin did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HazardKind {
    /// A body was changed and its `content-length` was not.
    ContentLength,
    /// A direction was resumed in the very callback whose answer decides about it.
    ResumeInCallback,
    /// A direction was resumed that the plugin had not paused.
    ResumeWithoutPause,
    /// A local response was asked for after the response's headers had gone out.
    ReplyAfterHeaders,
    /// A local response was asked for from `on_log` or `on_done`.
    ReplyWhenDone,
    /// A second local response was asked for.
    DoubleReply,
    /// A header map was used in a callback in which it is not there.
    MapOutOfPhase,
    /// A direction was paused, and the stream ended before it was resumed.
    PauseWithoutResume,
    /// CR, LF or NUL in a header.
    HeaderControlCharacter,
    /// A local response's status is outside 200–599.
    Status,
    /// A log line has the value of a header that carries credentials.
    SecretInLog,
    /// The VM's memory only grows, over ten thousand requests.
    MemoryGrowth,
}

impl HazardKind {
    /// The hazard's name, for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::ContentLength => "content-length",
            Self::ResumeInCallback => "resume-in-callback",
            Self::ResumeWithoutPause => "resume-without-pause",
            Self::ReplyAfterHeaders => "local-response-after-headers",
            Self::ReplyWhenDone => "local-response-when-done",
            Self::DoubleReply => "double-local-response",
            Self::MapOutOfPhase => "header-map-out-of-phase",
            Self::PauseWithoutResume => "pause-without-resume",
            Self::HeaderControlCharacter => "control-character-in-header",
            Self::Status => "status-out-of-range",
            Self::SecretInLog => "secret-in-log",
            Self::MemoryGrowth => "memory-growth",
        }
    }

    /// What Envoy makes of it.
    pub fn in_envoy(self) -> &'static str {
        match self {
            Self::ContentLength => "a longer body corrupts the next message on the connection, a shorter one hangs it",
            Self::ResumeInCallback => "the next filter is called twice, the body is never delivered, or Envoy crashes",
            Self::ResumeWithoutPause => "the next filter is called twice, or Envoy crashes",
            Self::ReplyAfterHeaders => "the client gets a truncated response",
            Self::ReplyWhenDone => "Envoy crashes",
            Self::DoubleReply => "the first one is sent, with the details of the last",
            Self::MapOutOfPhase => "the hostcall answers BadArgument, on which the SDKs panic: 503",
            Self::PauseWithoutResume => "the request hangs until somebody gives up",
            Self::HeaderControlCharacter => "a request gets 503, a response is split in two",
            Self::Status => "it is written as it is, and clients choke on it",
            Self::SecretInLog => "it is in the proxy's log",
            Self::MemoryGrowth => "the worker's memory grows until the VM cannot allocate and traps",
        }
    }
}

/// One occurrence. The texts have no header values and no bodies.
#[derive(Debug)]
pub struct Hazard<'a> {
    /// Which.
    pub kind: HazardKind,
    /// The plugin: `namespace.name`.
    pub filter: &'a str,
    /// The callback it happened in, as the module exports it; empty when it was in none.
    pub callback: &'a str,
    /// The hostcall that did it, as the module imports it.
    pub hostcall: Option<&'a str>,
    /// What happened, as a sentence without a full stop.
    pub explanation: &'a str,
}

/// Headers whose values are credentials.
const SECRET: &[&str] = &[
    "api-key",
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-access-token",
    "x-api-key",
    "x-auth-token",
];
/// Shorter values occur in log lines by chance.
const SHORTEST_SECRET: usize = 8;

/// The name of the header whose credentials `line` repeats.
pub(crate) fn secret_in(line: &str, stream: &StreamState) -> Option<String> {
    let maps = [Some(&stream.request_headers), stream.response_headers.as_ref()];
    maps.into_iter().flatten().find_map(|headers| secret_of(line, headers))
}

fn secret_of(line: &str, headers: &HeaderMap) -> Option<String> {
    headers.iter().find_map(|(name, value)| {
        let name = SECRET.iter().find(|secret| secret.as_bytes() == name)?;
        let value = str::from_utf8(value).ok()?;
        let secrets: Vec<&str> = match *name {
            "cookie" => value.split(';').filter_map(|pair| Some(pair.split_once('=')?.1)).collect(),
            "set-cookie" => value.split(';').take(1).filter_map(|pair| Some(pair.split_once('=')?.1)).collect(),
            // The scheme is none.
            _ => vec![value.split_once(' ').map_or(value, |(_, credentials)| credentials)],
        };
        let repeated = |secret: &&str| secret.trim().len() >= SHORTEST_SECRET && line.contains(secret.trim());
        secrets.iter().any(repeated).then(|| (*name).to_owned())
    })
}

/// Whether a header would end its line, or the text that Envoy keeps it in.
pub(crate) fn has_control_character(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// Watches one VM's memory, which never shrinks: a plugin that has warmed up needs no more for the next request.
#[derive(Debug, Default)]
pub(crate) struct MemoryWatch {
    streams: u32,
    last: usize,
    growths: u32,
    first: usize,
}

impl MemoryWatch {
    const WINDOW: u32 = 1000;
    const WINDOWS: u32 = 10;
    /// Windows in which growth is normal: caches fill, an allocator's arenas do.
    const WARM_UP: u32 = 2;
    const SUSPICIOUS: u32 = 4;

    /// One more stream is over; `size` gives the memory's bytes. What it grew from and to, when it only grows.
    pub(crate) fn ended(&mut self, size: impl FnOnce() -> usize) -> Option<(usize, usize)> {
        self.streams += 1;
        if !self.streams.is_multiple_of(Self::WINDOW) {
            return None;
        }
        let (size, window) = (size(), self.streams / Self::WINDOW);
        if window <= Self::WARM_UP {
            self.first = size;
        } else {
            self.growths += u32::from(size > self.last);
        }
        self.last = size;
        if window < Self::WINDOWS {
            return None;
        }
        let grown = (self.growths >= Self::SUSPICIOUS).then_some((self.first, size));
        *self = Self::default();
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_only_grows_is_told_from_memory_that_warms_up() {
        let run = |size: fn(usize) -> usize| {
            let mut watch = MemoryWatch::default();
            (0..10_000).filter_map(|n| watch.ended(|| size(n))).collect::<Vec<_>>()
        };
        assert_eq!(run(|n| 100 + n / 500).len(), 1);
        assert_eq!(run(|_| 100), []);
        assert_eq!(run(|n| if n < 2000 { n } else { 2000 }), []);
        assert_eq!(run(|n| if n < 5000 { 1 } else { 2 }), []);
    }

    #[test]
    fn credentials_are_found_whatever_header_carries_them() {
        let mut headers = HeaderMap::default();
        for (name, value) in [
            ("authorization", "Bearer abcdefgh1234"),
            ("cookie", "a=1; session=s3cr3t-session"),
            ("x-user", "somebody"),
        ] {
            headers.add(name.as_bytes(), value.as_bytes()).unwrap();
        }
        assert_eq!(secret_of("token abcdefgh1234 seen", &headers).as_deref(), Some("authorization"));
        assert_eq!(secret_of("jar: s3cr3t-session", &headers).as_deref(), Some("cookie"));
        assert_eq!(secret_of("somebody has a Bearer token, a=1", &headers), None);
    }
}
