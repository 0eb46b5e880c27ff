//! A connection as a test of a network plugin has it: both of its ends.

use super::Passed;
use super::proxy::Engine;

/// A connection through a network plugin. Dropping it closes it from the client's side.
#[derive(Debug)]
pub struct Connection<'a> {
    engine: &'a mut Engine,
    closed: bool,
    to_upstream: Vec<u8>,
    to_client: Vec<u8>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native(_) => "Native",
            Self::Wasm(_) => "Wasm",
        })
    }
}

impl<'a> Connection<'a> {
    pub(super) fn open(engine: &'a mut Engine) -> Self {
        let passed = match engine {
            Engine::Native(native) => native.connect(),
            Engine::Wasm(remote) => remote.connect(),
        };
        let mut connection = Self { engine, closed: false, to_upstream: Vec::new(), to_client: Vec::new() };
        connection.take(passed);
        connection
    }

    fn take(&mut self, passed: Passed) {
        self.to_upstream.extend(passed.to_upstream);
        self.to_client.extend(passed.to_client);
        self.closed |= passed.closed;
    }

    /// Has the client send bytes; what has reached the upstream since the last time.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.downstream(bytes.as_ref(), false)
    }

    /// Has the client end its side; what has reached the upstream since the last time.
    pub fn finish(&mut self) -> Vec<u8> {
        self.downstream(&[], true)
    }

    fn downstream(&mut self, bytes: &[u8], end: bool) -> Vec<u8> {
        let passed = match self.engine {
            Engine::Native(native) => native.downstream(bytes, end),
            Engine::Wasm(remote) => remote.downstream(bytes, end),
        };
        self.take(passed);
        std::mem::take(&mut self.to_upstream)
    }

    /// Has the upstream send bytes; what has reached the client since the last time.
    pub fn reply(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let passed = match self.engine {
            Engine::Native(native) => native.upstream(bytes.as_ref(), false),
            Engine::Wasm(remote) => remote.upstream(bytes.as_ref(), false),
        };
        self.take(passed);
        std::mem::take(&mut self.to_client)
    }

    /// Has the upstream end its side.
    pub fn end_upstream(&mut self) {
        let passed = match self.engine {
            Engine::Native(native) => native.upstream(&[], true),
            Engine::Wasm(remote) => remote.upstream(&[], true),
        };
        self.take(passed);
    }

    /// Tells whether the plugin has closed it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        match self.engine {
            Engine::Native(native) => native.close(),
            Engine::Wasm(remote) => remote.close(),
        };
    }
}
