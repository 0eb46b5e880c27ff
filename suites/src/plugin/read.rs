//! Makes a suite of a tree, by the schema's rules.

use super::fields::{Fields, Reader};
use super::{Bytes, Chunking, Env, Expectation, Immediate, Input, Invocation, Level, Matcher, Pattern, Suite, Test};
use crate::tree::{Format, Node, Problem, Value};

/// What came of reading a suite.
#[derive(Debug, Default)]
pub struct Reading {
    /// The suite, as far as it could be read.
    pub suite: Suite,
    /// What is wrong with it: with any of these it is not to be run.
    pub problems: Vec<Problem>,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
}

/// Whether a tree is a plugin suite: it has tests or an environment at its top.
pub fn is_suite(tree: &Node) -> bool {
    matches!(&tree.value, Value::Map(entries) if entries.iter().any(|entry| matches!(&*entry.key, "test" | "env")))
}

/// Makes a suite of a tree.
pub fn read(tree: &Node, format: Format) -> Reading {
    let is_textproto = format == Format::Textproto;
    let reader = Reader { quotes: is_textproto, ..Reader::default() };
    let mut suites = Suites { reader, warnings: Vec::new(), repeats: is_textproto };
    let suite = suites.suite(tree);
    Reading { suite, problems: suites.reader.problems, warnings: suites.warnings }
}

struct Suites {
    reader: Reader,
    warnings: Vec<Problem>,
    /// The format repeats a field for each of its values.
    repeats: bool,
}

impl Suites {
    fn suite(&mut self, tree: &Node) -> Suite {
        let fields = Fields::of(&mut self.reader, tree, "", &["env", "test"]);
        let env = fields.one(&mut self.reader, "env").map(|node| self.env(node)).unwrap_or_default();
        let nodes = fields.all(&mut self.reader, "test", self.repeats);
        let tests: Vec<Test> =
            nodes.into_iter().enumerate().map(|(number, (node, path))| self.test(node, &path, number)).collect();
        if tests.is_empty() {
            self.reader.problem(fields.at, "", "the suite has no `test`");
        } else if self.reader.problems.is_empty() && !tests.iter().any(|test| test.benchmark || test.asserts()) {
            let what = "no test of the suite expects anything; add what is expected to a `result`, for example \
                        `has_header`, or say `benchmark: true`";
            self.reader.problem(fields.at, "", what);
        }
        Suite { env, tests }
    }

    fn env(&mut self, node: &Node) -> Env {
        const KNOWN: &[&str] = &[
            "test_path",
            "wasm_path",
            "config_path",
            "log_level",
            "log_path",
            "time_secs",
            "num_additional_streams",
            "additional_stream_advance_rate",
        ];
        let reader = &mut self.reader;
        let fields = Fields::of(reader, node, "env", KNOWN);
        let level = fields.word(reader, "log_level");
        let log_level = level.and_then(|text| {
            // By name, or by its number in the schema; 0 and UNDEFINED are none.
            let by_number = text.parse().ok().and_then(|number: usize| number.checked_sub(1));
            let level =
                Level::named(&text).or_else(|| by_number.and_then(|at| Level::ALL.get(at)).map(|level| level.1));
            if level.is_none() && !matches!(&*text, "UNDEFINED" | "0") {
                let names = Level::ALL.map(|(name, _)| name);
                let what = format!("`{}` is no level; there are {}", text.escape_debug(), names.join(", "));
                reader.problem(fields.place("log_level"), "env.log_level", what);
            }
            level
        });
        Env {
            wasm_path: fields.set_text(reader, "wasm_path"),
            config_path: fields.set_text(reader, "config_path"),
            log_level,
            log_path: fields.set_text(reader, "log_path"),
            time_secs: fields.number(reader, "time_secs", 0, i64::MAX.unsigned_abs() / 1_000_000_000),
            num_additional_streams: fields.number(reader, "num_additional_streams", 0, 1_000_000).unwrap_or(0),
            additional_stream_advance_rate: fields
                .number(reader, "additional_stream_advance_rate", 0, 1_000_000)
                .unwrap_or(0),
        }
    }

    fn test(&mut self, node: &Node, path: &str, number: usize) -> Test {
        const KNOWN: &[&str] = &[
            "name",
            "benchmark",
            "num_chunks",
            "chunk_size",
            "properties",
            "request_headers",
            "request_body",
            "response_headers",
            "response_body",
            "plugin_init",
            "stream_init",
            "stream_destroy",
        ];
        let fields = Fields::of(&mut self.reader, node, path, KNOWN);
        let reader = &mut self.reader;
        let chunking = match fields.one_of(reader, &["num_chunks", "chunk_size"]) {
            Some("num_chunks") => {
                let count = fields.number(reader, "num_chunks", 1, i32::MAX.unsigned_abs().into());
                count.and_then(|count| u32::try_from(count).ok()).map(Chunking::Number)
            }
            Some(_) => fields.number(reader, "chunk_size", 1, i64::MAX.unsigned_abs()).map(Chunking::Size),
            None => None,
        };
        let test = Test {
            name: fields.set_text(reader, "name").unwrap_or_else(|| format!("test[{number}]")),
            at: node.at,
            benchmark: fields.bool(reader, "benchmark"),
            chunking,
            properties: self.properties(&fields),
            request_headers: self.headers(&fields, "request_headers"),
            request_body: self.bodies(&fields, "request_body"),
            response_headers: self.headers(&fields, "response_headers"),
            response_body: self.bodies(&fields, "response_body"),
            plugin_init: self.lifecycle(&fields, "plugin_init"),
            stream_init: self.lifecycle(&fields, "stream_init"),
            stream_destroy: self.lifecycle(&fields, "stream_destroy"),
        };
        for (name, bodies) in [("request_body", &test.request_body), ("response_body", &test.response_body)] {
            if chunking.is_some() && bodies.len() > 1 {
                let what = "more than one, which cannot be beside `num_chunks` or `chunk_size`";
                self.reader.problem(fields.place(name), &fields.join(name), what);
            }
        }
        test
    }

    fn properties(&mut self, fields: &Fields<'_>) -> Vec<(String, Bytes)> {
        let nodes = fields.all(&mut self.reader, "properties", self.repeats);
        nodes
            .into_iter()
            .map(|(node, path)| {
                let reader = &mut self.reader;
                let fields = Fields::of(reader, node, &path, &["path", "value"]);
                let path = fields.text(reader, "path").unwrap_or_default();
                (path, Bytes(fields.bytes(reader, "value").unwrap_or_default()))
            })
            .collect()
    }

    fn headers(&mut self, fields: &Fields<'_>, name: &str) -> Option<Invocation> {
        let node = fields.one(&mut self.reader, name)?;
        Some(self.invocation(node, &fields.join(name), false))
    }

    fn bodies(&mut self, fields: &Fields<'_>, name: &str) -> Vec<Invocation> {
        let nodes = fields.all(&mut self.reader, name, self.repeats);
        nodes.into_iter().map(|(node, path)| self.invocation(node, &path, true)).collect()
    }

    fn invocation(&mut self, node: &Node, path: &str, body: bool) -> Invocation {
        let fields = Fields::of(&mut self.reader, node, path, &["input", "result"]);
        let input = fields.one(&mut self.reader, "input");
        let input = input.map(|node| self.input(node, &fields.join("input"), body)).unwrap_or_default();
        let result = fields.one(&mut self.reader, "result");
        let result = result.map(|node| self.expectation(node, &fields.join("result"))).unwrap_or_default();
        Invocation { input, result }
    }

    fn input(&mut self, node: &Node, path: &str, body: bool) -> Input {
        let fields = Fields::of(&mut self.reader, node, path, &["header", "content", "file"]);
        let reader = &mut self.reader;
        fields.one_of(reader, &["header", "content", "file"]);
        let headers = self.pairs(&fields, "header", false);
        if body && !headers.is_empty() {
            let what = "a body has no headers; give `content` or `file`";
            self.reader.problem(fields.place("header"), &fields.join("header"), what);
        }
        let content = fields.bytes(&mut self.reader, "content").filter(|content| !content.is_empty());
        match (fields.set_text(&mut self.reader, "file"), content) {
            (Some(file), _) => Input::File(file),
            (None, Some(content)) => Input::Content(Bytes(content)),
            (None, None) => Input::Headers(headers),
        }
    }

    /// Headers, which have to have a name where they are expected.
    fn pairs(&mut self, fields: &Fields<'_>, name: &str, expected: bool) -> Vec<(String, Bytes)> {
        let nodes = fields.all(&mut self.reader, name, self.repeats);
        nodes
            .into_iter()
            .map(|(node, path)| {
                let reader = &mut self.reader;
                let fields = Fields::of(reader, node, &path, &["key", "value"]);
                let key = fields.text(reader, "key").unwrap_or_default();
                if expected && key.is_empty() {
                    reader.problem(fields.at, &path, "has no `key`");
                }
                (key, Bytes(fields.bytes(reader, "value").unwrap_or_default()))
            })
            .collect()
    }

    fn lifecycle(&mut self, fields: &Fields<'_>, name: &str) -> Expectation {
        let Some(node) = fields.one(&mut self.reader, name) else { return Expectation::default() };
        let path = fields.join(name);
        let expected = self.expectation(node, &path);
        let only_log = Expectation { log: expected.log.clone(), ..Expectation::default() };
        if expected != only_log {
            let what = "only its `log` is looked at";
            self.warnings.push(Problem { at: node.at, path, what: what.to_owned() });
        }
        only_log
    }

    fn expectation(&mut self, node: &Node, path: &str) -> Expectation {
        let known = &["has_header", "no_header", "headers", "body", "immediate", "log"];
        let fields = Fields::of(&mut self.reader, node, path, known);
        let immediate = fields.one(&mut self.reader, "immediate").map(|node| {
            let reader = &mut self.reader;
            let known = &["http_status", "grpc_status", "details"];
            let fields = Fields::of(reader, node, &fields.join("immediate"), known);
            let mut status = |name| {
                let number = fields.number(reader, name, 0, u32::MAX.into());
                number.and_then(|number| u32::try_from(number).ok())
            };
            let (http_status, grpc_status) = (status("http_status"), status("grpc_status"));
            Immediate { http_status, grpc_status, details: fields.text(reader, "details") }
        });
        Expectation {
            has_header: self.pairs(&fields, "has_header", true),
            no_header: self.pairs(&fields, "no_header", true).into_iter().map(|(key, _)| key).collect(),
            headers: self.matchers(&fields, "headers"),
            body: self.matchers(&fields, "body"),
            immediate,
            log: self.matchers(&fields, "log"),
        }
    }

    fn matchers(&mut self, fields: &Fields<'_>, name: &str) -> Vec<Matcher> {
        let nodes = fields.all(&mut self.reader, name, self.repeats);
        nodes.into_iter().filter_map(|(node, path)| self.matcher(node, &path)).collect()
    }

    fn matcher(&mut self, node: &Node, path: &str) -> Option<Matcher> {
        let reader = &mut self.reader;
        let fields = Fields::of(reader, node, path, &["invert", "exact", "regex", "file"]);
        let pattern = match fields.one_of(reader, &["exact", "regex", "file"]) {
            Some("exact") => Pattern::Exact(Bytes(fields.bytes(reader, "exact")?)),
            Some("regex") => Pattern::Regex(fields.text(reader, "regex")?),
            Some(_) => Pattern::File(fields.text(reader, "file")?),
            None => {
                reader.problem(fields.at, path, "has none of `exact`, `regex` and `file`");
                return None;
            }
        };
        Some(Matcher { at: node.at, invert: fields.bool(reader, "invert"), pattern })
    }
}
