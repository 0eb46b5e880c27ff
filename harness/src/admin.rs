//! The administration endpoint: the metrics, for whoever scrapes them, and the trace page where it is asked for.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::page::Page;
use crate::shared::Shared;

const HEADER_READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves until shutdown.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    page: Option<Page>,
    mut on_shutdown: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = on_shutdown.wait_for(|shutdown| *shutdown) => return,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, most likely: connections that end will free some.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let (shared, page) = (shared.clone(), page.clone());
        let service = service_fn(move |request| {
            let page = page.as_ref().and_then(|page| page.answer(Some(peer), &request));
            let response = match page {
                Some(page) => page.map(Either::Left),
                None => answer(&request, &shared).map(Either::Right),
            };
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        tokio::task::spawn_local(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
            // A connection's failure is the client's to see.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let known = ["/stats/prometheus", "/ready"].contains(&request.uri().path());
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/stats/prometheus") => (StatusCode::OK, shared.prometheus()),
        (&Method::GET | &Method::HEAD, "/ready") => (StatusCode::OK, "LIVE\n".to_owned()),
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "there are /stats/prometheus and /ready\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    response
}
