//! The servers of a test: what they answer, and what they have seen.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harness::offline::{self, Backends, Documents, GrpcEnd, GrpcReply, GrpcRequest, Message, Pipe, Reply, Servers};
use regex::Regex;
use suites::chain::model::{self, Answer, ChainTest, Content, Drop, Test};
use suites::chain::octets;
use suites::chain::template::{self, Variables};

use super::end::{End, Upstream};
use super::grpc::{self, Ongoing, Part};

/// A request as a server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The cluster; empty for the upstream.
    pub(super) cluster: String,
    pub(super) method: String,
    pub(super) path: String,
    /// With `:authority`, without what belongs to the connection.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Of a gRPC call, whose headers are its metadata.
    pub(super) grpc: Option<Asked>,
}

/// What a gRPC server has been asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) messages: Vec<Vec<u8>>,
    /// The client has ended its side.
    pub(super) ended: bool,
}

impl Seen {
    /// It in a line.
    pub(super) fn line(&self) -> String {
        match self.grpc {
            Some(_) => format!("{} gRPC {}", self.cluster, self.path.trim_start_matches('/')),
            None => format!("{} {} {}", self.cluster, self.method, self.path),
        }
    }
}

/// All servers of one test.
pub(super) struct Stage(Mutex<Inner>);

struct Inner {
    folder: PathBuf,
    clusters: Vec<Cluster>,
    upstream: Option<Script>,
    variables: Variables,
    callouts: Vec<Seen>,
    arrived: Vec<Seen>,
    problems: Vec<String>,
    /// gRPC calls that are not over, by cluster and number.
    ongoing: HashMap<(String, u64), Ongoing>,
    /// How often it was asked what has been seen, and once more.
    span: u64,
}

struct Cluster {
    name: String,
    hosts: Vec<String>,
    kind: Kind,
}

enum Kind {
    Http(Script),
    Grpc(grpc::Script),
    Unreachable,
}

/// Answers in turn, and routes before them.
struct Script {
    answers: Turns<Answer>,
    routes: Vec<Route>,
}

struct Route {
    method: Option<String>,
    path: Option<String>,
    regex: Option<Regex>,
    answers: Turns<Answer>,
}

pub(super) struct Turns<A> {
    answers: Vec<A>,
    next: usize,
}

impl<A: Clone> Turns<A> {
    pub(super) fn new(answers: &[A]) -> Self {
        Self { answers: answers.to_vec(), next: 0 }
    }

    pub(super) fn take(&mut self) -> Option<A> {
        let answer = self.answers.get(self.next).or(self.answers.last()).cloned();
        self.next += 1;
        answer
    }
}

impl Script {
    fn new(answers: &[Answer], routes: &[model::Route]) -> Self {
        let route = |route: &model::Route| Route {
            method: route.method.clone(),
            path: route.path.clone(),
            // The reader has refused what is no expression.
            regex: route.path_regex.as_deref().and_then(|regex| whole(regex).ok()),
            answers: Turns::new(&route.answers),
        };
        Self { answers: Turns::new(answers), routes: routes.iter().map(route).collect() }
    }

    fn take(&mut self, method: &str, path: &str) -> Option<Answer> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let route = self.routes.iter_mut().find(|route| {
            route.method.as_ref().is_none_or(|wanted| wanted == method)
                && route.path.as_ref().is_none_or(|wanted| wanted == path)
                && route.regex.as_ref().is_none_or(|wanted| wanted.is_match(path))
        });
        match route {
            Some(route) => route.answers.take(),
            None => self.answers.take(),
        }
    }
}

/// An expression for a whole text.
pub(super) fn whole(regex: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?s:{regex})$"))
}

impl Stage {
    pub(super) fn new(suite: &ChainTest, test: &Test, folder: &Path) -> Arc<Self> {
        let of_suite =
            suite.clusters.iter().filter(|cluster| !test.clusters.iter().any(|own| own.name == cluster.name));
        let cluster = |cluster: &model::Cluster| Cluster {
            name: cluster.name.clone(),
            hosts: cluster.hosts.clone(),
            kind: match &cluster.grpc {
                _ if cluster.unreachable => Kind::Unreachable,
                Some(backend) => Kind::Grpc(grpc::Script::new(backend)),
                None => Kind::Http(Script::new(&cluster.answers, &cluster.routes)),
            },
        };
        let upstream = test.upstream.as_ref().or(suite.upstream.as_ref());
        Arc::new(Self(Mutex::new(Inner {
            folder: folder.to_owned(),
            clusters: of_suite.chain(&test.clusters).map(cluster).collect(),
            upstream: upstream.map(|upstream| Script::new(&upstream.answers, &upstream.routes)),
            variables: suite.variables.clone(),
            callouts: Vec::new(),
            arrived: Vec::new(),
            problems: Vec::new(),
            ongoing: HashMap::new(),
            span: 1,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn variables(&self) -> Variables {
        self.inner().variables.clone()
    }

    pub(super) fn set(&self, name: &str, value: String) {
        self.inner().variables.insert(name.to_owned(), value);
    }

    /// What clusters and the upstream have seen since this was last asked, and what could not be answered as written.
    pub(super) fn take(&self) -> (Vec<Seen>, Vec<Seen>, Vec<String>) {
        let inner = &mut *self.inner();
        inner.span += 1;
        let take = std::mem::take::<Vec<Seen>>;
        (take(&mut inner.callouts), take(&mut inner.arrived), std::mem::take(&mut inner.problems))
    }

    /// What a cluster, or the upstream when there is no name, does with a request.
    pub(super) fn answer(&self, cluster: Option<&str>, request: &Message) -> Option<Reply> {
        let inner = &mut *self.inner();
        let seen = seen(cluster.unwrap_or_default(), request);
        let (method, path) = (seen.method.clone(), seen.path.clone());
        let answer = match cluster {
            Some(name) => {
                let found = inner.clusters.iter_mut().find(|cluster| cluster.name == name)?;
                let Cluster { kind, .. } = found;
                match kind {
                    Kind::Unreachable => {
                        return Some(Reply { delay: Duration::ZERO, answer: offline::Answer::Refused });
                    }
                    // As a server of gRPC answers what is none.
                    Kind::Grpc(_) => {
                        inner.callouts.push(seen);
                        Some(Answer { status: Some(415), ..Answer::default() })
                    }
                    Kind::Http(script) => {
                        inner.callouts.push(seen);
                        script.take(&method, &path)
                    }
                }
            }
            None => {
                inner.arrived.push(seen);
                match &mut inner.upstream {
                    Some(upstream) => upstream.take(&method, &path),
                    None => Some(Answer { echo: true, ..Answer::default() }),
                }
            }
        };
        Some(inner.reply(answer, request))
    }

    /// Whether there is such a cluster, and it speaks gRPC or nobody is there.
    fn has_grpc(&self, cluster: &str) -> bool {
        let is_one = |known: &&Cluster| known.name == cluster && !matches!(known.kind, Kind::Http(_));
        self.inner().clusters.iter().any(|known| is_one(&known))
    }

    /// What a cluster does with a part of a gRPC call.
    pub(super) fn grpc(&self, cluster: &str, request: &GrpcRequest) -> Part {
        let inner = &mut *self.inner();
        let key = (cluster.to_owned(), request.call);
        let mut call = match inner.ongoing.remove(&key) {
            Some(call) => call,
            None => {
                let found = inner.clusters.iter_mut().find(|known| known.name == cluster);
                match found.map(|known| &mut known.kind) {
                    Some(Kind::Grpc(script)) => Ongoing::new(cluster, request, script.take(&request.path)),
                    _ => return Part::failed(GrpcEnd::Refused),
                }
            }
        };
        call.note(request, inner.span, &mut inner.callouts);
        match call.answer(request, &inner.variables, &inner.folder) {
            Ok(part) => {
                if part.reply.end == GrpcEnd::Never {
                    inner.ongoing.insert(key, call);
                }
                part
            }
            Err(problem) => {
                inner.problems.push(problem.clone());
                Part::failed(GrpcEnd::Status(INTERNAL, problem))
            }
        }
    }
}

/// The status of a server whose script cannot be followed.
const INTERNAL: u32 = 13;

impl Inner {
    fn reply(&mut self, answer: Option<Answer>, request: &Message) -> Reply {
        let Some(answer) = answer else {
            let text = "the suite has no answer to this request";
            return Reply { delay: Duration::ZERO, answer: offline::Answer::Whole(response(404, &[], text.into())) };
        };
        let delay = answer.delay.map_or(Duration::ZERO, |span| span.0);
        if answer.drop == Some(Drop::BeforeResponse) {
            return Reply { delay, answer: offline::Answer::Closed };
        }
        let message = if answer.echo {
            let json = ("content-type".to_owned(), "application/json".to_owned());
            response(200, &[json], offline::echo(request))
        } else {
            self.message(&answer).unwrap_or_else(|problem| {
                self.problems.push(problem.clone());
                response(500, &[], problem.into_bytes())
            })
        };
        let broken_off = answer.drop == Some(Drop::AfterHeaders);
        let answer = if broken_off { offline::Answer::BrokenOff(message) } else { offline::Answer::Whole(message) };
        Reply { delay, answer }
    }

    fn message(&self, answer: &Answer) -> Result<Message, String> {
        let body = content(answer.body.as_ref(), &self.variables, &self.folder)?;
        let headers = headers(&answer.headers, answer.body.as_ref(), &self.variables)?;
        Ok(response(answer.status.unwrap_or(200), &headers, body))
    }
}

/// A response as a server sends it, with its length.
fn response(status: u16, headers: &[(String, String)], body: Vec<u8>) -> Message {
    let pair = |(name, value): (&str, String)| (name.as_bytes().to_vec(), value.into_bytes());
    let mut all = vec![pair((":status", status.to_string()))];
    all.extend(headers.iter().map(|(name, value)| pair((name, value.clone()))));
    if status != 204 && status != 304 {
        all.push(pair(("content-length", body.len().to_string())));
    }
    Message { headers: all, body, trailers: Vec::new() }
}

fn seen(cluster: &str, request: &Message) -> Seen {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let get = |wanted: &[u8]| {
        let found = request.headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| text(value)).unwrap_or_default()
    };
    let kept = request.headers.iter().filter(|(name, _)| name == b":authority" || !name.starts_with(b":"));
    Seen {
        cluster: cluster.to_owned(),
        method: get(b":method"),
        path: get(b":path"),
        headers: kept.map(|(name, value)| (text(name), text(value))).collect(),
        body: request.body.clone(),
        grpc: None,
    }
}

/// A body's bytes.
pub(super) fn content(content: Option<&Content>, variables: &Variables, folder: &Path) -> Result<Vec<u8>, String> {
    let Some(content) = content else { return Ok(Vec::new()) };
    let Content { text, json, file, base64, hex } = content;
    if let Some(text) = text {
        return Ok(template::fill(text, variables)?.into_bytes());
    }
    if let Some(json) = json {
        return Ok(template::fill_json(json, variables)?.to_string().into_bytes());
    }
    if let Some(file) = file {
        let path = folder.join(file);
        return std::fs::read(&path).map_err(|error| format!("failed to read {}: {error}", path.display()));
    }
    if let Some(hex) = hex {
        return octets::hex(hex).ok_or_else(|| "the body is no pairs of hexadecimal digits".to_owned());
    }
    octets::base64(base64.as_deref().unwrap_or_default()).ok_or_else(|| "the body is not base64".to_owned())
}

/// Headers in lower case; a JSON body says that it is one.
pub(super) fn headers(
    headers: &[model::Header],
    body: Option<&Content>,
    variables: &Variables,
) -> Result<Vec<(String, String)>, String> {
    let filled =
        |header: &model::Header| Ok((header.name.to_ascii_lowercase(), template::fill(&header.value, variables)?));
    let mut all = headers.iter().map(filled).collect::<Result<Vec<_>, String>>()?;
    let json = body.is_some_and(|body| body.json.is_some());
    if json && !all.iter().any(|(name, _)| name == "content-type") {
        all.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    Ok(all)
}

/// The stage that is on: tests that share a proxy have one after another.
pub(super) struct Turntable(Mutex<Arc<Stage>>);

impl Turntable {
    pub(super) fn new(stage: Arc<Stage>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(stage)))
    }

    /// Turns to the next. gRPC calls that go on have their answers still.
    pub(super) fn turn(&self, stage: Arc<Stage>) {
        let ongoing = std::mem::take(&mut self.stage().inner().ongoing);
        stage.inner().ongoing = ongoing.into_iter().map(|(key, call)| (key, call.turned())).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(super) fn stage(&self) -> Arc<Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Turntable {
    /// A document of the cluster that has this host.
    pub(super) fn document(&self, authority: &str, path: &str) -> Result<String, String> {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let headers = vec![pair(":method", "GET"), pair(":path", path), pair(":authority", authority)];
        let request = Message { headers, ..Message::default() };
        let stage = self.stage();
        let reply = {
            let inner = &mut *stage.inner();
            let found = inner.clusters.iter_mut().find(|cluster| cluster.hosts.iter().any(|host| host == authority));
            let found = found.ok_or_else(|| format!("no cluster of the suite has the host `{authority}`"))?;
            let answer = match &mut found.kind {
                Kind::Http(script) => script.take("GET", path),
                Kind::Grpc(_) | Kind::Unreachable => None,
            };
            inner.reply(answer, &request)
        };
        let offline::Answer::Whole(message) = reply.answer else { return Err("the answer broke off".to_owned()) };
        let status = message.headers.first().map(|(_, status)| String::from_utf8_lossy(status).into_owned());
        match status.as_deref() {
            Some(status) if status.starts_with('2') => {
                String::from_utf8(message.body).map_err(|_| "the answer is no text".to_owned())
            }
            status => Err(format!("the server answered {}", status.unwrap_or_default())),
        }
    }
}

impl Documents for Turntable {
    fn get(&self, url: &str) -> Result<String, String> {
        let (_, rest) = url.split_once("://").ok_or("that is not a URL")?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        self.document(authority, path)
    }
}

/// What the proxy asks, for the stage that is on.
pub(super) struct OnStage {
    pub(super) turntable: Arc<Turntable>,
    /// The upstream's end of the newest connection.
    pub(super) upstream: Upstream,
    /// Nobody takes the next one.
    pub(super) is_unreachable: Rc<Cell<bool>>,
}

impl Backends for OnStage {
    fn http(&self, cluster: &str, request: &Message) -> Option<Reply> {
        self.turntable.stage().answer(Some(cluster), request)
    }

    fn has_grpc(&self, cluster: &str) -> bool {
        self.turntable.stage().has_grpc(cluster)
    }

    fn grpc(&self, cluster: &str, request: &GrpcRequest) -> GrpcReply {
        grpc::received(self.turntable.stage().grpc(cluster, request), request)
    }
}

impl Servers for OnStage {
    fn upstream(&self, request: &Message) -> Reply {
        let closed = Reply { delay: Duration::ZERO, answer: offline::Answer::Closed };
        self.turntable.stage().answer(None, request).unwrap_or(closed)
    }

    fn connection(&self, connection: Pipe) -> bool {
        if self.is_unreachable.get() {
            return false;
        }
        *self.upstream.borrow_mut() = Some(End::new(connection));
        true
    }
}
