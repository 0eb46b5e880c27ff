//! Who asks for what: a request as the plugin looks at it.

use plugwright_sdk::{LocalResponse, Request};

use crate::config::Redirect;
use crate::cookie::Cookies;
use crate::page;
use crate::settings::Settings;
use crate::url::Origin;

/// What of a request decides about it.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) target: String,
    pub(crate) origin: Origin,
    pub(crate) cookies: Cookies,
    /// The answer is for a person to read.
    pub(crate) is_navigation: bool,
}

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Callback,
    Logout,
    LoggedOut,
    /// Everything else, however it is written: nothing there is without a session.
    Site,
}

impl Asked {
    /// Reads a request; one whose host cannot be understood is answered with 400.
    pub(crate) fn read(request: &Request, settings: &Settings) -> Result<Self, LocalResponse> {
        let method = request.method();
        let header = |name: &str| request.header(name).unwrap_or_default();
        let mode = header("sec-fetch-mode");
        let wants_page = if mode.is_empty() {
            header("accept").to_ascii_lowercase().contains("text/html") && header("x-requested-with").is_empty()
        } else {
            mode == "navigate"
        };
        let is_navigation = wants_page && matches!(method.as_str(), "GET" | "HEAD");
        let origin = match &settings.public_origin {
            Some(origin) => Some(origin.clone()),
            None => {
                let scheme = header(":scheme");
                let scheme = if scheme.is_empty() { "http" } else { &scheme };
                Origin::new(scheme, &request.authority())
            }
        };
        let origin = origin.ok_or_else(|| page::BAD_HOST.answer(is_navigation))?;
        let cookies = Cookies::read(&request.header_values("cookie")?);
        Ok(Self { method, target: request.path(), origin, cookies, is_navigation })
    }

    /// What the path is for. It is the plugin's own only when it is written as it is configured.
    pub(crate) fn route(&self, settings: &Settings) -> Route {
        let path = self.target.split('?').next().unwrap_or_default();
        if path == settings.callback_path {
            Route::Callback
        } else if path == settings.logout_path {
            Route::Logout
        } else if path == settings.logged_out_path {
            Route::LoggedOut
        } else {
            Route::Site
        }
    }

    /// Whether it is sent to the provider when it has no session.
    pub(crate) fn may_be_redirected(&self, redirect: Redirect) -> bool {
        match redirect {
            Redirect::Navigation => self.is_navigation,
            Redirect::Always => matches!(self.method.as_str(), "GET" | "HEAD"),
            Redirect::Never => false,
        }
    }

    pub(crate) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// A URL on the site that is asked.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin.as_str())
    }
}
