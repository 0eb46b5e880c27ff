//! One connection in the network filter chain: Envoy's filter manager for bytes, without any input or output.
//!
//! Data from the client passes the filters first to last, data for the client last to first. All filters of a
//! direction share one buffer, as in Envoy: what a filter pauses on stays there, and with the next data every filter
//! from the first one on sees all of it again. Envoy has no way to resume data for the client; the next data does.

mod driver;
mod exercise;
mod recorded;

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mesh::model::FailStrategy;

use crate::buffer::Buffer;
use crate::log::{ConnectionSummary, Sink};
use crate::offline;
use crate::stream::state::{Body, StreamState, View};
use crate::trace::{Answer, Outcome, Subject};
use crate::upstream::Address;
use crate::vm::network::CloseType;
use crate::vm::{Failed, Vm};
use crate::worker::PluginHandle;
use tokio::time::Instant;

pub(crate) use driver::serve;
pub(crate) use exercise::exercise;

/// A network filter as a worker runs it.
pub(crate) enum Filter {
    Wasm(Rc<PluginHandle>),
    /// Closes every connection.
    Deny {
        name: String,
    },
}

/// What is behind the filters.
#[derive(Clone)]
pub(crate) enum Terminal {
    /// The HTTP connection manager.
    Http,
    Tcp(Address),
    /// An upstream in this process.
    Scripted(Rc<dyn offline::Servers>),
}

/// A filter's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

struct ConnectionFilter {
    name: String,
    /// `None`: there is no VM, and the connection is closed when it gets here.
    vm: Option<(Rc<RefCell<Vm>>, u32)>,
    context: Option<u32>,
    initialized: bool,
    /// It stopped the client's data, or the connection's beginning, and has not resumed it.
    paused: bool,
    over: bool,
}

/// Data in one direction, which is in the view of the filter that looks at it last.
#[derive(Default)]
struct Data {
    buffer: Buffer,
    holder: Option<usize>,
    end: bool,
}

/// What the connection is to do next, once what was handed over is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Open,
    /// Write what is there for the client, then close.
    Flush,
    /// Close.
    Now,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Downstream,
    Upstream,
}

pub(crate) struct Chain {
    state: Rc<RefCell<StreamState>>,
    filters: Vec<ConnectionFilter>,
    sink: Arc<dyn Sink>,
    downstream: Data,
    upstream: Data,
    /// All filters let the connection begin.
    begun: bool,
    /// What passed the filters: data and its end, for the terminal and for the client.
    to_terminal: (Vec<Bytes>, bool),
    to_client: (Vec<Bytes>, bool),
    closing: Closing,
    closed_by: Option<String>,
    finished: bool,
    /// What happens to it is recorded in its state.
    recorded: bool,
}

impl Chain {
    pub(crate) fn new(mut state: StreamState, filters: &[Filter], sink: Arc<dyn Sink>) -> Self {
        let recorded = state.trace.is_some();
        let all = filters;
        let filters: Vec<_> = filters.iter().filter_map(ConnectionFilter::new).collect();
        if let Some(trace) = &mut state.trace {
            recorded::chain(trace, all, &filters);
        }
        state.network = true;
        state.views.resize_with(filters.len(), Default::default);
        Self {
            state: Rc::new(RefCell::new(state)),
            filters,
            sink,
            downstream: Data::default(),
            upstream: Data::default(),
            begun: false,
            to_terminal: (Vec::new(), false),
            to_client: (Vec::new(), false),
            closing: Closing::Open,
            closed_by: None,
            finished: false,
            recorded,
        }
    }

    pub(crate) fn state_mut(&self) -> RefMut<'_, StreamState> {
        self.state.borrow_mut()
    }

    /// How much of a direction waits in the filters.
    fn waiting(&self, side: Side) -> usize {
        let data = self.data(side);
        let held = data.holder.and_then(|holder| {
            let mut state = self.state_mut();
            state.view(holder).and_then(|view| slot(view, side).as_ref().map(|body| body.buffer.len()))
        });
        data.buffer.len() + held.unwrap_or(0)
    }

    fn data(&self, side: Side) -> &Data {
        match side {
            Side::Downstream => &self.downstream,
            Side::Upstream => &self.upstream,
        }
    }

    fn data_mut(&mut self, side: Side) -> &mut Data {
        match side {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// Whether all filters let the connection begin.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether a filter has ended the connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing != Closing::Open
    }

    /// Takes what passed the filters: for the terminal, and for the client.
    pub(crate) fn take_passed(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (terminal, client) = (std::mem::take(&mut self.to_terminal.0), std::mem::take(&mut self.to_client.0));
        (terminal.concat(), client.concat())
    }

    /// The connection is there.
    pub(crate) fn begin(&mut self) {
        self.read_from(0);
    }

    /// From the client.
    pub(crate) fn received(&mut self, bytes: Bytes, end: bool) {
        self.state_mut().request_bytes += bytes.len() as u64;
        self.take(Side::Downstream);
        self.downstream.buffer.push(bytes);
        self.downstream.end |= end;
        self.read_from(0);
    }

    /// For the client, from the terminal.
    pub(crate) fn write(&mut self, bytes: Bytes, end: bool) {
        self.state_mut().response_bytes += bytes.len() as u64;
        self.take(Side::Upstream);
        self.upstream.buffer.push(bytes);
        self.upstream.end |= end;
        for filter in (0..self.filters.len()).rev() {
            let flow = self.on_data(Side::Upstream, filter);
            if end && self.closing == Closing::Open {
                // Envoy says so with the last data, and does not know who closed.
                self.begin_callback(filter, "proxy_on_upstream_connection_close", None);
                let _ = self.filters[filter].call(|vm, id| vm.upstream_closed(id, CloseType::Unknown));
                self.end_callback(filter, Answer::Nothing);
                self.after(filter);
            }
            if flow == Flow::Stop || self.closing != Closing::Open {
                return;
            }
        }
        self.take(Side::Upstream);
        let bytes = self.upstream.buffer.take();
        if !bytes.is_empty() {
            self.to_client.0.push(bytes);
        }
        self.to_client.1 |= self.upstream.end;
    }

    /// Does what plugins asked for outside of this connection's own callbacks.
    pub(crate) fn process_pending(&mut self) {
        for filter in 0..self.filters.len() {
            if !self.finished {
                self.after(filter);
            }
        }
    }

    /// Runs the filters on what the client sent, from one on.
    fn read_from(&mut self, first: usize) {
        for filter in first..self.filters.len() {
            if self.closing != Closing::Open {
                return;
            }
            if !std::mem::replace(&mut self.filters[filter].initialized, true)
                && self.on_new_connection(filter) == Flow::Stop
            {
                return;
            }
            self.take(Side::Downstream);
            let some = self.downstream.buffer.len() > 0 || self.downstream.end;
            if some && self.on_data(Side::Downstream, filter) == Flow::Stop {
                return;
            }
        }
        if self.closing != Closing::Open {
            return;
        }
        self.begun = true;
        self.take(Side::Downstream);
        let bytes = self.downstream.buffer.take();
        if !bytes.is_empty() {
            self.to_terminal.0.push(bytes);
        }
        self.to_terminal.1 |= self.downstream.end;
    }

    fn on_new_connection(&mut self, filter: usize) -> Flow {
        let state = self.state.clone();
        self.begin_callback(filter, "proxy_on_new_connection", None);
        let called = match self.filters[filter].create(filter, &state) {
            Ok(()) => self.filters[filter].call(Vm::new_connection),
            Err(Failed) => Some(Err(Failed)),
        };
        self.end_called(filter, "proxy_on_new_connection", called);
        self.flow(Side::Downstream, filter, called)
    }

    fn on_data(&mut self, side: Side, filter: usize) -> Flow {
        self.take(side);
        let data = self.data_mut(side);
        let end = data.end;
        let body = Body { buffer: std::mem::take(&mut data.buffer), end_of_stream: end };
        let len = u32::try_from(body.buffer.len()).unwrap_or(u32::MAX);
        data.holder = Some(filter);
        if let Some(view) = self.state_mut().view(filter) {
            *slot(view, side) = Some(body);
        }
        let callback = match side {
            Side::Downstream => "proxy_on_downstream_data",
            Side::Upstream => "proxy_on_upstream_data",
        };
        self.begin_callback(filter, callback, Some((len as usize, end)));
        let called = self.filters[filter].call(|vm, id| match side {
            Side::Downstream => vm.downstream_data(id, len, end),
            Side::Upstream => vm.upstream_data(id, len, end),
        });
        self.end_called(filter, callback, called);
        self.flow(side, filter, called)
    }

    fn flow(&mut self, side: Side, filter: usize, called: Option<Result<u32, Failed>>) -> Flow {
        let mut stop = match called {
            None => false,
            Some(Ok(action)) => action != 0,
            Some(Err(Failed)) => {
                self.fail(filter);
                return Flow::Stop;
            }
        };
        if side == Side::Downstream {
            // Resuming in the very callback that pauses is a continue.
            stop &= !self.state_mut().view(filter).is_some_and(|view| std::mem::take(&mut view.resume_downstream));
            self.filters[filter].paused = stop;
        }
        self.after(filter);
        if stop || self.closing != Closing::Open { Flow::Stop } else { Flow::Continue }
    }

    /// Does what a filter asked for, beside what its running callback answers.
    fn after(&mut self, filter: usize) {
        let (close, resume) = {
            let mut state = self.state_mut();
            let Some(view) = state.view(filter) else { return };
            (std::mem::take(&mut view.close), std::mem::take(&mut view.resume_downstream))
        };
        if close && self.closing == Closing::Open {
            self.closing = Closing::Flush;
            self.closed_by = Some(self.filters[filter].name.clone());
        }
        if resume && std::mem::take(&mut self.filters[filter].paused) && self.closing == Closing::Open {
            self.read_from(filter + 1);
        }
    }

    fn fail(&mut self, filter: usize) {
        self.filters[filter].over = true;
        self.closed_by = Some(self.filters[filter].name.clone());
        self.closing = Closing::Now;
    }

    /// Gets a direction's buffer back from the filter that looked at it last.
    fn take(&mut self, side: Side) {
        let Some(holder) = self.data_mut(side).holder.take() else { return };
        let body = self.state_mut().view(holder).and_then(|view| slot(view, side).take());
        if let Some(body) = body {
            self.data_mut(side).buffer = body.buffer;
        }
    }

    /// The connection is over: for each filter its end, and that it is.
    pub(crate) fn finish(&mut self, close: CloseType) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.state_mut().ended = Some(Instant::now());
        for (index, filter) in self.filters.iter().enumerate() {
            self.begin_callback(index, "proxy_on_downstream_connection_close", None);
            let closed = filter.call(|vm, id| vm.downstream_closed(id, close));
            self.end_callback(index, Answer::Nothing);
            let (Some(Ok(())), Some((vm, _)), Some(context)) = (closed, &filter.vm, filter.context) else { continue };
            let state = &self.state;
            self.begin_callback(index, "proxy_on_done", None);
            vm.borrow_mut().finish_connection(context, || {
                if let Some(view) = state.borrow_mut().view(index) {
                    *view = View { logging: true, ..View::default() };
                }
            });
            self.end_callback(index, Answer::Nothing);
        }
        let recording = self.state_mut().trace.take();
        let mut state = self.state.borrow_mut();
        self.sink.connection(&ConnectionSummary {
            id: state.connection_id,
            source: state.source,
            received: state.request_bytes,
            sent: state.response_bytes,
            closed_by: self.closed_by.as_deref(),
            by_client: close == CloseType::Remote,
            duration: state.started.elapsed(),
        });
        if let Some(recording) = recording {
            let by = if close == CloseType::Remote { "the client" } else { "this side" };
            by.clone_into(&mut state.details);
            let answered_by = self.closed_by.as_deref();
            self.sink
                .trace(&recording.finish(&state, &Outcome { kind: Subject::Connection, status: None, answered_by }));
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.finish(CloseType::Local);
    }
}

impl ConnectionFilter {
    /// The filter for a new connection; `None` when it is to be skipped.
    fn new(filter: &Filter) -> Option<Self> {
        let (name, vm) = match filter {
            Filter::Deny { name } => (name.clone(), None),
            Filter::Wasm(handle) => {
                let vm = handle.vm();
                if vm.is_none() && handle.plugin().fail_strategy == FailStrategy::FailOpen {
                    return None;
                }
                (handle.plugin().name.clone(), vm)
            }
        };
        Some(Self { name, vm, context: None, initialized: false, paused: false, over: false })
    }

    fn create(&mut self, index: usize, state: &Rc<RefCell<StreamState>>) -> Result<(), Failed> {
        let (vm, root) = self.vm.as_ref().ok_or(Failed)?;
        self.context = Some(vm.borrow_mut().create_stream(*root, state, index)?);
        Ok(())
    }

    /// Runs a callback. `None`: the filter has not begun, or is over.
    fn call<T>(&self, f: impl FnOnce(&mut Vm, u32) -> Result<T, Failed>) -> Option<Result<T, Failed>> {
        let (vm, _) = self.vm.as_ref().filter(|_| !self.over)?;
        Some(f(&mut vm.borrow_mut(), self.context?))
    }
}

fn slot(view: &mut View, side: Side) -> &mut Option<Body> {
    match side {
        Side::Downstream => &mut view.downstream_data,
        Side::Upstream => &mut view.upstream_data,
    }
}
