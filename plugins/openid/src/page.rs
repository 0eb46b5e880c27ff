//! Answers of the plugin's own: pages for people, lines for programs. Nothing from a request or the provider is in them.

use plugwright_sdk::LocalResponse;

/// An answer that says what is wrong and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    status: u16,
    details: &'static str,
    title: &'static str,
    text: &'static str,
    /// Whether to try again soon is of use.
    again: bool,
}

const fn page(status: u16, details: &'static str, title: &'static str, text: &'static str) -> Page {
    Page { status, details, title, text, again: false }
}

const fn later(details: &'static str, text: &'static str) -> Page {
    Page { status: 503, details, title: "Signing in is not possible right now", text, again: true }
}

pub(crate) const BAD_HOST: Page =
    page(400, "openid_bad_host", "This request has no host", "The host that the request names is not one.");
pub(crate) const BAD_METHOD: Page =
    page(405, "openid_bad_method", "This method is not for this address", "Ask for the page with GET.");
pub(crate) const NOT_STARTED_HERE: Page = page(
    400,
    "openid_state_mismatch",
    "This sign-in was not started here",
    "It was started in another browser, was completed already, or took too long. Please start again.",
);
pub(crate) const DENIED: Page = page(
    403,
    "openid_access_denied",
    "Access was not granted",
    "The sign-in was cancelled, or the identity provider did not allow it.",
);
pub(crate) const PROVIDER_ERROR: Page = page(
    502,
    "openid_provider_error",
    "The identity provider reported an error",
    "The sign-in could not be completed. Please try again, and tell the operator if this persists.",
);
pub(crate) const CODE_REFUSED: Page = page(
    400,
    "openid_code_refused",
    "This sign-in cannot be completed",
    "The identity provider does not accept it any more: it was used already, or took too long. Please start again.",
);
pub(crate) const TOKEN_REFUSED: Page = page(
    502,
    "openid_token_refused",
    "This sign-in cannot be trusted",
    "What the identity provider answered did not pass the checks. Please try again, and tell the operator if this \
     persists.",
);
pub(crate) const MISCONFIGURED: Page = page(
    502,
    "openid_client_refused",
    "Signing in is not set up correctly",
    "The identity provider does not accept this site as its client. Please tell the operator.",
);
pub(crate) const TOO_LARGE: Page = page(
    502,
    "openid_session_too_large",
    "The sign-in is too large",
    "The identity provider's tokens do not fit into cookies. Please tell the operator.",
);
pub(crate) const UNAVAILABLE: Page =
    later("openid_provider_unavailable", "The identity provider does not answer. Please try again in a moment.");
pub(crate) const NOT_READY: Page =
    later("openid_not_ready", "The identity provider has not been reached yet. Please try again in a moment.");
pub(crate) const TOO_MANY: Page = later(
    "openid_too_many_held",
    "Too many requests are waiting for the identity provider. Please try again in a moment.",
);
pub(crate) const LOGGED_OUT: Page =
    page(200, "openid_logged_out", "You are signed out", "Follow the link to sign in again.");
const UNAUTHENTICATED: Page =
    page(401, "openid_no_session", "You are not signed in", "Open the site in a browser to sign in.");

impl Page {
    /// The response: HTML for people, a line of text for programs.
    pub(crate) fn answer(&self, for_people: bool) -> LocalResponse {
        let Self { status, details, title, text, again } = self;
        let response = LocalResponse::new(*status).details(details).header("cache-control", "no-store");
        let response = if *again { response.header("retry-after", "5") } else { response };
        if !for_people {
            return response.header("content-type", "text/plain; charset=utf-8").body(format!("{title}. {text}\n"));
        }
        let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
        response
            .header("content-type", "text/html; charset=utf-8")
            .header("content-security-policy", policy)
            .header("referrer-policy", "no-referrer")
            .header("x-content-type-options", "nosniff")
            .body(format!(
                "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
                 content=\"width=device-width\"><title>{title}</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;\
                 max-width:34rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}}</style><h1>{title}</h1>\
                 <p>{text}</p><p><a href=\"/\">To the site</a></p></html>\n"
            ))
    }

    pub(crate) const fn details(&self) -> &'static str {
        self.details
    }
}

/// What a request without a session gets that is not sent to the provider.
pub(crate) fn unauthenticated(for_people: bool) -> LocalResponse {
    UNAUTHENTICATED.answer(for_people).header("www-authenticate", "Bearer")
}

/// Sends a browser elsewhere.
pub(crate) fn redirect(location: &str, details: &str, cookies: &[String]) -> LocalResponse {
    let response = LocalResponse::new(302).details(details).header("location", location);
    with_cookies(response.header("cache-control", "no-store").header("referrer-policy", "no-referrer"), cookies)
}

pub(crate) fn with_cookies(response: LocalResponse, cookies: &[String]) -> LocalResponse {
    cookies.iter().fold(response, |response, cookie| response.header("set-cookie", cookie))
}
