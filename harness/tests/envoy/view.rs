//! What was seen of one scenario in one of the proxies, freed of what is incidental.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::sync::LazyLock;

use crate::client::REQUEST_ID;
use crate::site::Site;

/// Everything that is compared.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct View {
    /// Why the chain was refused.
    pub(crate) refused: Option<String>,
    pub(crate) responses: Vec<String>,
    pub(crate) upstream: Vec<String>,
    /// What clusters were asked, each question once: how many VMs ask is not what is compared.
    pub(crate) called: Vec<String>,
    pub(crate) logs: Vec<String>,
    /// Method, status and response code details of each request.
    pub(crate) access: Vec<String>,
}

impl View {
    /// Takes what the servers behind saw.
    pub(crate) fn take_seen(&mut self, site: &Site) {
        self.upstream = site.seen.lock().unwrap().iter().map(|request| without_incidental(request)).collect();
        let called = site.called.iter().flat_map(|(name, seen)| {
            let questions: BTreeSet<String> =
                seen.lock().unwrap().iter().map(|question| without_incidental(question)).collect();
            questions.into_iter().map(move |question| format!("{name} {question}"))
        });
        self.called = called.collect();
    }

    /// Line by line, for a person; lines that only one has are marked.
    pub(crate) fn difference(&self, ours: &Self) -> String {
        let mut text = String::new();
        let sections = [
            ("responses", &self.responses, &ours.responses),
            ("upstream", &self.upstream, &ours.upstream),
            ("called", &self.called, &ours.called),
            ("logs", &self.logs, &ours.logs),
            ("access", &self.access, &ours.access),
        ];
        if self.refused != ours.refused {
            let _ = writeln!(text, "  refused\n    Envoy:   {:?}\n    harness: {:?}", self.refused, ours.refused);
        }
        for (name, envoy, ours) in sections {
            if envoy != ours {
                let _ = writeln!(text, "  {name} (- Envoy, + harness)");
                let lines = |list: &[String]| -> Vec<String> {
                    list.iter().flat_map(|item| item.lines()).map(str::to_owned).collect()
                };
                diff(&lines(envoy), &lines(ours), &mut text);
            }
        }
        text
    }
}

/// The longest common subsequence is what is not marked.
fn diff(left: &[String], right: &[String], text: &mut String) {
    let (n, m) = (left.len(), right.len());
    let mut common = vec![vec![0_usize; m + 1]; n + 1];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            common[i][j] =
                if left[i] == right[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < n || j < m {
        let (mark, line) = if i < n && j < m && left[i] == right[j] {
            (i, j) = (i + 1, j + 1);
            (' ', &left[i - 1])
        } else if j < m && (i == n || common[i][j + 1] > common[i + 1][j]) {
            j += 1;
            ('+', &right[j - 1])
        } else {
            i += 1;
            ('-', &left[i - 1])
        };
        let _ = writeln!(text, "    {mark} {line}");
    }
}

/// A plugin's or script's log line without what differs by nature; `None` for the proxy's own talk.
pub(crate) fn log_line(level: &str, line: &str, id: &str) -> Option<String> {
    if let Some((callback, _)) = line.strip_prefix("Function: ").and_then(|line| line.split_once(" failed: ")) {
        return Some(format!("trap in {callback}"));
    }
    let text = if let Some((prefix, message)) = line.strip_prefix("wasm log ").and_then(|line| line.split_once(": ")) {
        let mut parts = prefix.split(' ');
        let filter = parts.next()?.strip_prefix(id)?.trim_start_matches('.').to_owned();
        let root = if parts.next().is_none() { "(root)" } else { "" };
        format!("{filter}{root}: {message}")
    } else if let Some(message) = line.strip_prefix("script log: ") {
        format!("lua: {message}")
    } else {
        return None;
    };
    let text = if level == "info" { text } else { format!("[{level}] {text}") };
    Some(without_incidental(&text))
}

/// Times, ports and identifiers that the system chose.
pub(crate) fn without_incidental(text: &str) -> String {
    let text = after(text, "127.0.0.1:", "PORT");
    let text = without_request_id(&text);
    // In the place of a loopback address Envoy names this machine's own.
    let text = OWN_ADDRESS.as_ref().map_or_else(|| text.clone(), |own| text.replace(own, "127.0.0.1"));
    let text = after(&text, "x-envoy-upstream-service-time=", "MS");
    let text = without_date(&text);
    after(&text, "x-envoy-upstream-service-time: ", "MS")
}

static OWN_ADDRESS: LazyLock<Option<String>> = LazyLock::new(|| {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it is only looked up where it would be sent from.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip().to_string())
});

/// A request id that the proxy made.
fn without_request_id(text: &str) -> String {
    let mut out = text.to_owned();
    for marker in ["x-request-id=", "x-request-id: "] {
        let mut from = 0;
        while let Some(at) = out[from..].find(marker) {
            from += at + marker.len();
            let random = out[from..].len() >= 36
                && out[from..from + 36].bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
                && out[from..from + 36] != *REQUEST_ID;
            if random {
                out.replace_range(from..from + 36, "UUID");
            }
        }
    }
    out
}

/// The date of now, as a header in a plugin's log.
fn without_date(text: &str) -> String {
    let Some((before, date)) = text.split_once("|date=") else { return text.to_owned() };
    match date.split_once(" GMT") {
        Some((day, rest)) if !day.contains("1970") => format!("{before}|date=NOW{rest}"),
        _ => text.to_owned(),
    }
}

fn after(text: &str, marker: &str, instead: &str) -> String {
    let mut parts = text.split(marker);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let _ = write!(out, "{marker}{}{rest}", if rest.len() < part.len() { instead } else { "" });
    }
    out
}
