//! The rules of gRPC clusters.

use mesh::FieldPath;

use super::Rules;
use crate::chain::model::{
    GrpcAnswer, GrpcBackend, GrpcCalloutExpectation, GrpcDrop, GrpcEnd, GrpcRoute, Header, HeaderExpectation,
};

/// What the protocol itself puts among the metadata.
const OWN: &[&str] = &["grpc-status", "grpc-message", "grpc-timeout", "content-type", "te"];

impl Rules {
    pub(super) fn grpc_backend(&mut self, path: &FieldPath, backend: &GrpcBackend) {
        let GrpcBackend { answers, routes } = backend;
        if answers.is_empty() && routes.is_empty() {
            self.hinted(path, "it answers nothing", "give `answers`, `routes`, or both");
        }
        self.grpc_answers(&path.clone().then("answers"), answers);
        for (index, route) in routes.iter().enumerate() {
            let path = path.clone().then("routes").then(index);
            let GrpcRoute { service, method, answers } = route;
            if service.is_none() && method.is_none() {
                let hint = "give `service`, `method` or both; `answers` of the server are for the rest";
                self.hinted(&path, "it has no condition", hint);
            }
            self.grpc_name(&path.clone().then("service"), service.as_deref());
            self.grpc_name(&path.clone().then("method"), method.as_deref());
            if answers.is_empty() {
                self.fault(&path.clone().then("answers"), "there are none");
            }
            self.grpc_answers(&path.then("answers"), answers);
        }
    }

    fn grpc_answers(&mut self, path: &FieldPath, answers: &[GrpcAnswer]) {
        for (index, answer) in answers.iter().enumerate() {
            let path = path.clone().then(index);
            let GrpcAnswer {
                when: _,
                delay: _,
                initial_metadata,
                messages,
                end,
                status,
                status_message,
                trailing_metadata,
                drop,
            } = answer;
            let has_end = status.is_some() || status_message.is_some() || !trailing_metadata.is_empty();
            if *drop == Some(GrpcDrop::BeforeResponse) && (!messages.is_empty() || !initial_metadata.is_empty()) {
                self.fault(&path.clone().then("drop"), "there is no answer before which to close");
            }
            if drop.is_some() && (has_end || *end != GrpcEnd::AtOnce) {
                self.fault(&path.clone().then("drop"), "stands in the place of an end and its status");
            }
            if *end == GrpcEnd::Never && has_end {
                self.fault(&path.clone().then("end"), "what never ends has no status and no trailing metadata");
            }
            self.optional(&path.clone().then("statusMessage"), status_message.as_deref());
            self.metadata(&path.clone().then("initialMetadata"), initial_metadata);
            self.metadata(&path.clone().then("trailingMetadata"), trailing_metadata);
            for (at, message) in messages.iter().enumerate() {
                self.content(&path.clone().then("messages").then(at), message);
            }
        }
    }

    fn metadata(&mut self, path: &FieldPath, metadata: &[Header]) {
        for (index, header) in metadata.iter().enumerate() {
            if OWN.iter().any(|own| header.name.eq_ignore_ascii_case(own)) {
                let what = format!("{} is the protocol's own", header.name);
                self.hinted(&path.clone().then(index).then("name"), what, "there are `status` and `statusMessage`");
            }
        }
        self.headers(path, metadata);
    }

    pub(super) fn grpc_callout(&mut self, path: &FieldPath, grpc: &GrpcCalloutExpectation) {
        let GrpcCalloutExpectation { service, method, metadata, messages, ended } = grpc;
        let named = service.is_some() || method.is_some();
        if !named && metadata.is_empty() && messages.is_none() && ended.is_none() {
            self.hinted(path, "it asserts nothing", "there are service, method, metadata, messages, ended");
        }
        self.grpc_name(&path.clone().then("service"), service.as_deref());
        self.grpc_name(&path.clone().then("method"), method.as_deref());
        self.header_expectations(&path.clone().then("metadata"), metadata);
        for (at, message) in messages.iter().flatten().enumerate() {
            self.body_expectation(&path.clone().then("messages").then(at), Some(message));
        }
        for (index, HeaderExpectation { name, .. }) in metadata.iter().enumerate() {
            if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                self.fault(&path.clone().then("metadata").then(index).then("name"), "is no metadata of a plugin's");
            }
        }
    }

    /// A service and a method are told apart by a slash, which is in neither.
    fn grpc_name(&mut self, path: &FieldPath, name: Option<&str>) {
        if name.is_some_and(|name| name.is_empty() || name.contains(['/', ' '])) {
            self.hinted(path, "is no name", "a service is written like score.v1.Scores, and a method like Get");
        }
    }
}
