//! A trace as a tree for people.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use super::{
    BodyChange, Callback, Callout, ChangeKind, Content, Event, FilterKind, HeaderChange, Subject, Trace, What,
};

/// Longer values are cut, once they are masked.
const MAX_VALUE: usize = 512;

/// The whole tree, each line with its end.
pub fn tree(trace: &Trace) -> String {
    let mut tree = Tree { out: String::new() };
    tree.line(0, &head(trace));
    let names: Vec<String> = trace.filters.iter().map(name).collect();
    tree.line(1, &format!("chain: {}", if names.is_empty() { "no filters".to_owned() } else { names.join(" → ") }));
    for event in &trace.events {
        tree.event(trace, 1, event);
    }
    if trace.omitted > 0 {
        tree.line(1, &format!("… and {} events more", trace.omitted));
    }
    tree.line(1, &times(trace));
    tree.out
}

fn head(trace: &Trace) -> String {
    let took = milliseconds(trace.took);
    let by = trace.answered_by.as_ref().map_or_else(String::new, |filter| format!(" by {}", printable(filter)));
    match trace.kind {
        Subject::Request => {
            let status = trace.status.map_or_else(|| "reset".to_owned(), |status| status.to_string());
            let (method, path, details) = (printable(&trace.method), value(&trace.path), value(&trace.details));
            format!("{method} {path} → {status}{by} ({details}) {took}")
        }
        Subject::Connection => {
            let Trace { connection, request_bytes, response_bytes, details, .. } = trace;
            let by = if by.is_empty() { format!(" by {}", printable(details)) } else { by };
            format!("connection {connection}: {request_bytes} bytes in, {response_bytes} out, closed{by} {took}")
        }
    }
}

fn name(filter: &super::FilterTime) -> String {
    let skipped = if filter.skipped { " (skipped, its VM has failed)" } else { "" };
    format!("{}{skipped}", printable(&filter.name))
}

/// The time in each filter, of the upstream, in all.
fn times(trace: &Trace) -> String {
    let filters = trace.filters.iter().filter(|filter| !filter.skipped);
    let mut times: Vec<String> =
        filters.map(|filter| format!("{} {}", printable(&filter.name), milliseconds(filter.took))).collect();
    if let Some(upstream) = &trace.upstream {
        times.push(match upstream.end.or(upstream.headers) {
            Some(time) => format!("upstream {}", milliseconds(time)),
            None => "upstream no answer".to_owned(),
        });
    }
    times.push(format!("total {}", milliseconds(trace.took)));
    format!("time: {}", times.join(", "))
}

struct Tree {
    out: String,
}

impl Tree {
    fn line(&mut self, depth: usize, text: &str) {
        for _ in 0..depth {
            self.out.push_str("  ");
        }
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn event(&mut self, trace: &Trace, depth: usize, event: &Event) {
        let filter = event.filter.and_then(|filter| trace.filters.get(filter));
        // Within a callback it is clear whose it is.
        let whose = filter.filter(|_| depth == 1).map_or_else(String::new, |filter| printable(&filter.name) + ": ");
        match &event.what {
            What::Message { direction, from, headers, end_of_stream } => {
                let end = if *end_of_stream { ", without a body" } else { "" };
                let upstream = trace.upstream.as_ref().filter(|_| *from == "upstream");
                let address = upstream.map_or_else(String::new, |upstream| {
                    let address =
                        upstream.address.as_ref().map_or_else(|| "built-in echo".to_owned(), |a| printable(a));
                    let took =
                        upstream.headers.map_or_else(String::new, |took| format!(" after {}", milliseconds(took)));
                    format!(" ({address}){took}")
                });
                self.line(depth, &format!("{direction} from the {from}{address}{end}"));
                for (name, text) in headers {
                    self.line(depth + 1, &format!("{}: {}", printable(name), value(text)));
                }
            }
            What::Callback(callback) => {
                let native = filter.is_some_and(|filter| filter.kind == FilterKind::Native);
                if !is_dull(callback, native) {
                    self.callback(trace, depth, &whose, callback);
                }
            }
            What::Log { level, message } => self.line(depth, &format!("{whose}log {level}: {}", value(message))),
            What::Callout(callout) => self.line(depth, &format!("{whose}{}", self::callout(callout))),
            What::LocalReply { status, details, body } => {
                let by = if whose.is_empty() && depth == 1 { "the proxy: ".to_owned() } else { whose };
                let body = if body.bytes == 0 { String::new() } else { format!(", {}", content(body)) };
                self.line(depth, &format!("{by}local reply {status} ({}){body}", value(details)));
            }
            What::Hazard { kind, callback, hostcall, explanation } => {
                let place = [callback.as_str(), hostcall.as_deref().unwrap_or_default()];
                let place: Vec<_> = place.into_iter().filter(|part| !part.is_empty()).map(printable).collect();
                let place = if place.is_empty() { String::new() } else { format!(" ({})", place.join(" ")) };
                self.line(depth, &format!("{whose}hazard {kind}{place}: {}", value(explanation)));
            }
            What::Reset { details } => self.line(depth, &format!("reset ({})", value(details))),
        }
    }

    fn callback(&mut self, trace: &Trace, depth: usize, whose: &str, callback: &Callback) {
        let mut line = format!("{whose}{}", callback.callback);
        if let Some(bytes) = callback.bytes {
            let _ = write!(line, " {bytes} bytes");
        }
        if callback.end_of_stream {
            line.push_str(", end");
        }
        match callback.action {
            Some(action) => {
                let _ = write!(line, " → {action}");
            }
            None if callback.failed => line.push_str(" → failed"),
            None => {}
        }
        self.line(depth, &format!("{line} {}", milliseconds(callback.took)));
        for event in &callback.events {
            self.event(trace, depth + 1, event);
        }
        for change in &callback.headers {
            self.line(depth + 1, &header(change));
        }
        for BodyChange { body, from, to } in &callback.bodies {
            self.line(depth + 1, &format!("~ {body}: {} → {}", content(from), content(to)));
        }
    }
}

/// A callback that says nothing: the end of a stream in a filter that does nothing with it, or a filter of the proxy's
/// own that has nothing to do with this part.
fn is_dull(callback: &Callback, native: bool) -> bool {
    let silent = callback.events.is_empty() && callback.headers.is_empty() && callback.bodies.is_empty();
    let passive = match callback.action {
        Some(action) => native && action == "Continue" && callback.callback != "request_headers",
        None => !callback.failed,
    };
    silent && passive
}

fn header(change: &HeaderChange) -> String {
    let HeaderChange { map, change, name, from, to } = change;
    let name = printable(name);
    let text = |text: &Option<String>| text.as_ref().map_or_else(String::new, |text| value(text));
    // The headers of the message at hand need no saying.
    let map = if map.ends_with("_trailers") { " (trailer)" } else { "" };
    match change {
        ChangeKind::Added => format!("+ {name}: {}{map}", text(to)),
        ChangeKind::Removed => format!("- {name}: {}{map}", text(from)),
        ChangeKind::Changed => format!("~ {name}: {} → {}{map}", text(from), text(to)),
    }
}

fn content(content: &Content) -> String {
    let Content { bytes, excerpt, cut } = content;
    match excerpt {
        Some(text) if *bytes > 0 => format!("{bytes} bytes \"{}{}\"", printable(text), if *cut { "…" } else { "" }),
        _ => format!("{bytes} bytes"),
    }
}

fn callout(callout: &Callout) -> String {
    let Callout { kind, cluster, method, path, bytes, status, took, failure, .. } = callout;
    let outcome = match (status, failure) {
        (_, Some(failure)) => (*failure).to_owned(),
        (Some(status), None) if *kind == "http" => status.to_string(),
        (Some(status), None) => format!("grpc-status {status}"),
        (None, None) if took.is_none() => "no answer before the end".to_owned(),
        (None, None) => "answered".to_owned(),
    };
    let took = took.map_or_else(String::new, |took| format!(" after {}", milliseconds(took)));
    let body = if *bytes == 0 { String::new() } else { format!(", {bytes} bytes") };
    let kind = kind.replace('_', " ");
    format!("callout {kind} {}: {} {}{body} → {outcome}{took}", printable(cluster), printable(method), value(path))
}

fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 10.0 { format!("{milliseconds:.3} ms") } else { format!("{milliseconds:.1} ms") }
}

/// As [`printable`], and not too long.
fn value(text: &str) -> String {
    let cut = text.floor_char_boundary(MAX_VALUE);
    match text.get(..cut) {
        Some(start) if cut < text.len() => printable(start) + "…",
        _ => printable(text),
    }
}

/// `2026-11-27T22:14:26.123456Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (hour, minute, second, micro) = time.to_hms_micro();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z", time.date())
}

/// Whether a terminal obeys this character, or lets it reorder what is around it.
pub(super) fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text that others have written, without what a terminal would obey: it cannot move the cursor, nor begin a line.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) && character != '\t' {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}
