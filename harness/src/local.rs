//! A chain on the calling thread, without connections: what benchmarks measure.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Request, Response};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::chain::Chain;
use crate::exchange::{Connection, Site, serve};
use crate::reload::Serving;
use crate::server::{Options, Peers, ServeError};

/// One worker's filters and VMs, without a listener.
pub struct Local {
    site: Rc<Site>,
    tasks: LocalSet,
    runtime: Runtime,
}

impl Local {
    /// Starts the chain's filters as a server's worker does. Addresses to listen on and workers are left aside.
    pub fn start(chain: &Chain, options: &Options) -> Result<Self, ServeError> {
        let peers = Peers::of(chain, options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(ServeError::Worker)?;
        let tasks = LocalSet::new();
        let started = tasks.block_on(&runtime, async { Serving::start(chain, &peers, options) });
        Ok(Self { site: started?.current.get(), tasks, runtime })
    }

    /// Serves one HTTP/1.1 request as a connection would hand it over: its body in one piece, the end by itself.
    /// `None`: the stream was reset.
    pub fn request(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let connection = Connection { id: 1, source: None, destination: None, state: None };
        let request = request.map(|bytes| Whole { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) });
        self.tasks.block_on(&self.runtime, async {
            let (parts, mut body) = serve(self.site.clone(), connection, request).await.ok()?.into_parts();
            let mut all = BytesMut::new();
            while let Some(frame) = body.frame().await {
                if let Some(bytes) = frame.ok()?.data_ref() {
                    all.extend_from_slice(bytes);
                }
            }
            Some(Response::from_parts(parts, all.freeze()))
        })
    }
}

/// A request's body.
struct Whole {
    bytes: Option<Bytes>,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
