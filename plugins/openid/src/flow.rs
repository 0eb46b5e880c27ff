//! The authorization code flow, from a request without a session to one with a token.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use plugwright_sdk::{Answer, AsyncPlugin, ConfigError, Host, HostError, Latch, LocalResponse, Request, Root};

use crate::asked::{Asked, Route};
use crate::background::{Flight, Place, Queue, both, within};
use crate::config::Config;
use crate::cookie;
use crate::login::Login;
use crate::page;
use crate::provider::Provider;
use crate::refresh::{NotRefreshed, Refresh, Refreshed, Refreshes};
use crate::seal::Use;
use crate::session::Session;
use crate::settings::Settings;
use crate::workers;

/// How soon discovery is tried again after it failed; each time it is twice as long, up to less than requests are held.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often at most keys are fetched because a token named one that is not there.
const KEYS_PAUSE: u64 = 30;

/// Signs users in at an OpenID provider.
pub struct OpenId {
    pub(crate) settings: Settings,
    provider: RefCell<Option<Rc<Provider>>>,
    discovered: Latch,
    held: Cell<u32>,
    queue: Queue<Job>,
    refreshes: Refreshes,
    keys: RefCell<Option<(u64, Rc<Flight<()>>)>>,
}

// What it holds are secrets.
impl fmt::Debug for OpenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenId").finish_non_exhaustive()
    }
}

/// What is done beside the streams, so that a client that leaves does not stop it half way.
enum Job {
    Keys(Rc<Provider>, Rc<Flight<()>>),
    Refresh(Rc<Provider>, Session, String, Rc<Flight<Refreshed>>),
}

impl AsyncPlugin for OpenId {
    type Config = Config;

    fn configure(config: Config, host: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: config.into_settings(host)?,
            provider: RefCell::default(),
            discovered: Latch::default(),
            held: Cell::new(0),
            queue: Queue::default(),
            refreshes: Refreshes::default(),
            keys: RefCell::default(),
        })
    }

    async fn start(&self, root: Root) {
        workers::prepare(&mut root.host());
        both(self.keep_discovered(&root), self.queue.work(|job| self.perform(job, &root))).await;
    }

    async fn on_request(&self, request: Request) -> Answer {
        let asked = Asked::read(&request, &self.settings)?;
        match asked.route(&self.settings) {
            Route::Callback => Err(self.callback(&request, &asked).await),
            Route::Logout => Err(self.log_out(&request, &asked).await),
            Route::LoggedOut => Err(page::LOGGED_OUT.answer(true)),
            Route::Site => self.guard(request, &asked).await,
        }
    }
}

impl OpenId {
    /// Fetches the provider's metadata and keys, now and again and again.
    async fn keep_discovered(&self, root: &Root) {
        let mut pause = FIRST_PAUSE;
        loop {
            match Provider::discover(root, &self.settings).await {
                Ok(provider) => {
                    self.provider.replace(Some(Rc::new(provider)));
                    self.discovered.open();
                    pause = FIRST_PAUSE;
                    root.sleep(self.settings.metadata).await;
                }
                Err(error) => {
                    root.host().warn(&format!("discovery failed: {error}"));
                    root.sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn perform(&self, job: Job, root: &Root) {
        match job {
            Job::Keys(provider, flight) => {
                if let Err(error) = provider.fetch_keys(root, &self.settings).await {
                    root.host().warn(&format!("fetching keys again failed: {error}"));
                }
                flight.land(());
            }
            Job::Refresh(provider, session, token, flight) => {
                flight.land(self.refresh_once(&provider, &session, &token, root).await.map(Rc::new));
            }
        }
    }

    /// The provider, once it has been discovered.
    pub(crate) async fn provider(&self, request: &Request, asked: &Asked) -> Result<Rc<Provider>, LocalResponse> {
        if !self.discovered.is_open() {
            let place = Place::take(&self.held, self.settings.held_requests);
            let _place = place.ok_or_else(|| page::TOO_MANY.answer(asked.is_navigation))?;
            within(request.sleep(self.settings.hold), self.discovered.wait()).await;
        }
        let provider = self.provider.borrow().clone();
        provider.ok_or_else(|| page::NOT_READY.answer(asked.is_navigation))
    }

    /// Lets a request with a session pass, and sends one without to the provider.
    async fn guard(&self, request: Request, asked: &Asked) -> Answer {
        let now = now(&request.host())?.as_secs();
        let Some(session) = self.session(asked, now) else { return Err(self.log_in(&request, asked, now).await?) };
        let is_valid = session.expires > now;
        let is_fresh = session.expires > now.saturating_add(self.settings.refresh_ahead.as_secs());
        let (false, Some(refresh_token)) = (is_fresh, session.refresh_token.clone()) else {
            if is_valid {
                return self.pass(request, asked, &session, None).await;
            }
            return Err(self.log_in(&request, asked, now).await?);
        };
        // The outcome, and whether somebody is to be told that it has to wait.
        let refreshed = match self.provider(&request, asked).await {
            Ok(provider) => self.refreshed(provider, &session, refresh_token, now).await,
            Err(not_ready) if !is_valid => return Err(not_ready),
            Err(_) => Err(NotRefreshed::Later),
        };
        match refreshed {
            Ok(refreshed) => {
                let cookies = self.keep(&refreshed, asked, now, &request.host())?;
                self.pass(request, asked, &refreshed, Some(cookies)).await
            }
            // It ends soon, and not before its time.
            Err(_) if is_valid => self.pass(request, asked, &session, None).await,
            Err(NotRefreshed::Later) => Err(page::UNAVAILABLE.answer(asked.is_navigation)),
            Err(NotRefreshed::Never) => Err(self.log_in(&request, asked, now).await?),
        }
    }

    /// The session of the request's cookies, unless it is over.
    fn session(&self, asked: &Asked, now: u64) -> Option<Session> {
        let sealed = asked.cookies.join(&self.settings.cookie_name)?;
        let session = Session::decode(&self.settings.sealer.open(Use::Session, &sealed)?)?;
        (now < session.created.saturating_add(self.settings.session.as_secs())).then_some(session)
    }

    /// The `set-cookie` headers that keep a session for as long as it may last.
    pub(crate) fn keep(
        &self,
        session: &Session,
        asked: &Asked,
        now: u64,
        host: &impl Host,
    ) -> Result<Vec<String>, LocalResponse> {
        let sealed = self.settings.sealer.seal(Use::Session, &session.encode(), host)?;
        let left = session.created.saturating_add(self.settings.session.as_secs()).saturating_sub(now);
        cookie::spread(&self.settings.cookie_name, &sealed, left, &asked.cookies)
            .ok_or_else(|| page::TOO_LARGE.answer(asked.is_navigation))
    }

    /// Lets a request go on with the session's token, and nothing that the client may have sent in its place.
    async fn pass(
        &self,
        mut request: Request,
        asked: &Asked,
        session: &Session,
        cookies: Option<Vec<String>>,
    ) -> Answer {
        request.remove_header("authorization")?;
        request.add_header("authorization", &format!("Bearer {}", session.forwarded))?;
        if !self.settings.forward_cookies && asked.cookies.iter().next().is_some() {
            match cookie::without_own(&request.header_values("cookie")?, &self.settings.cookie_name) {
                Ok(Some(rest)) => {
                    request.remove_header("cookie")?;
                    request.add_header("cookie", &rest)?;
                }
                Ok(None) => request.remove_header("cookie")?,
                Err(()) => {}
            }
        }
        let Some(cookies) = cookies else { return Ok(()) };
        let mut response = request.forward().await;
        for cookie in cookies {
            response.add_header("set-cookie", &cookie)?;
        }
        Ok(())
    }

    /// Sends a browser to the provider, and others nowhere.
    async fn log_in(&self, request: &Request, asked: &Asked, now: u64) -> Result<LocalResponse, LocalResponse> {
        if !asked.may_be_redirected(self.settings.redirect) {
            return Ok(page::unauthenticated(asked.is_navigation));
        }
        let provider = self.provider(request, asked).await?;
        let login = Login::begin(asked, &self.settings, now, &request.host())?;
        let cookies = login.cookies(&self.settings, &asked.cookies, &request.host())?;
        Ok(page::redirect(&login.url(&provider, &self.settings), "openid_login", &cookies))
    }

    /// Has the keys fetched again, unless that was done a moment ago; whether they may be others now.
    pub(crate) async fn fetch_keys(&self, provider: &Rc<Provider>, now: Duration) -> bool {
        let now = now.as_secs();
        let under_way = {
            let mut keys = self.keys.borrow_mut();
            match &*keys {
                Some((begun, flight)) if now.saturating_sub(*begun) < KEYS_PAUSE => {
                    // Who comes while they are being fetched waits for the same keys; who comes later does not.
                    if flight.result().is_some() {
                        return false;
                    }
                    Rc::clone(flight)
                }
                _ => {
                    let flight = Rc::new(Flight::default());
                    *keys = Some((now, Rc::clone(&flight)));
                    self.queue.push(Job::Keys(Rc::clone(provider), Rc::clone(&flight)));
                    flight
                }
            }
        };
        under_way.wait().await.is_some()
    }

    /// A session with new tokens, asked for once however many requests need it.
    async fn refreshed(&self, provider: Rc<Provider>, session: &Session, token: String, now: u64) -> Refreshed {
        let flight = match self.refreshes.join(&token, now) {
            Refresh::Joined(flight) => flight,
            Refresh::New(flight) => {
                self.queue.push(Job::Refresh(provider, session.clone(), token, Rc::clone(&flight)));
                flight
            }
            Refresh::TooMany => return Err(NotRefreshed::Later),
        };
        flight.wait().await.unwrap_or(Err(NotRefreshed::Later))
    }

    /// Ends the session here and, where the provider has a place for that, there.
    async fn log_out(&self, request: &Request, asked: &Asked) -> LocalResponse {
        let settings = &self.settings;
        if !matches!(asked.method.as_str(), "GET" | "POST") {
            return page::BAD_METHOD.answer(true).header("allow", "GET, POST");
        }
        let cookies = cookie::forget(&settings.cookie_name, &asked.cookies);
        let session = asked.cookies.join(&settings.cookie_name);
        let session = session.and_then(|sealed| Session::decode(&settings.sealer.open(Use::Session, &sealed)?));
        let here = asked.url(&settings.logged_out_path);
        // Without a session there is nothing to end, and without the provider no way to end it there.
        let end_session = match (&session, self.provider(request, asked).await) {
            (Some(_), Ok(provider)) => provider.end_session.clone(),
            _ => None,
        };
        let (Some(session), Some(end_session)) = (session, end_session) else {
            return page::redirect(&here, page::LOGGED_OUT.details(), &cookies);
        };
        let parameters = [
            ("id_token_hint", session.id_token_hint()),
            ("client_id", &settings.client.id),
            ("post_logout_redirect_uri", &here),
        ];
        page::redirect(&crate::url::with_query(&end_session, parameters), page::LOGGED_OUT.details(), &cookies)
    }
}

pub(crate) fn now(host: &impl Host) -> Result<Duration, HostError> {
    Ok(host.now()?.duration_since(UNIX_EPOCH).unwrap_or_default())
}
