//! `envoy.filters.http.rbac` as Istio configures it: AUDIT, then DENY, then ALLOW.

mod matcher;
mod path;

use std::rc::Rc;
use std::sync::Arc;

use mesh::policy::{Action as PolicyAction, AuthorizationPolicy, Condition, Rule};
use serde_json::Value;

use super::RBAC;
use crate::native::{Action, NativeFilter, NativePlugin, NativeWorker, Services, StreamHandle};
use crate::stream::state::{Direction, LocalReply, StreamState};
use matcher::Matcher;

pub(crate) struct Filter(Arc<Engines>);

/// What all requests are asked.
#[derive(Debug, Default)]
struct Engines {
    audit: Engine,
    deny: Engine,
    allow: Engine,
}

/// The policies of one action.
#[derive(Debug, Default)]
struct Engine {
    /// `None` when there are no policies that count.
    enforced: Option<Rules>,
    /// The policies with the annotation `istio.io/dry-run`.
    dry_run: Option<Rules>,
}

/// Rules by name, in the order in which Envoy tries them. Empty: nothing matches.
#[derive(Debug, Default)]
struct Rules(Vec<(String, Compiled)>);

/// Any of `from`, and any of `to`, and all of `when`; an empty list is no restriction.
#[derive(Debug)]
struct Compiled {
    from: Vec<Vec<Matcher>>,
    to: Vec<Vec<Matcher>>,
    when: Vec<Matcher>,
}

impl Filter {
    /// The error says which policy cannot be executed.
    pub(crate) fn new(policies: &[AuthorizationPolicy]) -> Result<Self, String> {
        let mut engines = Engines::default();
        for policy in policies {
            let engine = match policy.action {
                PolicyAction::Audit => &mut engines.audit,
                PolicyAction::Deny => &mut engines.deny,
                PolicyAction::Allow => &mut engines.allow,
                PolicyAction::Custom => {
                    let (namespace, name) = (&policy.namespace, &policy.name);
                    let reason = "which asks an external authorizer (action CUSTOM)";
                    return Err(format!("AuthorizationPolicy {namespace}/{name}, {reason},"));
                }
            };
            let rules = if policy.dry_run { &mut engine.dry_run } else { &mut engine.enforced };
            let rules = rules.get_or_insert_default();
            for (index, rule) in policy.rules.iter().enumerate() {
                let name = format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
                let compiled = Compiled::new(rule, &policy.namespace).map_err(|reason| {
                    format!("AuthorizationPolicy {}/{}, in which {reason},", policy.namespace, policy.name)
                })?;
                rules.0.push((name, compiled));
            }
        }
        for engine in [&mut engines.audit, &mut engines.deny, &mut engines.allow] {
            for rules in [&mut engine.enforced, &mut engine.dry_run].into_iter().flatten() {
                rules.0.sort_by(|a, b| a.0.cmp(&b.0));
            }
        }
        Ok(Self(Arc::new(engines)))
    }

    /// Some policy asks for an identity that mTLS proves.
    pub(crate) fn asks_for_peer(&self) -> bool {
        let Engines { audit, deny, allow } = &*self.0;
        let engines = [audit, deny, allow];
        let rules = engines.iter().flat_map(|engine| [&engine.enforced, &engine.dry_run]).flatten();
        let compiled = rules.flat_map(|rules| &rules.0).map(|(_, rule)| rule);
        compiled.flat_map(|rule| rule.from.iter().flatten().chain(&rule.when)).any(Matcher::asks_for_peer)
    }
}

impl Compiled {
    fn new(rule: &Rule, namespace: &str) -> Result<Self, String> {
        let all = |conditions: &[Condition]| -> Result<Vec<Matcher>, String> {
            conditions.iter().map(|condition| Matcher::new(condition, namespace)).collect()
        };
        Ok(Self {
            from: rule.from.iter().map(|source| all(source)).collect::<Result<_, _>>()?,
            to: rule.to.iter().map(|operation| all(operation)).collect::<Result<_, _>>()?,
            when: all(&rule.when)?,
        })
    }

    fn matches(&self, stream: &StreamState) -> bool {
        let all = |matchers: &[Matcher]| matchers.iter().all(|matcher| matcher.matches(stream));
        let any = |entries: &[Vec<Matcher>]| entries.is_empty() || entries.iter().any(|entry| all(entry));
        any(&self.to) && any(&self.from) && all(&self.when)
    }
}

impl Rules {
    /// The name of the first rule that matches.
    fn matching(&self, stream: &StreamState) -> Option<&str> {
        self.0.iter().find(|(_, rule)| rule.matches(stream)).map(|(name, _)| name.as_str())
    }
}

impl Engines {
    /// The name of the policy that denies the request, `none` when it is that none allows it.
    fn denied_by(&self, stream: &mut StreamState) -> Option<String> {
        if let Some(rules) = &self.audit.enforced {
            let logged = Value::Bool(rules.matching(stream).is_some());
            stream.dynamic_metadata.put("envoy.common", "access_log_hint", logged);
        }
        record(self.deny.dry_run.as_ref(), "deny", stream);
        if let Some(name) = self.deny.enforced.as_ref().and_then(|rules| rules.matching(stream)) {
            return Some(name.to_owned());
        }
        record(self.allow.dry_run.as_ref(), "allow", stream);
        match &self.allow.enforced {
            Some(rules) if rules.matching(stream).is_none() => Some("none".to_owned()),
            _ => None,
        }
    }
}

/// Says in the metadata what policies on trial would have decided.
fn record(rules: Option<&Rules>, action: &str, stream: &mut StreamState) {
    let Some(rules) = rules else { return };
    let matching = rules.matching(stream).map(str::to_owned);
    let allowed = matching.is_some() == (action == "allow");
    let mut set = |field: &str, value: String| {
        let field = format!("istio_dry_run_{action}_shadow_{field}");
        stream.dynamic_metadata.put(RBAC, &field, Value::String(value));
    };
    if let Some(name) = matching {
        set("effective_policy_id", name);
    }
    set("engine_result", if allowed { "allowed" } else { "denied" }.to_owned());
}

impl NativePlugin for Filter {
    fn name(&self) -> &str {
        RBAC
    }

    fn start(&self, _: &Rc<Services>) -> Result<Rc<dyn NativeWorker>, String> {
        Ok(Rc::new(Worker(self.0.clone())))
    }
}

struct Worker(Arc<Engines>);

impl NativeWorker for Worker {
    fn stream(self: Rc<Self>, handle: StreamHandle) -> Box<dyn NativeFilter> {
        Box::new(OneRequest { engines: self.0.clone(), handle })
    }
}

struct OneRequest {
    engines: Arc<Engines>,
    handle: StreamHandle,
}

impl NativeFilter for OneRequest {
    fn headers(&mut self, direction: Direction, _: bool) -> Action {
        if direction == Direction::Request {
            let denied_by = self.engines.denied_by(&mut self.handle.state());
            if let Some(policy) = denied_by {
                let details = format!("rbac_access_denied_matched_policy[{policy}]");
                self.handle.reply(LocalReply::new(403, "RBAC: access denied", details));
            }
        }
        Action::Continue
    }
}
