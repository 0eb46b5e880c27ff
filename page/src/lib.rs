//! The trace page: one HTML document without anything from elsewhere, live in the harness or as the report of a test run.
//!
//! What it shows is text to it, whoever wrote it: the script makes elements and gives them text, the policy refuses
//! markup from texts (trusted types) and any script or style but the page's own, which it knows by their hashes.

use std::fmt::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const DOCUMENT: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// In one scope, in this order.
const SCRIPTS: [&str; 5] = [
    include_str!("js/elements.js"),
    include_str!("js/diff.js"),
    include_str!("js/trace.js"),
    include_str!("js/panels.js"),
    include_str!("js/page.js"),
];

/// Where a server has the page, and beneath it `/events`.
pub const PATH: &str = "/__plugwright";

/// A document and the policy that it is to be served with.
#[derive(Debug)]
pub struct Document {
    /// The document, in UTF-8. It carries the policy, too.
    pub html: String,
    /// The value of `content-security-policy`.
    pub policy: String,
}

/// The page that follows the events beneath its own address.
pub fn live() -> &'static Document {
    static LIVE: OnceLock<Document> = OnceLock::new();
    LIVE.get_or_init(|| document("live", "Plugwright", "'self'", "null"))
}

/// A document that shows `data` without a server: `{"title": …, "suites": […]}`, each suite as `suites::outcome` has it.
///
/// ```
/// let report = page::report(&serde_json::json!({"title": "</script>", "suites": []}));
/// assert!(report.contains(r#"{"suites":[],"title":"\u003c/script\u003e"}"#));
/// ```
pub fn report(data: &Value) -> String {
    let title = data.get("title").and_then(Value::as_str).unwrap_or("Test report");
    document("report", title, "'none'", &json_in_html(data)).html
}

fn document(mode: &str, title: &str, connect: &str, data: &str) -> Document {
    let script = script();
    let directives = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src {connect}; img-src data:; base-uri 'none'; \
         form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        source(script),
        source(STYLE),
    );
    let title = text_in_html(title);
    let part = |place: &str| match place {
        "mode" => mode,
        "title" => &title,
        "policy" => &directives,
        "style" => STYLE,
        "script" => script,
        "data" => data,
        _ => "",
    };
    let mut pieces = DOCUMENT.split("{{");
    let mut html = pieces.next().unwrap_or_default().to_owned();
    for (place, rest) in pieces.filter_map(|piece| piece.split_once("}}")) {
        html.push_str(part(place));
        html.push_str(rest);
    }
    // A document itself cannot say who may frame it.
    Document { html, policy: format!("{directives}; frame-ancestors 'none'") }
}

fn script() -> &'static str {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    SCRIPT.get_or_init(|| format!("\"use strict\";\n(() => {{\n{}}})();\n", SCRIPTS.concat()))
}

/// How a policy names an inline script or style.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// JSON in which nothing ends an element or begins one.
fn json_in_html(data: &Value) -> String {
    let json = data.to_string();
    let mut escaped = String::with_capacity(json.len() + json.len() / 16);
    for character in json.chars() {
        match character {
            // Outside of texts there are no such characters.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // A string takes everything.
                let _ = write!(escaped, "\\u{:04x}", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

fn text_in_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
        let begin = text.find(start).unwrap_or_else(|| panic!("no {start}")) + start.len();
        &text[begin..begin + text[begin..].find(end).unwrap_or_else(|| panic!("no {end}"))]
    }

    #[test]
    fn the_policy_knows_the_documents_own_script_and_style_and_no_others() {
        let live = live();
        for text in [between(&live.html, "<style>", "</style>"), between(&live.html, "<script>", "</script>")] {
            assert!(live.policy.contains(&source(text)), "{}", live.policy);
        }
        assert_eq!(live.html.matches("<script").count(), 2, "the data and the script");
        for word in ["unsafe-", "http:", "https:", "*"] {
            assert!(!live.policy.contains(word), "{}", live.policy);
        }
        assert!(live.html.contains(&format!("content=\"{}\"", live.policy.replace("; frame-ancestors 'none'", ""))));
    }

    #[test]
    fn nothing_is_fetched_and_nothing_becomes_markup() {
        for text in SCRIPTS {
            for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "://"] {
                assert!(!text.contains(word), "{word}");
            }
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        assert!(!DOCUMENT.contains("src=") && !DOCUMENT.contains("style=") && !DOCUMENT.contains(" on"));
    }

    #[test]
    fn a_report_holds_any_text_as_text() {
        let hostile = "</script><script>alert(1)</script><!-- \u{2028}\u{2029}& {{script}} {{data}} \"'";
        let html = report(&json!({"title": hostile, "suites": [{"file": hostile, "cases": []}]}));
        let data = between(&html, "<script type=\"application/json\" id=\"data\">", "</script>");
        assert!(!data.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{data}");
        let read: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read["suites"][0]["file"], hostile);
        assert!(!html.contains("alert(1)</script>"));
        assert!(html.contains("connect-src 'none'"));
    }

    #[test]
    fn every_place_of_the_document_is_filled() {
        for html in [&live().html, &report(&json!({}))] {
            for place in ["mode", "title", "policy", "style", "script", "data"] {
                assert!(!html.contains(&format!("{{{{{place}}}}}")), "{place}");
            }
        }
    }
}
