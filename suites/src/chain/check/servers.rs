//! The rules of what servers answer.

use mesh::FieldPath;

use super::{Rules, is_token};
use crate::chain::model::{Answer, Cluster, Content, Drop, Header, Route};

impl Rules {
    pub(super) fn clusters(&mut self, path: &FieldPath, clusters: &[Cluster]) {
        for (index, cluster) in clusters.iter().enumerate() {
            let path = path.clone().then(index);
            if cluster.name.is_empty() {
                self.fault(&path.clone().then("name"), "is empty");
            }
            if clusters[..index].iter().any(|other| other.name == cluster.name) {
                self.fault(&path.clone().then("name"), "is another cluster's name as well");
            }
            for (at, host) in cluster.hosts.iter().enumerate() {
                if host.is_empty() || host.contains(['/', ' ', '@']) {
                    self.fault(&path.clone().then("hosts").then(at), "is no host: expected HOST or HOST:PORT");
                }
            }
            let has_http = !cluster.answers.is_empty() || !cluster.routes.is_empty();
            if cluster.unreachable {
                if has_http || cluster.grpc.is_some() || !cluster.hosts.is_empty() {
                    self.fault(&path.then("unreachable"), "where nobody is, nothing is answered");
                }
                continue;
            }
            match &cluster.grpc {
                Some(_) if has_http => {
                    self.fault(&path.then("grpc"), "a cluster speaks gRPC, or HTTP with `answers` and `routes`");
                }
                Some(_) if !cluster.hosts.is_empty() => {
                    self.fault(&path.then("hosts"), "are of documents, which are not fetched by gRPC");
                }
                Some(grpc) => self.grpc_backend(&path.then("grpc"), grpc),
                None => self.backend(&path, &cluster.answers, &cluster.routes),
            }
        }
    }

    pub(super) fn backend(&mut self, path: &FieldPath, answers: &[Answer], routes: &[Route]) {
        if answers.is_empty() && routes.is_empty() {
            self.hinted(path, "it answers nothing", "give `answers`, `routes`, or both; of a cluster, or `grpc`");
        }
        self.answers(&path.clone().then("answers"), answers);
        for (index, route) in routes.iter().enumerate() {
            let path = path.clone().then("routes").then(index);
            let Route { method, path: target, path_regex, answers } = route;
            if method.is_none() && target.is_none() && path_regex.is_none() {
                self.hinted(
                    &path,
                    "it has no condition",
                    "give `path`, `pathRegex` or `method`; `answers` of the server are for the rest",
                );
            }
            if target.as_ref().is_some_and(|path| path.contains('?')) {
                self.fault(&path.clone().then("path"), "is compared without the query");
            }
            self.regex(&path.clone().then("pathRegex"), path_regex.as_deref());
            if answers.is_empty() {
                self.fault(&path.clone().then("answers"), "there are none");
            }
            self.answers(&path.then("answers"), answers);
        }
    }

    fn answers(&mut self, path: &FieldPath, answers: &[Answer]) {
        for (index, answer) in answers.iter().enumerate() {
            let path = path.clone().then(index);
            let Answer { delay: _, status, headers, body, echo, drop } = answer;
            let response = status.is_some() || !headers.is_empty() || body.is_some();
            if *echo && (response || drop.is_some()) {
                self.fault(&path.clone().then("echo"), "an echo has nothing beside it but `delay`");
            }
            if *drop == Some(Drop::BeforeResponse) && response {
                self.fault(&path.clone().then("drop"), "there is no response before which to close");
            }
            if let Some(status) = status.filter(|status| !(200..=599).contains(status)) {
                self.fault(&path.clone().then("status"), format!("{status} is no status of a response"));
            }
            self.headers(&path.clone().then("headers"), headers);
            if let Some(body) = body {
                self.content(&path.then("body"), body);
            }
        }
    }

    pub(super) fn headers(&mut self, path: &FieldPath, headers: &[Header]) {
        for (index, header) in headers.iter().enumerate() {
            let path = path.clone().then(index);
            if !is_token(&header.name) {
                self.fault(&path.clone().then("name"), "is no name of a header");
            }
            for (name, instead) in
                [("host", "`host`"), ("content-length", "the body's own size"), ("transfer-encoding", "`body`")]
            {
                if header.name.eq_ignore_ascii_case(name) {
                    self.fault(&path.clone().then("name"), format!("{name} is not given as a header: it is {instead}"));
                }
            }
            self.text(&path.clone().then("value"), &header.value);
            if header.value.contains(|c: char| c.is_control() && c != '\t') {
                self.fault(&path.then("value"), "has a control character");
            }
        }
    }

    pub(super) fn content(&mut self, path: &FieldPath, content: &Content) {
        let Content { text, json, file, base64, hex } = content;
        let given = [text.is_some(), json.is_some(), file.is_some(), base64.is_some(), hex.is_some()];
        self.exactly_one(path, &given, "text, json, file, base64, hex");
        self.optional(&path.clone().then("text"), text.as_deref());
        self.json(&path.clone().then("json"), json.as_ref());
        self.octets(path, base64.as_deref(), hex.as_deref());
    }
}
