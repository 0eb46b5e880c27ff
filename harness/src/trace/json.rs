//! A trace as one line of JSON, as `docs/trace.md` describes it.

use std::fmt::Write as _;

use super::Trace;
use super::text::is_obeyed;

/// One line without its end. What a terminal would obey is escaped, as JSON escapes it.
pub fn line(trace: &Trace) -> String {
    // Every field is a number, a text, or a list of those: there is nothing that could not be written.
    let json = serde_json::to_string(trace).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    if !json.contains(is_obeyed) {
        return json;
    }
    // Outside of texts there are no such characters.
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_obeyed(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // A string takes everything.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}
