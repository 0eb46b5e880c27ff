//! Queues: requests are noted as they end, and reported to a collector in batches.

use std::time::Duration;

use plugwright_sdk::{AsyncPlugin, Call, ConfigError, Host, MapType, Queue, Root};
use serde::de::IgnoredAny;

const QUEUE: &str = "report.paths";

/// Reports the paths that were asked for.
pub struct Report;

impl AsyncPlugin for Report {
    type Config = IgnoredAny;

    fn configure(_: IgnoredAny, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    async fn start(&self, root: Root) {
        let mut paths = match root.queue(QUEUE) {
            Ok(paths) => paths,
            Err(error) => return root.host().error(&error.to_string()),
        };
        while let Ok(first) = paths.next().await {
            // Whoever comes within a second is in the same batch.
            root.sleep(Duration::from_secs(1)).await;
            let mut batch = first;
            while let Ok(Some(path)) = paths.queue().pop(&mut root.host()) {
                batch.push(b'\n');
                batch.extend(path);
            }
            if let Err(error) = root.call("collector", Call::post("collector", "/paths").body(batch)).await {
                root.host().warn(&error.to_string());
            }
        }
    }

    fn on_log(&self, host: &mut impl Host) {
        // Another worker may be the one that reports.
        if let Ok(Some(path)) = host.header(MapType::RequestHeaders, ":path")
            && let Ok(Some(queue)) = Queue::resolve(host, "", QUEUE)
            && let Err(error) = queue.push(host, &path)
        {
            host.warn(&error.to_string());
        }
    }
}

plugwright_sdk::register!(async Report);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use plugwright_sdk::testing::{get, response};

    use super::Report;

    #[test]
    fn requests_are_reported_in_batches() {
        let batches: Rc<RefCell<Vec<String>>> = Rc::default();
        let seen = Rc::clone(&batches);
        let setup = plugwright_sdk::proxy!(Report, "examples/queue");
        let mut proxy = setup.configure("{}").unwrap().cluster("collector", move |call| {
            seen.borrow_mut().push(String::from_utf8_lossy(call.bytes()).into_owned());
            response(204)
        });
        proxy.send(get("/a"));
        proxy.send(get("/b"));
        proxy.pass(Duration::from_secs(2));
        proxy.send(get("/c"));
        proxy.pass(Duration::from_secs(2));
        assert_eq!(*batches.borrow(), ["/a\n/b", "/c"]);
    }
}
