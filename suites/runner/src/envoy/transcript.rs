//! What a plugin did in Envoy, callback by callback, from wasm's traces in the log.
//!
//! A callback is `[host->vm] NAME(ARGUMENTS)` up to `[host<-vm] NAME return: VALUE`; calls of the plugin's allocator are
//! within others, and what it asked of the host is `[vm->host] MODULE.NAME(ARGUMENTS)`.

use super::log::Line;

/// A callback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Vec<u64>,
    /// The value it came to its end with; 0 where it has none.
    pub(crate) returned: Option<u64>,
    /// Level and message.
    pub(crate) lines: Vec<(String, String)>,
    /// The arguments of the local response that it asked for.
    pub(crate) replied: Option<Vec<u64>>,
    /// It asked for the time.
    pub(crate) asked_time: bool,
    /// Why it did not come to its end.
    pub(crate) failed: Option<String>,
}

impl Call {
    /// The context that it is for.
    pub(crate) fn context(&self) -> u64 {
        self.arguments.first().copied().unwrap_or_default()
    }

    /// It has not come to its end.
    pub(crate) fn is_open(&self) -> bool {
        self.returned.is_none() && self.failed.is_none()
    }

    /// What it returned is to go on; a callback without a value does.
    pub(crate) fn continues(&self) -> bool {
        matches!(self.returned, Some(0 | 2))
    }
}

/// The thread that everything is prepared on; it has a VM of the plugin, too.
pub(crate) fn main_thread(lines: &[Line]) -> Option<&str> {
    lines.iter().find(|line| line.is_start()).map(|line| line.thread.as_str())
}

/// The worker's callbacks, in order.
pub(crate) fn calls(lines: &[Line]) -> Vec<Call> {
    let main = main_thread(lines).unwrap_or_default();
    let mut calls: Vec<Call> = Vec::new();
    let mut depth = 0_usize;
    // Before there is a main thread there is no worker.
    let started = lines.iter().skip_while(|line| !line.is_start());
    let worker = started.filter(|line| line.thread != main && line.logger == "wasm");
    for line in worker {
        let text = line.text.as_str();
        if let Some(call) = text.strip_prefix("[host->vm] ") {
            if depth == 0 {
                let (name, arguments) = split(call);
                calls.push(Call { name: name.to_owned(), arguments, ..Call::default() });
            }
            depth += 1;
            continue;
        }
        let Some(call) = calls.last_mut() else { continue };
        if let Some(returned) = text.strip_prefix("[host<-vm] ") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                let value = returned.rsplit_once("return: ").map(|(_, value)| value.trim());
                call.returned = Some(value.and_then(|value| value.parse().ok()).unwrap_or_default());
            }
        } else if let Some(asked) = text.strip_prefix("[vm->host] ") {
            let (name, arguments) = split(asked);
            match name.rsplit('.').next().unwrap_or_default() {
                "proxy_send_local_response" => call.replied = Some(arguments),
                "clock_time_get" | "proxy_get_current_time_nanoseconds" => call.asked_time = true,
                _ => {}
            }
        } else if text.starts_with("Function: ") && text.contains(" failed: ") {
            call.failed = Some(text.lines().next().unwrap_or_default().to_owned());
            depth = 0;
        } else if let Some((_, message)) = text.strip_prefix("wasm log").and_then(|rest| rest.split_once(": ")) {
            call.lines.push((line.level.clone(), message.to_owned()));
        }
    }
    calls
}

/// A name and the numbers in parentheses behind it.
fn split(call: &str) -> (&str, Vec<u64>) {
    let (name, rest) = call.split_once('(').unwrap_or((call, ""));
    let arguments = rest.trim_end_matches(')').split(", ").filter_map(|argument| argument.trim().parse().ok());
    (name, arguments.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(thread: &str, level: &str, text: &str) -> Line {
        Line { thread: thread.to_owned(), level: level.to_owned(), logger: "wasm".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_callback_has_its_lines_its_answer_and_its_end() {
        let lines = [
            line("1", "info", "wasm log p: of the main thread's VM"),
            line("1", "info", "all dependencies initialized. starting workers"),
            line("2", "trace", "[host->vm] proxy_on_request_headers(2, 8, 0)"),
            line("2", "trace", "[vm->host] env.proxy_get_header_map_pairs(0, 1, 2)"),
            line("1", "trace", "[host->vm] proxy_on_tick(1)"),
            line("2", "trace", "[host->vm] malloc(20)"),
            line("2", "trace", "[host<-vm] malloc return: 1052016"),
            line("2", "warning", "wasm log p root: a: b\nsecond"),
            line("2", "trace", "[vm->host] env.proxy_send_local_response(401, 1, 30, 1, 0, 1, 49, 4294967295)"),
            line("2", "trace", "[vm<-host] env.proxy_send_local_response return: 0"),
            line("2", "trace", "[host<-vm] proxy_on_request_headers return: 1"),
            line("2", "trace", "[host->vm] proxy_on_log(2)"),
            line("2", "error", "Function: proxy_on_log failed: Uncaught RuntimeError: unreachable\nProxy-Wasm trace"),
            line("2", "trace", "[host->vm] proxy_on_done(2)"),
        ];
        let calls = calls(&lines);
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["proxy_on_request_headers", "proxy_on_log", "proxy_on_done"]);
        assert_eq!(calls[0].arguments, [2, 8, 0]);
        assert_eq!(calls[0].returned, Some(1));
        assert_eq!(calls[0].lines, [("warning".to_owned(), "a: b\nsecond".to_owned())]);
        assert_eq!(calls[0].replied.as_ref().and_then(|reply| reply.last()), Some(&4_294_967_295));
        assert_eq!(
            calls[1].failed.as_deref(),
            Some("Function: proxy_on_log failed: Uncaught RuntimeError: unreachable")
        );
        assert_eq!(calls[2].returned, None);
    }
}
