//! What tokens make of a session: a new one at the callback, one that goes on when they are refreshed.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use plugwright_sdk::{Host, Root};

use crate::config::Forward;
use crate::flow::{OpenId, now};
use crate::id_token::{self, Expected, IdToken, IdTokenError, Nonce};
use crate::provider::Provider;
use crate::refresh::{self, NotRefreshed};
use crate::session::Session;
use crate::settings::Settings;
use crate::tokens::{self, Grant, Tokens};
use crate::workers::{self, Claim};

/// How often is looked whether another worker is done.
const LOOK: Duration = Duration::from_millis(20);

impl OpenId {
    pub(crate) fn expected<'a>(
        &'a self,
        provider: &'a Provider,
        nonce: Nonce<'a>,
        subject: Option<&'a str>,
        tokens: &'a Tokens,
        now: Duration,
    ) -> Expected<'a> {
        let access_token = match self.settings.forward {
            Forward::IdToken => None,
            Forward::AccessToken => tokens.access_token.as_deref(),
        };
        let Settings { client, skew, .. } = &self.settings;
        Expected { issuer: &provider.issuer, client_id: &client.id, nonce, subject, access_token, now, skew: *skew }
    }

    /// The session that tokens make.
    pub(crate) fn session_of(
        &self,
        checked: IdToken,
        tokens: &Tokens,
        id_token: &str,
        nonce: String,
        created: u64,
        now: u64,
    ) -> Result<Session, Problem> {
        let refresh_token = tokens.refresh_token.clone();
        let (forwarded, expires, id_token) = match self.settings.forward {
            Forward::IdToken => (id_token.to_owned(), checked.expires, None),
            Forward::AccessToken => {
                let token = tokens.access_token.clone().ok_or(Problem::AccessMissing)?;
                if jose::Token::parse(&token).is_err() {
                    return Err(Problem::AccessOpaque);
                }
                let expires = tokens.expires_in.map_or(checked.expires, |seconds| now.saturating_add(seconds));
                (token, expires, Some(id_token.to_owned()))
            }
        };
        Ok(Session { created, expires, forwarded, id_token, refresh_token, subject: checked.subject, nonce })
    }

    /// Asks the provider, unless another worker does or just has.
    pub(crate) async fn refresh_once(
        &self,
        provider: &Rc<Provider>,
        session: &Session,
        token: &str,
        root: &Root,
    ) -> Result<Session, NotRefreshed> {
        let (sealer, hash) = (&self.settings.sealer, refresh::hash(token));
        // The token's call, that for keys, and what a loaded machine adds.
        let patience = self.settings.timeout.as_secs().saturating_mul(2).saturating_add(5);
        let seconds = |host: &_| now(host).map(|now| now.as_secs()).map_err(|_| NotRefreshed::Later);
        loop {
            let mut host = root.host();
            let begun = seconds(&host)?;
            match workers::claim(&mut host, sealer, &hash, begun, patience) {
                Claim::Mine => {
                    let outcome = self.refresh(provider, session, token, root).await;
                    let ended = seconds(&host).unwrap_or(begun);
                    workers::tell(&mut host, sealer, &hash, ended, &outcome);
                    return outcome;
                }
                Claim::Others => root.sleep(LOOK).await,
                Claim::Done(outcome) => return outcome,
            }
        }
    }

    async fn refresh(
        &self,
        provider: &Rc<Provider>,
        session: &Session,
        token: &str,
        root: &Root,
    ) -> Result<Session, NotRefreshed> {
        let host = root.host();
        let call = tokens::call(&self.settings, provider, &Grant::Refresh { token });
        let tokens = tokens::read(root.call(&provider.token.cluster, call).await).map_err(|error| {
            host.warn(&format!("a session is not refreshed: {error}"));
            if error.is_passing() { NotRefreshed::Later } else { NotRefreshed::Never }
        })?;
        let Ok(now) = now(&host) else { return Err(NotRefreshed::Later) };
        self.renew(provider, session, tokens, now).await.map_err(|problem| {
            host.warn(&format!("a session is not refreshed: {problem}"));
            NotRefreshed::Never
        })
    }

    /// Checks refreshed tokens against the session that they are to continue.
    async fn renew(
        &self,
        provider: &Rc<Provider>,
        session: &Session,
        mut tokens: Tokens,
        now: Duration,
    ) -> Result<Session, Problem> {
        // A provider that does not rotate it may leave it out.
        tokens.refresh_token = tokens.refresh_token.or_else(|| session.refresh_token.clone());
        let Some(id_token) = tokens.id_token.clone() else {
            // Who the user is stays as it was; it takes a new access token to go on.
            let Forward::AccessToken = self.settings.forward else { return Err(Problem::IdMissing) };
            let checked = IdToken { expires: 0, subject: session.subject.clone() };
            let hint = session.id_token_hint().to_owned();
            let (created, nonce) = (session.created, session.nonce.clone());
            return self.session_of(checked, &tokens, &hint, nonce, created, now.as_secs());
        };
        let nonce = Nonce::IfThere(&session.nonce);
        let expected = self.expected(provider, nonce, Some(&session.subject), &tokens, now);
        let mut checked = id_token::check(&id_token, &provider.keys(), &expected);
        if checked.as_ref().is_err_and(|error| error.is_about_keys(&id_token)) && self.fetch_keys(provider, now).await {
            checked = id_token::check(&id_token, &provider.keys(), &expected);
        }
        let checked = checked.map_err(Problem::Id)?;
        self.session_of(checked, &tokens, &id_token, session.nonce.clone(), session.created, now.as_secs())
    }
}

/// Why tokens make no session. It quotes nothing of them.
pub(crate) enum Problem {
    Id(IdTokenError),
    IdMissing,
    AccessMissing,
    AccessOpaque,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(error) => write!(f, "ID token: {error}"),
            Self::IdMissing => f.write_str("the provider sent no ID token"),
            Self::AccessMissing => f.write_str("the provider sent no access token"),
            Self::AccessOpaque => f.write_str("the access token is not a JWT, which `forward: access_token` needs"),
        }
    }
}
