//! Everything a person reads: on standard error, without secrets and without what a terminal would obey.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError, RwLock};

use harness::abi::LogLevel;
use harness::hazard::{Hazard, HazardKind};
use harness::log::{ConnectionSummary, RequestSummary, Sink};
use harness::page::Page;
use harness::trace::mask::Mask;
use harness::trace::text::printable;
use harness::trace::{Settings, Trace, json, text};
use mesh::model::{EnvValue, Extension, FilterKind};
use mesh::plan::Plan;
use time::OffsetDateTime;

use crate::shown;

/// Prints one line.
pub(crate) fn say(line: &str) {
    // There is nobody to tell when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What is printed of each request and connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Off,
    /// One line.
    #[default]
    Line,
    /// A tree.
    Full,
    /// One line of JSON.
    Json,
}

impl Mode {
    /// By its name on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "line" => Self::Line,
            "full" => Self::Full,
            "json" => Self::Json,
            _ => return None,
        })
    }

    /// What is to be recorded for it, and for a page, which has room for more of a body.
    pub(crate) fn settings(self, show_secrets: bool, page: bool) -> Option<Settings> {
        let printed = matches!(self, Self::Full | Self::Json);
        let settings = Settings { show_secrets, ..Settings::default() };
        match (printed, page) {
            (true, _) => Some(settings),
            (false, true) => Some(Settings { excerpt: 4096, ..settings }),
            (false, false) => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Stderr {
    mode: Mode,
    /// `None`: secrets are shown.
    mask: Option<RwLock<Mask>>,
    hazards: Mutex<BTreeMap<HazardKey, u64>>,
    page: Option<Page>,
}

/// Where a hazard is: the same one is printed once and counted from then on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct HazardKey {
    kind: HazardKind,
    filter: String,
    callback: String,
    hostcall: Option<String>,
}

impl std::fmt::Display for HazardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())?;
        for part in [Some(&self.filter), Some(&self.callback), self.hostcall.as_ref()].into_iter().flatten() {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        Ok(())
    }
}

impl Stderr {
    pub(crate) fn new(mode: Mode, show_secrets: bool, page: Option<Page>, plan: &Plan) -> Self {
        let mask = (!show_secrets).then(|| RwLock::new(Mask::new(&environment(plan))));
        Self { mode, mask, hazards: Mutex::default(), page }
    }

    /// Shows a plan's chain on the page, if there is one.
    pub(crate) fn show(&self, plan: &Plan, address: &str) {
        if let Some(page) = &self.page {
            let mask = self.mask.as_ref().map(|mask| mask.read().unwrap_or_else(PoisonError::into_inner));
            page.know("chain", &shown::chain(plan, address, mask.as_deref()));
        }
    }

    /// Shows something else there.
    pub(crate) fn know(&self, name: &str, value: &serde_json::Value) {
        let known = ["configuration", "build", "tests"].into_iter().find(|known| *known == name);
        if let (Some(page), Some(name)) = (&self.page, known) {
            page.know(name, value);
        }
    }

    /// What is secret in another plan is masked, too.
    pub(crate) fn learn(&self, plan: &Plan) {
        if let Some(mask) = &self.mask {
            mask.write().unwrap_or_else(PoisonError::into_inner).know(environment(plan));
        }
    }

    /// One line for each hazard that was met.
    pub(crate) fn hazards(&self) -> Vec<String> {
        let hazards = self.hazards.lock().unwrap_or_else(PoisonError::into_inner);
        hazards.iter().map(|(hazard, count)| format!("{count} × {hazard}")).collect()
    }

    fn shown(&self, text: &str) -> String {
        match &self.mask {
            Some(mask) => printable(&mask.read().unwrap_or_else(PoisonError::into_inner).text(text)),
            None => printable(text),
        }
    }

    fn line(&self, level: LogLevel, of: &str, line: &str) {
        say(&format!("[{}][{}][{of}] {}", timestamp(OffsetDateTime::now_utc()), level.as_str(), self.shown(line)));
    }
}

impl Sink for Stderr {
    fn log(&self, level: LogLevel, line: &str) {
        self.line(level, "wasm", line);
    }

    fn script(&self, level: LogLevel, line: &str) {
        self.line(level, "lua", line);
    }

    fn hazard(&self, hazard: &Hazard<'_>) {
        let key = HazardKey {
            kind: hazard.kind,
            filter: hazard.filter.to_owned(),
            callback: hazard.callback.to_owned(),
            hostcall: hazard.hostcall.map(str::to_owned),
        };
        let first = {
            let mut hazards = self.hazards.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hazards.entry(key).or_default();
            *count += 1;
            *count == 1
        };
        if first {
            let place = [hazard.filter, hazard.callback, hazard.hostcall.unwrap_or_default()];
            let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
            let (name, place) = (hazard.kind.name(), printable(&place.join(" ")));
            let explanation = self.shown(hazard.explanation);
            say(&format!("hazard {name} ({place}): {explanation}; in Envoy: {}", hazard.kind.in_envoy()));
        }
    }

    fn connection(&self, connection: &ConnectionSummary<'_>) {
        if self.mode != Mode::Line {
            return;
        }
        let ConnectionSummary { id, received, sent, .. } = connection;
        let by = match connection.closed_by {
            Some(filter) => filter,
            None if connection.by_client => "the client",
            None => "this side",
        };
        let took = connection.duration.as_secs_f64() * 1e3;
        say(&format!("connection {id}: {received} bytes in, {sent} out, closed by {by} {took:.1} ms"));
    }

    fn request(&self, request: &RequestSummary<'_>) {
        if self.mode != Mode::Line {
            return;
        }
        let status = request.status.map_or_else(|| "reset".to_owned(), |status| status.to_string());
        let by = request.answered_by.map_or_else(String::new, |filter| format!(" by {filter}"));
        let took = request.duration.as_secs_f64() * 1e3;
        // A query may carry a token; the path is enough to tell requests apart.
        let path =
            request.path.split_once('?').map_or_else(|| request.path.to_owned(), |(path, _)| path.to_owned() + "?…");
        let (method, path, details) = (printable(request.method), self.shown(&path), self.shown(request.details));
        say(&format!("{method} {path} → {status}{by} ({details}) {took:.1} ms"));
    }

    fn trace(&self, trace: &Trace) {
        if let Some(page) = &self.page {
            page.trace(trace);
        }
        let shown = match self.mode {
            Mode::Off | Mode::Line => return,
            Mode::Full => text::tree(trace),
            Mode::Json => json::line(trace) + "\n",
        };
        // In one piece, so that other workers' lines are not within it.
        let _ = std::io::stderr().lock().write_all(shown.as_bytes());
    }

    fn takes_traced_lines(&self) -> bool {
        matches!(self.mode, Mode::Off | Mode::Line)
    }
}

/// The values in the environments of a plan's plugins.
fn environment(plan: &Plan) -> Vec<String> {
    let filters = [Some(&plan.chain), plan.network.as_ref()].into_iter().flatten().flat_map(|chain| &chain.filters);
    let plugins = filters.filter_map(|filter| match &filter.kind {
        FilterKind::Extension(extension) => Extension::wasm(extension),
        FilterKind::BuiltIn(_) => None,
    });
    let inline = plugins.flat_map(|wasm| &wasm.env).filter_map(|variable| match &variable.value {
        EnvValue::Inline(value) => Some(value.clone()),
        EnvValue::Host => None,
    });
    inline.chain(plan.host_env.values().cloned()).collect()
}

/// `YYYY-MM-DD HH:MM:SS.mmm` in UTC, as Envoy's log has it.
fn timestamp(now: OffsetDateTime) -> String {
    let (hour, minute, second, millisecond) = now.to_hms_milli();
    format!("{} {hour:02}:{minute:02}:{second:02}.{millisecond:03}", now.date())
}
