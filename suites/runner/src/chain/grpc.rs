//! gRPC clusters of a test: what they answer to calls, part by part.

use std::time::Duration;

use harness::offline::{GrpcEnd as End, GrpcReply, GrpcRequest, Headers, grpc_message};
use suites::chain::model::{GrpcAnswer, GrpcBackend, GrpcDrop, GrpcEnd, GrpcStatus, GrpcWhen};
use suites::chain::template::{self, Variables};

use super::stage::{Asked, Seen, Turns, content, headers};

/// Answers in turn, and routes before them.
pub(super) struct Script {
    answers: Turns<GrpcAnswer>,
    routes: Vec<Route>,
}

struct Route {
    service: Option<String>,
    method: Option<String>,
    answers: Turns<GrpcAnswer>,
}

impl Script {
    pub(super) fn new(backend: &GrpcBackend) -> Self {
        let routes = backend.routes.iter().map(|route| Route {
            service: route.service.clone(),
            method: route.method.clone(),
            answers: Turns::new(&route.answers),
        });
        Self { answers: Turns::new(&backend.answers), routes: routes.collect() }
    }

    /// What a call is answered.
    pub(super) fn take(&mut self, path: &str) -> GrpcAnswer {
        let (service, method) = names(path);
        let route = self.routes.iter_mut().find(|route| {
            route.service.as_ref().is_none_or(|wanted| wanted == service)
                && route.method.as_ref().is_none_or(|wanted| wanted == method)
        });
        let answer = route.map_or(&mut self.answers, |route| &mut route.answers).take();
        answer.unwrap_or_else(|| GrpcAnswer {
            status: Some(GrpcStatus::UNIMPLEMENTED),
            status_message: Some("the suite has no answer to this call".to_owned()),
            ..GrpcAnswer::default()
        })
    }
}

/// Service and method of a path.
pub(super) fn names(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

/// A call that is not over.
pub(super) struct Ongoing {
    /// What it was asked with, and nothing more.
    asked: Seen,
    answer: GrpcAnswer,
    is_asked: bool,
    is_answered: bool,
    has_begun: bool,
    /// The span between two requests that has it among its calls last, and where.
    listed: (u64, usize),
}

/// What is answered to a part of a call.
pub(super) struct Part {
    pub(super) reply: GrpcReply,
    /// It is all there is of the answer, so that there is no initial metadata.
    pub(super) alone: bool,
}

impl Part {
    /// Nothing but an end.
    pub(super) fn failed(end: End) -> Self {
        Self { reply: GrpcReply { end, ..GrpcReply::default() }, alone: true }
    }
}

impl Ongoing {
    pub(super) fn new(cluster: &str, request: &GrpcRequest, answer: GrpcAnswer) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let asked = Seen {
            cluster: cluster.to_owned(),
            method: "POST".to_owned(),
            path: request.path.clone(),
            headers: request.metadata.iter().map(|(name, value)| (text(name), text(value))).collect(),
            body: Vec::new(),
            grpc: Some(Asked::default()),
        };
        Self { asked, answer, is_asked: false, is_answered: false, has_begun: false, listed: (0, 0) }
    }

    /// The same for another stage, none of whose calls it is yet.
    pub(super) fn turned(self) -> Self {
        Self { listed: (u64::MAX, 0), ..self }
    }

    /// Notes a part among the calls of this span. One that goes on is noted again with what is new.
    pub(super) fn note(&mut self, request: &GrpcRequest, span: u64, calls: &mut Vec<Seen>) {
        let is_new = self.listed.0 == 0;
        if self.listed.0 != span && (is_new || request.message.is_some() || request.end) {
            self.listed = (span, calls.len());
            calls.push(self.asked.clone());
        }
        let noted = Some(self.listed.1).filter(|_| self.listed.0 == span).and_then(|index| calls.get_mut(index));
        if let Some(asked) = noted.and_then(|seen| seen.grpc.as_mut()) {
            asked.messages.extend(request.message.clone());
            asked.ended |= request.end;
        }
    }

    /// What is answered to a part; the error is what cannot be answered as it is written.
    pub(super) fn answer(
        &mut self,
        request: &GrpcRequest,
        variables: &Variables,
        folder: &std::path::Path,
    ) -> Result<Part, String> {
        self.is_asked |= request.message.is_some() || request.end;
        let is_due = match self.answer.when {
            GrpcWhen::Started => true,
            GrpcWhen::Asked => self.is_asked,
            GrpcWhen::Ended => request.end,
        };
        let first = is_due && !std::mem::replace(&mut self.is_answered, is_due);
        let mut part = Part { reply: GrpcReply::default(), alone: false };
        if first {
            part.reply.delay = self.answer.delay.map_or(Duration::ZERO, |span| span.0);
            let messages = self.answer.messages.iter().map(|message| content(Some(message), variables, folder));
            part.reply.messages = messages.collect::<Result<_, _>>()?;
            let metadata = wire(&headers(&self.answer.initial_metadata, None, variables)?);
            let begins = !metadata.is_empty() || !part.reply.messages.is_empty();
            part.reply.metadata = begins.then_some(metadata);
            self.has_begun |= begins;
        }
        let ends = match self.answer.end {
            GrpcEnd::AtOnce => first,
            GrpcEnd::WithClient => self.is_answered && request.end,
            GrpcEnd::Never => false,
        };
        part.reply.end = match self.answer.drop {
            Some(GrpcDrop::BeforeResponse | GrpcDrop::AfterMessages) if first => End::Closed,
            _ if ends => {
                let text = template::fill(self.answer.status_message.as_deref().unwrap_or_default(), variables)?;
                part.reply.trailers = wire(&headers(&self.answer.trailing_metadata, None, variables)?);
                part.alone = !self.has_begun;
                End::Status(self.answer.status.unwrap_or_default().code(), text)
            }
            // What is not answered yet does not end by itself.
            _ => End::Never,
        };
        Ok(part)
    }
}

fn wire(headers: &[(String, String)]) -> Headers {
    headers.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect()
}

/// The fields in which the protocol has a status, with its text.
fn status_fields(code: u32, text: &str) -> Headers {
    let mut fields = vec![(b"grpc-status".to_vec(), code.to_string().into_bytes())];
    if !text.is_empty() {
        fields.push((b"grpc-message".to_vec(), grpc_message(text).into_bytes()));
    }
    fields
}

/// The part as a server writes it: the status is among the trailers.
pub(super) fn sent(part: Part) -> GrpcReply {
    let mut reply = part.reply;
    if let End::Status(code, text) = &reply.end {
        reply.trailers.extend(status_fields(*code, text));
    }
    reply
}

/// The part as a proxy reads it from the wire.
pub(super) fn received(mut part: Part, request: &GrpcRequest) -> GrpcReply {
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let head = || vec![pair(":status", "200"), pair("content-type", "application/grpc")];
    let took = part.reply.delay.as_millis().to_string();
    let took = request.end.then(|| pair("x-envoy-upstream-service-time", &took));
    if let Some(own) = part.reply.metadata.take() {
        part.reply.metadata = Some(head().into_iter().chain(own).chain(took.clone()).collect());
    }
    if let End::Status(code, text) = &part.reply.end {
        let own = std::mem::take(&mut part.reply.trailers);
        let (before, after) = if part.alone { (head(), took) } else { (Vec::new(), None) };
        part.reply.trailers = before.into_iter().chain(own).chain(status_fields(*code, text)).chain(after).collect();
    }
    part.reply
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use suites::chain::model::ChainTest;

    use super::super::stage::Stage;
    use super::*;

    fn stage(grpc: &str) -> Arc<Stage> {
        let text = format!(
            "apiVersion: plugwright.dev/v1alpha1\nkind: ChainTest\nresources: [r]\nvariables: {{v: x}}\n\
             clusters: [{{name: c, grpc: {grpc}}}]\ntests: [{{name: t, expect: {{chain: -> router}}}}]\n"
        );
        let source = mesh::Source { file: "s.yaml".to_owned(), text };
        let suite: ChainTest = suites::chain::read(&source).unwrap().remove(0);
        Stage::new(&suite, &suite.tests[0], Path::new("."))
    }

    /// A part of a call, and what a plugin's proxy gets: initial metadata, messages, trailers, end.
    #[track_caller]
    fn check(stage: &Stage, (call, method): (u64, &str), message: Option<&str>, end: bool, expected: &str) {
        let (path, message) = (format!("/s/{method}"), message.map(|text| text.as_bytes().to_vec()));
        let request = GrpcRequest { call, path, metadata: vec![(b"m".to_vec(), b"1".to_vec())], message, end };
        let reply = received(stage.grpc("c", &request), &request);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let map = |map: &Headers| {
            let fields = map.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
            fields.collect::<Vec<_>>().join(" ")
        };
        let messages: Vec<_> = reply.messages.iter().map(|message| text(message)).collect();
        let metadata = reply.metadata.as_ref().map_or_else(|| "-".to_owned(), map);
        let found = format!("{metadata} | {} | {} | {:?}", messages.join(" "), map(&reply.trailers), reply.end);
        assert_eq!(found, expected);
    }

    const OPEN: &str = "- |  |  | Never";

    #[test]
    fn answers_are_taken_in_turn_and_routes_come_before_them() {
        let stage = stage(
            "{answers: [{messages: [{text: '${v}1'}]}, {status: 7, statusMessage: a%é}], routes: [{method: R, answers: [{initialMetadata: [{name: X-I, value: i}], trailingMetadata: [{name: x-t, value: t}]}]}]}",
        );
        let head = ":status=200 content-type=application/grpc";
        let took = "x-envoy-upstream-service-time=0";
        check(&stage, (1, "A"), Some("q"), true, &format!("{head} {took} | x1 | grpc-status=0 | Status(0, \"\")"));
        let alone = format!("- |  | {head} grpc-status=7 grpc-message=a%25%C3%A9 {took} | Status(7, \"a%é\")");
        check(&stage, (2, "A"), Some("q"), true, &alone);
        let routed = format!("{head} x-i=i {took} |  | x-t=t grpc-status=0 | Status(0, \"\")");
        check(&stage, (3, "R"), Some("q"), true, &routed);
        check(&stage, (4, "A"), Some("q"), true, &alone);
    }

    #[test]
    fn a_stream_is_answered_when_it_is_due_and_ends_when_it_is_told() {
        let stage = stage(
            "{routes: [{method: A, answers: [{when: started, messages: [{text: hi}], end: withClient}]}, \
             {method: B, answers: [{when: ended, messages: [{text: all}]}]}, {method: C, answers: [{end: never}]}, \
             {method: D, answers: [{messages: [{text: x}], drop: afterMessages}]}]}",
        );
        let head = ":status=200 content-type=application/grpc";
        check(&stage, (1, "A"), None, false, &format!("{head} | hi |  | Never"));
        check(&stage, (1, "A"), Some("q"), false, OPEN);
        check(&stage, (1, "A"), None, true, "- |  | grpc-status=0 | Status(0, \"\")");
        check(&stage, (2, "B"), None, false, OPEN);
        check(&stage, (2, "B"), Some("q"), false, OPEN);
        let took = "x-envoy-upstream-service-time=0";
        check(&stage, (2, "B"), None, true, &format!("{head} {took} | all | grpc-status=0 | Status(0, \"\")"));
        check(&stage, (3, "C"), Some("q"), true, OPEN);
        check(&stage, (4, "D"), None, false, OPEN);
        check(&stage, (4, "D"), Some("q"), false, &format!("{head} | x |  | Closed"));
        check(
            &stage,
            (5, "E"),
            Some("q"),
            true,
            &format!(
                "- |  | {head} grpc-status=12 grpc-message=the suite has no answer to this call {took} | \
             Status(12, \"the suite has no answer to this call\")"
            ),
        );
    }

    #[test]
    fn a_stream_that_goes_on_is_among_the_calls_again_when_something_is_sent_on_it() {
        let stage = stage("{answers: [{when: started, end: never}]}");
        let seen = || {
            let (calls, ..) = stage.take();
            let one = |seen: Seen| {
                let Asked { messages, ended } = seen.grpc.clone().unwrap();
                let messages: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(message)).collect();
                format!("{} {:?} {messages:?} {ended}", seen.line(), seen.headers)
            };
            calls.into_iter().map(one).collect::<Vec<_>>()
        };
        check(&stage, (1, "A"), None, false, OPEN);
        check(&stage, (2, "B"), None, false, OPEN);
        check(&stage, (1, "A"), Some("one"), false, OPEN);
        let head = r#"[("m", "1")]"#;
        assert_eq!(seen(), [format!(r#"c gRPC s/A {head} ["one"] false"#), format!("c gRPC s/B {head} [] false")]);
        check(&stage, (2, "B"), Some("two"), false, OPEN);
        check(&stage, (2, "B"), Some("three"), true, OPEN);
        assert_eq!(seen(), [format!(r#"c gRPC s/B {head} ["two", "three"] true"#)]);
        assert_eq!(seen(), [] as [String; 0]);
    }
}
