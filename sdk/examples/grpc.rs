//! gRPC callouts: a call about each request, and a stream that keeps a list of blocked paths up to date.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use plugwright_sdk::{Answer, AsyncPlugin, ConfigError, GrpcCall, GrpcError, Host, LocalResponse, Request, Root};
use serde::de::IgnoredAny;

/// Blocks what the server says.
#[derive(Default)]
pub struct Blocked {
    paths: RefCell<BTreeSet<Vec<u8>>>,
}

impl AsyncPlugin for Blocked {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self::default())
    }

    /// Each message of the stream is a path to block.
    async fn start(&self, root: Root) {
        loop {
            match self.watch(&root).await {
                Ok(()) => root.host().info("the list of blocked paths has ended"),
                Err(error) => root.host().warn(&error.to_string()),
            }
            root.sleep(Duration::from_secs(30)).await;
        }
    }

    async fn on_request(&self, mut request: Request) -> Answer {
        let path = request.path();
        if self.paths.borrow().contains(path.as_bytes()) {
            return Err(LocalResponse::new(403).details("blocked"));
        }
        let call = GrpcCall::new("score.v1.Scores", "Get").metadata("x-from", "plugin").message(path);
        let score = request.grpc_call("scores", call.timeout(Duration::from_secs(1))).await?;
        request.set_header("x-score", &String::from_utf8_lossy(&score))?;
        Ok(())
    }
}

impl Blocked {
    async fn watch(&self, root: &Root) -> Result<(), GrpcError> {
        let mut stream = root.grpc_stream("scores", &GrpcCall::new("score.v1.Scores", "WatchBlocked"))?;
        stream.send(b"all")?;
        while let Some(path) = stream.next().await? {
            self.paths.borrow_mut().insert(path);
        }
        Ok(())
    }
}

plugwright_sdk::register!(async Blocked);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugwright_sdk::LogLevel;
    use plugwright_sdk::testing::{GrpcReply, GrpcRequest, Proxy, get};

    use super::Blocked;

    fn server(request: &GrpcRequest) -> GrpcReply {
        match (request.method.as_str(), request.message.as_deref()) {
            ("WatchBlocked", Some(b"all")) => GrpcReply::message("/admin").and("/secret").after(Duration::from_secs(1)),
            ("WatchBlocked", None) => GrpcReply::default(),
            ("Get", Some(b"/late")) => GrpcReply::message("1").after(Duration::from_secs(2)),
            ("Get", Some(b"/odd")) => GrpcReply::status(3, "no such path"),
            ("Get", Some(_)) if request.metadata == [("x-from".to_owned(), b"plugin".to_vec())] => {
                GrpcReply::message("42")
            }
            _ => GrpcReply::status(12, "unimplemented"),
        }
    }

    fn proxy() -> Proxy<Blocked> {
        let setup = plugwright_sdk::proxy!(Blocked, "examples/grpc");
        setup.configure("{}").unwrap().grpc_cluster("scores", server)
    }

    #[test]
    fn a_call_has_one_message_each_way() {
        let exchange = proxy().send(get("/"));
        assert_eq!(exchange.forwarded().unwrap().values("x-score"), ["42"]);
    }

    #[test]
    fn a_stream_goes_on_beside_the_requests() {
        let mut proxy = proxy();
        assert_eq!(proxy.send(get("/admin")).status(), 200);
        proxy.pass(Duration::from_secs(2));
        for path in ["/admin", "/secret"] {
            let exchange = proxy.send(get(path));
            assert_eq!((exchange.status(), exchange.details()), (403, "blocked"));
        }
        assert_eq!(proxy.send(get("/")).status(), 200);
    }

    #[test]
    fn a_failed_call_is_an_answer_of_its_own() {
        for path in ["/odd", "/late"] {
            let exchange = proxy().send(get(path));
            assert_eq!((exchange.status(), exchange.details()), (503, "grpc_call_failed"), "{path}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_opened_is_tried_again() {
        let mut proxy = plugwright_sdk::proxy!(Blocked, "examples/grpc").configure("{}").unwrap();
        assert_eq!(proxy.send(get("/")).details(), "grpc_call_refused");
        proxy.pass(Duration::from_secs(31));
        let warnings = proxy.logs().into_iter().filter(|(level, _)| *level == LogLevel::Warn).count();
        assert_eq!(warnings, 2, "{:?}", proxy.logs());
    }
}
