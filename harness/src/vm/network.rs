//! The callbacks about connections.

use wasmtime::{Instance, Store, TypedFunc};

use super::{Failed, Vm, func};
use crate::state::HostState;

/// Those that the module exports.
pub(super) struct NetworkCallbacks {
    new_connection: Option<TypedFunc<u32, u32>>,
    downstream_data: Option<TypedFunc<(u32, u32, u32), u32>>,
    upstream_data: Option<TypedFunc<(u32, u32, u32), u32>>,
    downstream_close: Option<TypedFunc<(u32, u32), ()>>,
    upstream_close: Option<TypedFunc<(u32, u32), ()>>,
}

impl NetworkCallbacks {
    pub(super) fn of(instance: &Instance, store: &mut Store<HostState>) -> Self {
        Self {
            new_connection: func(instance, store, "proxy_on_new_connection"),
            downstream_data: func(instance, store, "proxy_on_downstream_data"),
            upstream_data: func(instance, store, "proxy_on_upstream_data"),
            downstream_close: func(instance, store, "proxy_on_downstream_connection_close"),
            upstream_close: func(instance, store, "proxy_on_upstream_connection_close"),
        }
    }

    pub(super) fn has(&self, callback: &str) -> bool {
        match callback {
            "proxy_on_new_connection" => self.new_connection.is_some(),
            "proxy_on_downstream_data" => self.downstream_data.is_some(),
            "proxy_on_upstream_data" => self.upstream_data.is_some(),
            "proxy_on_downstream_connection_close" => self.downstream_close.is_some(),
            "proxy_on_upstream_connection_close" => self.upstream_close.is_some(),
            _ => false,
        }
    }
}

/// Who closed a connection, as the callbacks number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseType {
    Unknown = 0,
    Local = 1,
    Remote = 2,
}

impl Vm {
    pub(crate) fn new_connection(&mut self, id: u32) -> Result<u32, Failed> {
        Ok(self.call("proxy_on_new_connection", id, |c| &c.network.new_connection, id)?.unwrap_or(0))
    }

    pub(crate) fn downstream_data(&mut self, id: u32, size: u32, end: bool) -> Result<u32, Failed> {
        let params = (id, size, u32::from(end));
        Ok(self.call("proxy_on_downstream_data", id, |c| &c.network.downstream_data, params)?.unwrap_or(0))
    }

    pub(crate) fn upstream_data(&mut self, id: u32, size: u32, end: bool) -> Result<u32, Failed> {
        let params = (id, size, u32::from(end));
        Ok(self.call("proxy_on_upstream_data", id, |c| &c.network.upstream_data, params)?.unwrap_or(0))
    }

    pub(crate) fn downstream_closed(&mut self, id: u32, close: CloseType) -> Result<(), Failed> {
        let params = (id, close as u32);
        self.call("proxy_on_downstream_connection_close", id, |c| &c.network.downstream_close, params).map(drop)
    }

    pub(crate) fn upstream_closed(&mut self, id: u32, close: CloseType) -> Result<(), Failed> {
        let params = (id, close as u32);
        self.call("proxy_on_upstream_connection_close", id, |c| &c.network.upstream_close, params).map(drop)
    }

    /// A connection's end, in the order that is Envoy's for connections: done, log, delete.
    pub(crate) fn finish_connection(&mut self, id: u32, before_log: impl FnOnce()) {
        let done = self.call("proxy_on_done", id, |c| &c.done, id);
        before_log();
        let logged = done.and_then(|_| self.log(id));
        if logged.is_ok() {
            let _ = self.call("proxy_on_delete", id, |c| &c.delete, id);
        }
        self.store.data_mut().contexts.remove(&id);
    }
}
