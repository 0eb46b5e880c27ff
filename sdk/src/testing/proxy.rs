//! A proxy with one plugin, which a test sends traffic through.

use std::cell::RefCell;
use std::ffi::OsString;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use super::guest::Testable;
use super::host::InMemoryHost;
use super::native::Native;
use super::remote::{Remote, Wasm};
use super::{Clock, Connection, Exchange, GrpcReply, GrpcRequest, Message, Reply, response};
use crate::{ConfigError, LogLevel};

/// Runs one plugin, of any kind, before an upstream and beside backends that the test scripts.
///
/// Requests are sent one after another. Whatever the plugin waits for happens at once: the clock jumps there.
pub struct Proxy<P> {
    pub(super) engine: Engine,
    host: Rc<RefCell<InMemoryHost>>,
    upstream: Message,
    plugin: PhantomData<fn() -> P>,
}

/// What the plugin runs in.
pub(super) enum Engine {
    Native(Native),
    Wasm(Remote),
}

// A plugin holds secrets and need not be printable.
impl<P> std::fmt::Debug for Proxy<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("host", &self.host).finish_non_exhaustive()
    }
}

impl<P> Proxy<P> {
    /// Configures the plugin with these bytes; no bytes are no configuration.
    pub fn new<K>(configuration: impl AsRef<[u8]>) -> Result<Self, ConfigError>
    where
        P: Testable<K>,
    {
        Self::on(InMemoryHost::default(), configuration)
    }

    /// Configures the plugin on a host that the test has prepared with properties, environment or time.
    pub fn on<K>(host: InMemoryHost, configuration: impl AsRef<[u8]>) -> Result<Self, ConfigError>
    where
        P: Testable<K>,
    {
        Self::start(host, configuration.as_ref(), None)
    }

    fn start<K>(host: InMemoryHost, configuration: &[u8], wasm: Option<&Wasm>) -> Result<Self, ConfigError>
    where
        P: Testable<K>,
    {
        #[cfg(feature = "log")]
        crate::logger::install();
        let host = Rc::new(RefCell::new(host));
        let engine = match wasm {
            Some(wasm) => Engine::Wasm(Remote::start(wasm, &host, configuration, P::NETWORK)?),
            None => {
                let loaded = super::active::enter(&host, || P::load(configuration))?;
                Engine::Native(Native::new(loaded, &host))
            }
        };
        Ok(Self { engine, host, upstream: response(200), plugin: PhantomData })
    }

    /// Sets what the upstream answers from now on; at first it is an empty 200.
    #[must_use]
    pub fn upstream(mut self, response: Message) -> Self {
        self.upstream = response;
        self
    }

    /// Has a backend answer the HTTP calls to a cluster. Calls to clusters without one are refused, as in a proxy.
    #[must_use]
    pub fn cluster<R: Into<Reply>>(self, name: &str, mut backend: impl FnMut(&Message) -> R + 'static) -> Self {
        self.host.borrow_mut().waits.backend(name, Box::new(move |call| backend(call).into()));
        self
    }

    /// Has a backend answer the gRPC calls to a cluster.
    #[must_use]
    pub fn grpc_cluster(self, name: &str, backend: impl FnMut(&GrpcRequest) -> GrpcReply + 'static) -> Self {
        self.host.borrow_mut().waits.grpc_backend(name, Box::new(backend));
        self
    }

    /// Lets time pass, and all that happens in it.
    pub fn pass(&mut self, time: Duration) {
        match &mut self.engine {
            Engine::Native(native) => native.pass(time),
            Engine::Wasm(remote) => remote.pass(time),
        }
    }

    /// Returns the clock that this proxy runs by.
    pub fn clock(&self) -> Clock {
        self.host.borrow().clock.clone()
    }

    /// Returns what the plugin logged since it was configured.
    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        self.host.borrow().logs.borrow().clone()
    }

    /// Returns the value of the counter or gauge `name`, with its labels as they are in the name.
    pub fn metric(&mut self, name: &str) -> Option<u64> {
        match &mut self.engine {
            Engine::Native(_) => self.host.borrow().metric_named(name),
            Engine::Wasm(remote) => remote.metric(name),
        }
    }

    /// Sends one request through the plugin to the upstream, and the response back.
    pub fn send(&mut self, request: Message) -> Exchange {
        self.exchange(request, None)
    }

    /// Sends one request, as [`send`](Self::send) does, whose client leaves if the plugin still holds it after this
    /// long. What the plugin began for it, calls say, may end later: [`pass`](Self::pass) lets it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use plugwright_sdk::testing::{Proxy, get};
    /// # use plugwright_sdk::{Answer, AsyncPlugin, ConfigError, Host, Request};
    /// # struct Slow;
    /// # impl AsyncPlugin for Slow {
    /// #     type Config = serde::de::IgnoredAny;
    /// #     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> { Ok(Slow) }
    /// async fn on_request(&self, request: Request) -> Answer {
    ///     request.sleep(Duration::from_secs(3)).await;
    ///     Ok(())
    /// }
    /// # }
    /// # let mut proxy = Proxy::<Slow>::new("{}").unwrap();
    /// let exchange = proxy.send_and_leave(get("/"), Duration::from_secs(1));
    /// assert!(exchange.forwarded().is_none() && exchange.response().is_none());
    /// ```
    pub fn send_and_leave(&mut self, request: Message, after: Duration) -> Exchange {
        self.exchange(request, Some(after))
    }

    fn exchange(&mut self, request: Message, patience: Option<Duration>) -> Exchange {
        let upstream = self.upstream.clone();
        match &mut self.engine {
            Engine::Native(native) => native.send(request, upstream, patience),
            Engine::Wasm(remote) => remote.send(&request, &upstream, patience),
        }
    }

    /// Opens a connection through a network plugin; the one before is closed.
    pub fn connect(&mut self) -> Connection<'_> {
        Connection::open(&mut self.engine)
    }
}

/// A proxy that is to be: natively, or with the plugin's module in the harness. Made by [`proxy!`](crate::proxy).
#[derive(Debug)]
pub struct Setup<P> {
    host: InMemoryHost,
    wasm: Option<Wasm>,
    plugin: PhantomData<fn() -> P>,
}

impl<P> Setup<P> {
    /// Prepares a proxy for the module `name`. `program` is the harness's test host and `modules` the folder of the
    /// modules; without them the plugin runs natively.
    pub fn new(name: &str, program: Option<OsString>, modules: Option<OsString>) -> Self {
        let wasm = program.zip(modules).map(|(program, modules)| Wasm::new(name, program, modules));
        Self { host: InMemoryHost::default(), wasm, plugin: PhantomData }
    }

    /// Takes a host that the test has prepared with properties, environment or time.
    #[must_use]
    pub fn on(mut self, host: InMemoryHost) -> Self {
        self.host = host;
        self
    }

    /// Tells whether the plugin is to run as a module in the harness.
    pub fn is_wasm(&self) -> bool {
        self.wasm.is_some()
    }

    /// Configures the plugin with these bytes; no bytes are no configuration.
    pub fn configure<K>(self, configuration: impl AsRef<[u8]>) -> Result<Proxy<P>, ConfigError>
    where
        P: Testable<K>,
    {
        Proxy::start(self.host, configuration.as_ref(), self.wasm.as_ref())
    }
}

/// Prepares a proxy for a plugin: natively, or, when the environment says so, with the plugin's module in the harness.
///
/// The same tests so run both ways. `PLUGWRIGHT_TEST_HOST` names the program `plugwright-test-host` of the harness, and
/// `PLUGWRIGHT_TEST_MODULES` the folder with the modules, such as `target/plugins`. The module is called like the
/// package, or as the second argument says.
///
/// ```
/// # use plugwright_sdk::{ConfigError, Host, Plugin};
/// # struct Gate;
/// # impl Plugin for Gate {
/// #     type Config = serde::de::IgnoredAny;
/// #     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> { Ok(Gate) }
/// # }
/// use plugwright_sdk::testing::get;
///
/// let mut proxy = plugwright_sdk::proxy!(Gate).configure("{}").unwrap();
/// assert_eq!(proxy.send(get("/")).status(), 200);
/// ```
#[macro_export]
macro_rules! proxy {
    ($plugin:ty) => {
        $crate::proxy!($plugin, env!("CARGO_PKG_NAME"))
    };
    ($plugin:ty, $module:expr) => {
        $crate::testing::Setup::<$plugin>::new(
            $module,
            std::env::var_os("PLUGWRIGHT_TEST_HOST"),
            std::env::var_os("PLUGWRIGHT_TEST_MODULES"),
        )
    };
}
