//! Which code was reached: as text, as JSON, and as LCOV's tracefile for editors and services.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::text::line;
use crate::coverage::{Count, Coverage, Function};

/// What is to be done where functions have no names.
const NAMES: &str = "the module has no names, so that functions are shown by their index; keep its name section: for a \
                     crate, name the plugin instead of its module; with Go, no `-s` in -ldflags; with AssemblyScript, \
                     `--debug`; with others, no stripping";

/// For people: how much was reached, and what was not.
pub fn text(all: &[Coverage]) -> String {
    let mut out = String::new();
    for coverage in all {
        let (plugin, own) = (line(&coverage.plugin), line(&coverage.own));
        if let Some(problem) = &coverage.problem {
            let _ = writeln!(out, "coverage of {plugin}: none: {}", line(problem));
            continue;
        }
        let _ = writeln!(out, "coverage of {plugin} ({own}): {}", counted(coverage.count(), "functions"));
        if !coverage.files.is_empty() {
            let _ = writeln!(out, "  {}", counted(coverage.lines(), "lines"));
        }
        if !coverage.named {
            let _ = writeln!(out, "  {NAMES}");
        }
        for function in coverage.functions.iter().filter(|function| !function.reached) {
            let _ = writeln!(out, "  not reached: {}", shown(function));
        }
        if !coverage.others.is_empty() {
            let sum = coverage.others.iter().fold(Count::default(), |sum, group| Count {
                total: sum.total + group.count.total,
                reached: sum.reached + group.count.reached,
            });
            let _ = writeln!(out, "  of others, from {} origins: {}", coverage.others.len(), counted(sum, "functions"));
        }
    }
    out
}

fn counted(count: Count, what: &str) -> String {
    match count.percent() {
        // Rounded down: what is not all is not shown as all.
        Some(percent) => {
            let percent = (percent * 10.0).floor() / 10.0;
            format!("{} of {} {what} reached, {percent:.1} %", count.reached, count.total)
        }
        None => format!("no {what}"),
    }
}

fn shown(function: &Function) -> String {
    let mut shown = line(&function.name);
    // A name that begins with its origin says it.
    if let Some(origin) = function.origin.as_deref().filter(|origin| !function.name.contains(*origin)) {
        let _ = write!(shown, ", of {}", line(origin));
    }
    if let Some((file, number)) = &function.place {
        let _ = write!(shown, " ({}:{number})", line(file));
    }
    shown
}

/// For programs.
pub fn json(coverage: &Coverage) -> Value {
    let count = |count: Count| json!({"total": count.total, "reached": count.reached, "percent": count.percent()});
    let function = |function: &Function| {
        let place = function.place.as_ref();
        json!({
            "name": function.name,
            "origin": function.origin,
            "index": function.index,
            "file": place.map(|(file, _)| file),
            "line": place.map(|(_, line)| line),
            "reached": function.reached,
        })
    };
    let lines = (!coverage.files.is_empty()).then(|| count(coverage.lines()));
    let others = coverage
        .others
        .iter()
        .map(|group| json!({"origin": group.origin, "total": group.count.total, "reached": group.count.reached}));
    json!({
        "plugin": coverage.plugin,
        "own": coverage.own,
        "named": coverage.named,
        "problem": coverage.problem,
        "summary": count(coverage.count()),
        "lines": lines,
        "functions": coverage.functions.iter().map(function).collect::<Vec<_>>(),
        "others": others.collect::<Vec<_>>(),
    })
}

/// For `genhtml`, editors and services: LCOV's tracefile. How often a line ran is not counted: 1 is reached.
pub fn lcov(all: &[Coverage]) -> String {
    let mut out = String::new();
    for coverage in all {
        let mut functions: BTreeMap<&str, Vec<(u32, &Function)>> = BTreeMap::new();
        for function in &coverage.functions {
            if let Some((file, line)) = &function.place {
                functions.entry(file).or_default().push((*line, function));
            }
        }
        for file in &coverage.files {
            // A line end would end the record.
            let _ = writeln!(out, "TN:\nSF:{}", file.path.replace(['\r', '\n'], " "));
            let functions = functions.get(file.path.as_str()).map(Vec::as_slice).unwrap_or_default();
            for (line, function) in functions {
                let _ = writeln!(out, "FN:{line},{}", unique(function));
            }
            for (_, function) in functions {
                let _ = writeln!(out, "FNDA:{},{}", u8::from(function.reached), unique(function));
            }
            let hit = functions.iter().filter(|(_, function)| function.reached).count();
            let _ = writeln!(out, "FNF:{}\nFNH:{hit}", functions.len());
            for (line, reached) in &file.lines {
                let _ = writeln!(out, "DA:{line},{}", u8::from(*reached));
            }
            let hit = file.lines.iter().filter(|(_, reached)| *reached).count();
            let _ = writeln!(out, "LF:{}\nLH:{hit}\nend_of_record", file.lines.len());
        }
    }
    out
}

/// Functions of a record are told by their names, which closures of one function share.
fn unique(function: &Function) -> String {
    let line = function.place.as_ref().map_or(0, |(_, line)| *line);
    format!("{}:{line}", function.name.replace(['\r', '\n'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{File, Group};

    fn some() -> Coverage {
        let function = |name: &str, line, reached| Function {
            origin: Some("a".to_owned()),
            place: Some(("src/lib.rs".to_owned(), line)),
            name: name.to_owned(),
            index: 3,
            reached,
        };
        Coverage {
            plugin: "p\u{1b}".to_owned(),
            own: "crate a".to_owned(),
            named: true,
            functions: vec![function("a::f", 2, true), function("a::g", 9, false), function("<&T as X>::h", 7, true)],
            others: vec![Group { origin: Some("core".to_owned()), count: Count { total: 9, reached: 1 } }],
            files: vec![File { path: "src/lib.rs".to_owned(), lines: vec![(2, true), (3, false)] }],
            ..Coverage::default()
        }
    }

    #[test]
    fn people_see_how_much_was_reached_and_what_was_not() {
        let expected = "coverage of p\\u{1b} (crate a): 2 of 3 functions reached, 66.6 %\n  1 of 2 lines reached, 50.0 %\n  \
                        not reached: a::g (src/lib.rs:9)\n  of others, from 1 origins: 1 of 9 functions reached, 11.1 %\n";
        assert_eq!(text(&[some()]), expected);
        let none = Coverage { plugin: "q".to_owned(), problem: Some("it is empty".to_owned()), ..Coverage::default() };
        assert_eq!(text(&[none]), "coverage of q: none: it is empty\n");
        assert!(text(&[Coverage { named: false, ..some() }]).contains("the module has no names"));
    }

    #[test]
    fn programs_see_the_same() {
        let json = json(&some());
        assert_eq!((&json["summary"]["reached"], &json["lines"]["percent"]), (&2.into(), &50.0.into()));
        assert_eq!((&json["functions"][1]["reached"], &json["functions"][1]["line"]), (&false.into(), &9.into()));
        let expected = "TN:\nSF:src/lib.rs\nFN:2,a::f:2\nFN:9,a::g:9\nFN:7,<&T as X>::h:7\nFNDA:1,a::f:2\nFNDA:0,a::g:9\n\
                        FNDA:1,<&T as X>::h:7\nFNF:3\nFNH:2\nDA:2,1\nDA:3,0\nLF:2\nLH:1\nend_of_record\n";
        assert_eq!(lcov(&[some()]), expected);
    }

    #[test]
    fn what_is_not_known_is_not_enough() {
        assert!(some().is_at_least(66.6) && !some().is_at_least(66.7));
        assert!(!Coverage::default().is_at_least(0.0));
    }
}
