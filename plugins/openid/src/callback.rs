//! The way back from the provider: a code becomes tokens, and tokens a session.

use std::time::{Duration, UNIX_EPOCH};

use plugwright_sdk::{Host, LocalResponse, Request};

use crate::asked::Asked;
use crate::flow::{OpenId, now};
use crate::id_token::{self, Nonce};
use crate::login::Login;
use crate::page;
use crate::renewal::Problem;
use crate::tokens::{self, Grant, TokensError};

impl OpenId {
    /// Takes a browser that comes back from the provider.
    pub(crate) async fn callback(&self, request: &Request, asked: &Asked) -> LocalResponse {
        if asked.method != "GET" {
            return page::BAD_METHOD.answer(true).header("allow", "GET");
        }
        let now = match now(&request.host()) {
            Ok(now) => now,
            Err(error) => return error.into(),
        };
        let returned = Returned::read(asked.query());
        let login = returned.as_ref().and_then(|back| Login::find(&back.state, asked, &self.settings, now.as_secs()));
        let (Some(returned), Some(login)) = (returned, login) else {
            request.host().info("a browser came back from a sign-in that was not started there");
            return page::NOT_STARTED_HERE.answer(true);
        };
        let end = vec![login.end(&self.settings)];
        match self.complete(request, asked, &returned, &login, now).await {
            Ok(mut cookies) => {
                cookies.extend(end);
                page::redirect(&asked.url(&login.target), "openid_logged_in", &cookies)
            }
            // Nothing has been used up: the browser may try again as it is.
            Err(response) if response.status == 503 => response,
            Err(response) => page::with_cookies(response, &end),
        }
    }

    /// Has the code exchanged; the session's cookies.
    async fn complete(
        &self,
        request: &Request,
        asked: &Asked,
        returned: &Returned,
        login: &Login,
        now: Duration,
    ) -> Result<Vec<String>, LocalResponse> {
        let host = request.host();
        let provider = self.provider(request, asked).await?;
        if returned.issuer.as_ref().is_some_and(|issuer| *issuer != provider.issuer) {
            host.warn("a sign-in came back from another issuer");
            return Err(page::NOT_STARTED_HERE.answer(true));
        }
        let code = match &returned.outcome {
            Ok(code) => code,
            Err(ProviderError::Denied) => return Err(page::DENIED.answer(true)),
            Err(ProviderError::Passing) => return Err(page::UNAVAILABLE.answer(true)),
            Err(ProviderError::Other) => {
                host.warn("a sign-in came back with an error of the provider");
                return Err(page::PROVIDER_ERROR.answer(true));
            }
        };
        let redirect_uri = login.redirect_uri(&self.settings);
        let grant = Grant::Code { code, redirect_uri: &redirect_uri, verifier: &login.verifier };
        let call = tokens::call(&self.settings, &provider, &grant);
        let answer = request.call(&provider.token.cluster, call).await;
        let tokens = tokens::read(answer).map_err(|error| refused(&host, error))?;
        let Some(id_token) = &tokens.id_token else { return Err(refused(&host, TokensError::Field("id_token"))) };
        // The call may have taken a while.
        let now = host.now().map_or(now, |later| later.duration_since(UNIX_EPOCH).unwrap_or(now));
        let expected = self.expected(&provider, Nonce::Required(&login.nonce), None, &tokens, now);
        let mut checked = id_token::check(id_token, &provider.keys(), &expected);
        if checked.as_ref().is_err_and(|error| error.is_about_keys(id_token)) && self.fetch_keys(&provider, now).await {
            checked = id_token::check(id_token, &provider.keys(), &expected);
        }
        let session = checked.map_err(Problem::Id).and_then(|checked| {
            self.session_of(checked, &tokens, id_token, login.nonce.clone(), now.as_secs(), now.as_secs())
        });
        match session {
            Ok(session) => self.keep(&session, asked, now.as_secs(), &host),
            Err(problem) => {
                host.warn(&format!("a sign-in is refused: {problem}"));
                Err(page::TOKEN_REFUSED.answer(true))
            }
        }
    }
}

fn refused(host: &impl Host, error: TokensError) -> LocalResponse {
    host.warn(&format!("a sign-in is refused: {error}"));
    error.answer(true)
}

/// What a provider sends a browser back with (RFC 6749, section 4.1.2; RFC 9207).
struct Returned {
    state: String,
    outcome: Result<String, ProviderError>,
    issuer: Option<String>,
}

/// The errors that the plugin tells apart.
enum ProviderError {
    Denied,
    Passing,
    Other,
}

impl Returned {
    /// Reads it; none when there is no state, neither code nor error, or something twice.
    fn read(query: &str) -> Option<Self> {
        let (mut state, mut code, mut error, mut issuer) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut state,
                "code" => &mut code,
                "error" => &mut error,
                "iss" => &mut issuer,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        let outcome = match (code, error) {
            (Some(code), None) if !code.is_empty() => Ok(code),
            (None, Some(error)) => Err(match error.as_str() {
                "access_denied" => ProviderError::Denied,
                "temporarily_unavailable" => ProviderError::Passing,
                _ => ProviderError::Other,
            }),
            _ => return None,
        };
        Some(Self { state: state?, outcome, issuer })
    }
}
