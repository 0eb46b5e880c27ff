//! Scenarios: chains, upstreams and requests, read from the text files in `scenarios/`.

use std::path::Path;

use serde_json::json;

use crate::probe::{Script, Word, unquote, words};
use crate::tokens::KEY;

/// One chain and what is done to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scenario {
    /// Section of the reference: the file's name.
    pub(crate) section: String,
    pub(crate) name: String,
    /// Envoy and the harness are known to differ, and why.
    pub(crate) differs: Option<String>,
    /// Envoy hangs or crashes, and how: not run.
    pub(crate) hazard: Option<String>,
    pub(crate) filters: Vec<Filter>,
    /// Responses of the upstream, one per request; the last is repeated.
    pub(crate) upstream: Vec<Answer>,
    /// Servers that filters may call.
    pub(crate) clusters: Vec<(String, Vec<Answer>)>,
    /// The upstream when it speaks HTTP/2.
    pub(crate) http2_upstream: Vec<Http2Answer>,
    /// gRPC servers that filters may call.
    pub(crate) grpc: Vec<(String, Vec<Http2Answer>)>,
    /// `RequestAuthentication` and `AuthorizationPolicy` resources, for the built-in filters.
    pub(crate) policies: String,
    /// Signed tokens, by what stands for them in header values.
    pub(crate) tokens: Vec<(String, String)>,
    pub(crate) steps: Vec<Step>,
    /// `stream_idle_timeout` in milliseconds.
    pub(crate) idle_ms: Option<u64>,
    pub(crate) gateway: bool,
    /// What the upstream saw depends on who was quicker.
    pub(crate) upstream_varies: bool,
    /// Plugins' log lines that are not compared: those that contain one of these.
    pub(crate) ignored: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Filter {
    Wasm(Box<Wasm>),
    Lua(String),
    /// One of Envoy's own, by its name.
    BuiltIn(String),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Wasm {
    pub(crate) name: String,
    pub(crate) script: Script,
    /// Another filter's module.
    pub(crate) same_as: Option<String>,
    /// The bytes of the module, when it is none.
    pub(crate) bytes: Option<Vec<u8>>,
    /// A file of the workspace's own build, by the plugin's name.
    pub(crate) fail: String,
    pub(crate) configuration: Option<String>,
    pub(crate) env: Vec<(String, Option<String>)>,
    pub(crate) url: Option<String>,
    pub(crate) network: bool,
    pub(crate) unfetched: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Close the connection afterwards.
    pub(crate) close: bool,
    /// Never answer.
    pub(crate) hang: bool,
}

/// What a server that speaks HTTP/2 answers to one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Http2Answer {
    /// Pieces of the body are gRPC messages.
    pub(crate) grpc: bool,
    pub(crate) initial: Vec<(String, String)>,
    pub(crate) messages: Vec<Vec<u8>>,
    /// None: the stream stays open.
    pub(crate) trailers: Option<Vec<(String, String)>>,
    /// Each message of the client comes back.
    pub(crate) echo: bool,
    /// The stream is reset instead of ended.
    pub(crate) reset: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Request),
    /// Until both have logged a line that contains this.
    Wait(String),
    Sleep(u64),
    /// Both refuse the chain, with this in the message.
    Refused(String),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Pieces, each written by itself.
    pub(crate) body: Vec<Vec<u8>>,
    pub(crate) chunked: bool,
    /// Over HTTP/2, each piece of the body a frame.
    pub(crate) http2: bool,
    pub(crate) trailers: Vec<(String, String)>,
    /// Written as they are, instead of all of the above.
    pub(crate) raw: Option<Vec<Vec<u8>>>,
    /// Close the connection once a line that contains this is logged.
    pub(crate) hangup: Option<String>,
    /// How long to wait for the response.
    pub(crate) patience_ms: u64,
    /// A bare TCP exchange: the answer is read until this much came, or the end.
    pub(crate) read: Option<usize>,
}

pub(crate) fn read(folder: &Path) -> Vec<Scenario> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files.iter().flat_map(|file| parse(file)).collect()
}

fn parse(file: &Path) -> Vec<Scenario> {
    let text = std::fs::read_to_string(file).unwrap();
    let section = file.file_stem().unwrap().to_string_lossy().into_owned();
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut place = Place::None;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("=== ") {
            scenarios.push(Scenario { section: section.clone(), name: name.to_owned(), ..Scenario::default() });
            place = Place::None;
            continue;
        }
        let scenario = scenarios.last_mut().unwrap_or_else(|| panic!("{}: text before a scenario", file.display()));
        if let Err(what) = scenario.line(line, &mut place) {
            panic!("{}:{}: {what}: {line}", file.display(), number + 1);
        }
    }
    scenarios
}

enum Place {
    None,
    Filter,
    Lua,
    Raw,
    Policies,
}

impl Scenario {
    fn line(&mut self, line: &str, place: &mut Place) -> Result<(), String> {
        if let Some(inner) = line.strip_prefix("    ") {
            return self.inner(inner, place);
        }
        if let Some(callback) = line.strip_prefix("  ") {
            let Some(Filter::Wasm(wasm)) = self.filters.last_mut() else { return Err("no filter".to_owned()) };
            if callback == "raw" {
                *place = Place::Raw;
            } else {
                *place = Place::Filter;
                for name in callback.split(' ') {
                    wasm.script.callbacks.push((name.to_owned(), Vec::new()));
                }
            }
            return Ok(());
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "differs" => self.differs = Some(rest.to_owned()),
            "hazard" => self.hazard = Some(rest.to_owned()),
            "idle" => self.idle_ms = Some(rest.parse().map_err(|_| "not a number")?),
            "upstream-varies" => self.upstream_varies = true,
            "gateway" => self.gateway = true,
            "ignore" => self.ignored.push(rest.to_owned()),
            "filter" => self.filters.push(Filter::Wasm(Box::new(wasm(rest)?))),
            "lua" => {
                self.filters.push(Filter::Lua(String::new()));
                *place = Place::Lua;
            }
            "builtin" => self.filters.push(Filter::BuiltIn(format!("envoy.filters.http.{rest}"))),
            "policies" => *place = Place::Policies,
            "token" => {
                let (name, claims) = rest.split_once(' ').ok_or("NAME CLAIMS")?;
                let claims = serde_json::from_str(claims).map_err(|_| "not JSON")?;
                let token = KEY.token(&json!({"alg": "ES256"}), &claims);
                self.tokens.push((format!("%{name}%"), token));
            }
            "upstream" => self.upstream.push(answer(&words(rest))?),
            "cluster" => {
                let words = words(rest);
                let Some((Word::Bare(name), rest)) = words.split_first() else { return Err("no name".to_owned()) };
                let answer = answer(rest)?;
                match self.clusters.iter_mut().find(|(known, _)| known == name) {
                    Some((_, answers)) => answers.push(answer),
                    None => self.clusters.push((name.clone(), vec![answer])),
                }
            }
            "upstream2" => self.http2_upstream.push(http2_answer(&words(rest))?),
            "grpc" => {
                let words = words(rest);
                let Some((Word::Bare(name), rest)) = words.split_first() else { return Err("no name".to_owned()) };
                let answer = Http2Answer { grpc: true, ..http2_answer(rest)? };
                match self.grpc.iter_mut().find(|(known, _)| known == name) {
                    Some((_, answers)) => answers.push(answer),
                    None => self.grpc.push((name.clone(), vec![answer])),
                }
            }
            ">" | "h2>" | "raw>" | "tcp>" => {
                let mut rest = rest.to_owned();
                for (name, token) in &self.tokens {
                    rest = rest.replace(name, token);
                }
                self.steps.push(Step::Send(request(verb, &words(&rest))?));
            }
            "wait" => self.steps.push(Step::Wait(string(rest)?)),
            "sleep" => self.steps.push(Step::Sleep(rest.parse().map_err(|_| "not a number")?)),
            "refused" => self.steps.push(Step::Refused(string(rest)?)),
            _ => return Err("unknown".to_owned()),
        }
        Ok(())
    }

    fn inner(&mut self, line: &str, place: &Place) -> Result<(), String> {
        match (self.filters.last_mut(), place) {
            (_, Place::Policies) => {
                self.policies.push_str(&line.replace("KEY", &format!("'{}'", KEY.jwks())));
                self.policies.push('\n');
            }
            (Some(Filter::Lua(code)), Place::Lua) => {
                code.push_str(line);
                code.push('\n');
            }
            (Some(Filter::Wasm(wasm)), Place::Raw) => {
                wasm.script.raw.push_str(line);
                wasm.script.raw.push('\n');
            }
            (Some(Filter::Wasm(wasm)), Place::Filter) => {
                let callback = wasm.script.callbacks.last_mut().ok_or("no callback")?;
                callback.1.push(line.to_owned());
            }
            _ => return Err("nothing that has lines".to_owned()),
        }
        Ok(())
    }
}

fn string(text: &str) -> Result<String, String> {
    let quoted = text.strip_prefix('"').ok_or("a quoted string is expected")?;
    Ok(String::from_utf8(unquote(quoted).0).map_err(|_| "not text")?)
}

/// `key=value` and `key="quoted value"`, each a word of its own.
fn settings(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let key = rest[..end].to_owned();
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            if let Some(quoted) = after.strip_prefix('"') {
                let (bytes, after) = unquote(quoted);
                value = String::from_utf8(bytes).unwrap();
                rest = after;
            } else {
                let end = after.find(' ').unwrap_or(after.len());
                after[..end].clone_into(&mut value);
                rest = &after[end..];
            }
        }
        settings.push((key, value));
        rest = rest.trim_start();
    }
    settings
}

fn wasm(text: &str) -> Result<Wasm, String> {
    let mut wasm = Wasm { script: Script { abi: "0.2.1".to_owned(), ..Script::default() }, ..Wasm::default() };
    for (at, (key, value)) in settings(text).into_iter().enumerate() {
        match key.as_str() {
            name if at == 0 => name.clone_into(&mut wasm.name),
            "abi" => wasm.script.abi = value,
            "only" => wasm.script.only = true,
            "fail" => wasm.fail = value,
            "config" => wasm.configuration = Some(value),
            "same" => wasm.same_as = Some(value),
            "bytes" => wasm.bytes = Some(value.into_bytes()),
            "env" => {
                let (name, value) = value.split_once(':').ok_or("env=NAME:VALUE")?;
                wasm.env.push((name.to_owned(), Some(value.to_owned())));
            }
            "host" => wasm.env.push((value, None)),
            "url" => wasm.url = Some(value),
            "network" => wasm.network = true,
            "unfetched" => wasm.unfetched = true,
            other => return Err(format!("{other} is no setting of a filter")),
        }
    }
    Ok(wasm)
}

fn answer(words: &[Word]) -> Result<Answer, String> {
    let mut answer = Answer::default();
    for word in words {
        match word {
            Word::Quoted(piece) => answer.pieces.push(piece.clone()),
            Word::Bare(word) if word == "close" => answer.close = true,
            Word::Bare(word) if word == "hang" => answer.hang = true,
            Word::Bare(word) => return Err(format!("{word} is nothing that a server does")),
        }
    }
    Ok(answer)
}

fn http2_answer(words: &[Word]) -> Result<Http2Answer, String> {
    let mut answer = Http2Answer::default();
    let mut part = "";
    for word in words {
        match (word, part) {
            (Word::Bare(word), _) => match word.as_str() {
                "initial" | "message" => part = word,
                "trailers" => {
                    part = word;
                    answer.trailers = Some(Vec::new());
                }
                "echo" => answer.echo = true,
                "reset" => answer.reset = true,
                other => return Err(format!("{other} is nothing that such a server does")),
            },
            (Word::Quoted(bytes), "message") => answer.messages.push(bytes.clone()),
            (Word::Quoted(bytes), part) => {
                let text = String::from_utf8(bytes.clone()).map_err(|_| "not text")?;
                let (name, value) = text.split_once(": ").ok_or("NAME: VALUE")?;
                let list =
                    if part == "trailers" { answer.trailers.get_or_insert_default() } else { &mut answer.initial };
                list.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(answer)
}

fn request(verb: &str, words: &[Word]) -> Result<Request, String> {
    let mut request = Request { patience_ms: 5000, http2: verb == "h2>", ..Request::default() };
    let mut words = words.iter();
    if verb == ">" || verb == "h2>" {
        for field in [&mut request.method, &mut request.path] {
            let Some(Word::Bare(word)) = words.next() else { return Err("METHOD PATH".to_owned()) };
            field.clone_from(word);
        }
    } else {
        request.raw = Some(Vec::new());
    }
    let mut part = "header";
    for word in words {
        match word {
            Word::Bare(word) => match word.split_once(':') {
                Some(("patience", ms)) => request.patience_ms = ms.parse().map_err(|_| "not a number")?,
                Some(("read", bytes)) => request.read = Some(bytes.parse().map_err(|_| "not a number")?),
                _ => {
                    part = match word.as_str() {
                        "body" => "body",
                        "chunks" => "chunks",
                        "trailers" => "trailers",
                        "hangup" => "hangup",
                        other => return Err(format!("{other} is no part of a request")),
                    };
                    request.chunked |= part == "chunks" || part == "trailers";
                }
            },
            Word::Quoted(bytes) if request.raw.is_some() && part == "header" => {
                request.raw.get_or_insert_default().push(bytes.clone());
            }
            Word::Quoted(bytes) if part == "body" || part == "chunks" => request.body.push(bytes.clone()),
            Word::Quoted(bytes) => {
                let text = String::from_utf8(bytes.clone()).map_err(|_| "not text")?;
                if part == "hangup" {
                    request.hangup = Some(text);
                    continue;
                }
                let (name, value) = text.split_once(": ").ok_or("NAME: VALUE")?;
                let list = if part == "trailers" { &mut request.trailers } else { &mut request.headers };
                list.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(request)
}
