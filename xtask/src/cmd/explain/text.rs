//! The explanation for people: the chain in one line, then a table.

use mesh::model::{Filter, Phase};

use super::{Explained, Fetch, extension};

/// The columns of a chain.
const HEAD: [&str; 6] = ["#", "name", "phase", "priority", "from", "why"];

pub(super) fn lines(explained: &Explained, all: bool) -> Vec<String> {
    let chain = &explained.chain;
    let mut lines = vec![if all { chain.to_string() } else { chain.brief() }, String::new()];
    let rows = chain.filters.iter().enumerate().map(|(index, filter)| row(index, filter));
    lines.extend(table([HEAD.map(str::to_owned)].into_iter().chain(rows).collect()));
    if !chain.left_out.is_empty() {
        lines.extend([String::new(), "left out".to_owned()]);
        let rows = chain
            .left_out
            .iter()
            .map(|out| [format!("{} {}/{}", out.kind, out.namespace, out.name), out.reason.clone()]);
        lines.extend(table(rows.collect()).into_iter().map(|line| format!("  {line}")));
    }
    if !explained.fetches.is_empty() {
        lines.extend([String::new(), "modules".to_owned()]);
        lines.extend(explained.fetches.iter().map(|(id, fetch)| format!("  {id}: {}", self::fetch(fetch))));
    }
    if let Some(changes) = &explained.changes {
        lines.push(String::new());
        lines.push(if changes.is_empty() { "nothing changes in the chain" } else { "changes" }.to_owned());
        lines.extend(changes.iter().map(|change| format!("  {change}")));
    }
    if !explained.warnings.is_empty() {
        lines.extend([String::new(), "warnings".to_owned()]);
        let text = explained
            .warnings
            .iter()
            .flat_map(|warning| warning.to_string().lines().map(|line| format!("  {line}")).collect::<Vec<_>>());
        lines.extend(text);
    }
    lines
}

fn row(index: usize, filter: &Filter) -> [String; 6] {
    let (mut phase, mut priority, mut from) = ("", String::new(), "proxy".to_owned());
    if let Some(extension) = extension(&filter.kind) {
        phase = match extension.phase {
            Phase::Unspecified => "-",
            Phase::Authn => "AUTHN",
            Phase::Authz => "AUTHZ",
            Phase::Stats => "STATS",
        };
        priority = extension.priority.map_or("-".to_owned(), |priority| priority.to_string());
        let origin = &extension.origin;
        from = format!("{} {}:{}", extension.id(), origin.file, origin.line);
    }
    [(index + 1).to_string(), filter.name().to_owned(), phase.to_owned(), priority, from, filter.reason.clone()]
}

/// Columns as wide as their widest cell; the last one is as long as it is.
fn table<const N: usize>(rows: Vec<[String; N]>) -> Vec<String> {
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: [String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.into_iter().map(line).collect()
}

fn fetch(fetch: &Fetch) -> String {
    let secret = match (&fetch.pull_secret, fetch.secret_given) {
        (None, _) => String::new(),
        (Some(name), true) => format!("; with Secret {name}"),
        (Some(name), false) => format!("; with Secret {name}, which is not in the given files"),
    };
    match &fetch.explanation {
        Ok(explanation) => format!("{explanation}{secret}"),
        Err(error) => format!("cannot be fetched: {error}"),
    }
}
