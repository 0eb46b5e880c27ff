//! The rules of TCP connections.

use mesh::FieldPath;

use super::Rules;
use crate::chain::model::{
    ClientExpectation, Connection, ConnectionExpectation, Side, Step, StepExpectation, TcpUpstreamExpectation, Test,
};

impl Rules {
    pub(super) fn connections(&mut self, path: &FieldPath, test: &Test) {
        if test.connections.is_empty() {
            return;
        }
        if !test.requests.is_empty() {
            self.hinted(
                &path.clone().then("connections"),
                "a test has requests or connections, and not both",
                "make it two tests: requests go through the HTTP chain, connections through the network chain",
            );
        }
        if test.upstream.is_some() {
            self.fault(
                &path.clone().then("upstream"),
                "is of requests; what a connection's upstream does is in its steps",
            );
        }
        if test.cookie_jar {
            self.fault(&path.clone().then("cookieJar"), "is of requests");
        }
        for (index, connection) in test.connections.iter().enumerate() {
            self.connection(&path.clone().then("connections").then(index), connection);
        }
    }

    fn connection(&mut self, path: &FieldPath, connection: &Connection) {
        for (index, step) in connection.steps.iter().enumerate() {
            let path = path.clone().then("steps").then(index);
            let is_upstreams = [step.end, step.reset].contains(&Some(Side::Upstream)) || step.upstream.is_some();
            if connection.unreachable && is_upstreams {
                self.fault(&path, "an upstream that is `unreachable` does nothing");
            }
            self.step(&path, step);
        }
        let Some(expect) = &connection.expect else { return };
        let path = path.clone().then("expect");
        let ConnectionExpectation { client, upstream, closed_by, callouts, logs } = expect;
        if client.is_none() && upstream.is_none() && closed_by.is_none() && callouts.is_none() && logs.is_empty() {
            self.hinted(&path, "it asserts nothing", "there are client, upstream, closedBy, callouts, logs");
        }
        if let Some(ClientExpectation { received, ended }) = client {
            let path = path.clone().then("client");
            if received.is_none() && ended.is_none() {
                self.hinted(&path, "it asserts nothing", "there are received, ended");
            }
            self.body_expectation(&path.then("received"), received.as_ref());
        }
        if let Some(TcpUpstreamExpectation { reached, received, ended }) = upstream {
            let path = path.clone().then("upstream");
            if reached.is_none() && received.is_none() && ended.is_none() {
                self.hinted(&path, "it asserts nothing", "there are reached, received, ended");
            }
            if *reached == Some(false) && (received.is_some() || ended.is_some()) {
                self.fault(
                    &path.clone().then("reached"),
                    "a connection that does not get there has nothing to be looked at",
                );
            }
            self.body_expectation(&path.then("received"), received.as_ref());
        }
        self.callouts(&path.clone().then("callouts"), callouts.as_deref());
        self.logs(&path.then("logs"), logs);
    }

    fn step(&mut self, path: &FieldPath, step: &Step) {
        let Step { advance, client, upstream, end, reset, expect } = step;
        let done = [client.is_some(), upstream.is_some(), end.is_some(), reset.is_some()];
        match done.iter().filter(|done| **done).count() {
            0 if advance.is_none() && expect.is_none() => {
                let hint = "there are client, upstream, end, reset, advance, expect";
                self.hinted(path, "nothing happens in it", hint);
            }
            0 | 1 => {}
            _ => self.hinted(
                path,
                "only one of client, upstream, end, reset may be given",
                "what happens after another thing is another step",
            ),
        }
        for (name, content) in [("client", client), ("upstream", upstream)] {
            if let Some(content) = content {
                self.content(&path.clone().then(name), content);
            }
        }
        if let Some(StepExpectation { client, upstream, ended }) = expect {
            let path = path.clone().then("expect");
            if client.is_none() && upstream.is_none() && ended.is_none() {
                self.hinted(&path, "it asserts nothing", "there are client, upstream, ended");
            }
            self.body_expectation(&path.clone().then("client"), client.as_ref());
            self.body_expectation(&path.then("upstream"), upstream.as_ref());
        }
    }
}
