//! Who may see the page, what is kept of what happened, and viewers that are late, slow, or too many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::trace::{Event, Subject, What};

#[track_caller]
fn check_host(host: &str, local: bool) {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    assert_eq!(is_local(&headers, None), local, "{host}");
    assert_eq!(is_local(&HeaderMap::new(), Some(host)), local, "{host} as an authority");
}

#[test]
fn only_names_that_are_this_machines_whatever_dns_says_are_answered() {
    for host in ["localhost", "LOCALHOST:8080", "a.localhost:1", "127.0.0.1:8080", "127.1.2.3", "[::1]:80", "[::1]"] {
        check_host(host, true);
    }
    for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:80"] {
        check_host(host, false);
    }
    for host in ["", "localhost:x", "127.0.0.1@evil.example", "[::1", "notlocalhost", "user@localhost"] {
        check_host(host, false);
    }
    let mut twice = HeaderMap::new();
    twice.append(header::HOST, HeaderValue::from_static("localhost"));
    twice.append(header::HOST, HeaderValue::from_static("evil.example"));
    assert!(!is_local(&twice, None) && !is_local(&HeaderMap::new(), None));
}

fn trace(path: &str, events: Vec<Event>) -> Trace {
    Trace {
        schema: 1,
        kind: Subject::Request,
        started: UNIX_EPOCH,
        connection: 1,
        protocol: "HTTP/1.1",
        method: "GET".to_owned(),
        authority: "h".to_owned(),
        path: path.to_owned(),
        status: Some(200),
        answered_by: None,
        details: "via_upstream".to_owned(),
        took: Duration::ZERO,
        request_bytes: 0,
        response_bytes: 0,
        filters: Vec::new(),
        upstream: None,
        events,
        omitted: 0,
    }
}

/// Somebody who looks at the page, on a clock that stands still.
struct Looking {
    runtime: tokio::runtime::Runtime,
    body: PageBody,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is answered to a request for the events by somebody who has seen them up to `last`.
fn asked(page: &Page, last: Option<&str>) -> Response<PageBody> {
    let mut request = Request::get(format!("{PATH}/events")).header(header::HOST, "localhost");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    page.answer(Some(([127, 0, 0, 1], 1).into()), &request.body(()).unwrap()).unwrap()
}

impl Looking {
    fn at(page: &Page, last: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let response = runtime.block_on(async { asked(page, last) });
        assert_eq!(response.status(), StatusCode::OK);
        Self { runtime, body: response.into_body(), woken: Arc::default() }
    }

    /// The next event; nothing while there is none, or when there is none any more.
    fn next(&mut self) -> Poll<Option<String>> {
        let _within = self.runtime.enter();
        let waker = Waker::from(self.woken.clone());
        let frame = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker));
        frame.map(|frame| frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap()))
    }

    /// All that is there to see: of traces their paths, of others the event's name and data.
    fn all(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Poll::Ready(Some(event)) = self.next() {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
            seen.push(match field("event: ").as_str() {
                "trace" => {
                    let data: Value = serde_json::from_str(&field("data: ")).unwrap();
                    data["path"].as_str().unwrap().to_owned()
                }
                "hello" => "hello".to_owned(),
                name => format!("{name} {}", field("data: ")),
            });
        }
        seen
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

fn show(page: &Page, numbers: std::ops::Range<usize>) {
    for number in numbers {
        page.trace(&trace(&number.to_string(), Vec::new()));
    }
}

/// `hello`, whatever is in between, and the paths of these traces.
fn expected(between: &[&str], numbers: std::ops::Range<usize>) -> Vec<String> {
    let first = ["hello"].iter().chain(between).map(|text| (*text).to_owned());
    first.chain(numbers.map(|number| number.to_string())).collect()
}

#[test]
fn the_oldest_go_and_who_comes_first_then_is_not_told_that_there_were_any() {
    let page = Page::new();
    show(&page, 0..MOST_TRACES + 5);
    assert_eq!(Looking::at(&page, None).all(), expected(&[], 5..MOST_TRACES + 5));
}

#[test]
fn who_comes_back_goes_on_where_he_was_and_is_told_how_many_are_gone() {
    let page = Page::new();
    show(&page, 0..MOST_TRACES + 5);
    let boot = page.lock().boot;
    let seen = |number: usize| Looking::at(&page, Some(&format!("{boot}-{number}"))).all();
    assert_eq!(seen(2), expected(&["skipped {\"count\":2}"], 5..MOST_TRACES + 5));
    assert_eq!(seen(4), expected(&[], 5..MOST_TRACES + 5));
    assert_eq!(seen(MOST_TRACES), expected(&[], MOST_TRACES + 1..MOST_TRACES + 5));
    assert_eq!(seen(MOST_TRACES + 4), ["hello"]);
    // What nobody can have seen yet.
    assert_eq!(seen(usize::MAX), ["hello"]);
    // Another server's numbers, and what is none.
    for last in [format!("{}-2", boot + 1), format!("{boot}-x"), "2".to_owned(), String::new()] {
        assert_eq!(Looking::at(&page, Some(&last)).all(), expected(&[], 5..MOST_TRACES + 5), "{last}");
    }
}

#[test]
fn a_slow_viewer_misses_some_and_nothing_is_kept_for_it() {
    let page = Page::new();
    show(&page, 0..3);
    let mut slow = Looking::at(&page, None);
    assert!(slow.next().is_ready() && slow.next().is_ready());
    show(&page, 3..2 * MOST_TRACES);
    assert_eq!(page.lock().traces.len(), MOST_TRACES);
    let seen = slow.all();
    // It has seen one, and the next ones are not there any more.
    let gone = format!("skipped {{\"count\":{}}}", MOST_TRACES - 1);
    assert_eq!(seen[0], gone);
    assert_eq!(seen[1..], expected(&[], MOST_TRACES..2 * MOST_TRACES)[1..]);
    assert_eq!(slow.all(), [""; 0]);
}

#[test]
fn large_traces_are_fewer_and_one_that_is_too_large_has_no_events() {
    let page = Page::new();
    let large = "x".repeat(1 << 20);
    for _ in 0..40 {
        page.trace(&trace(&large, Vec::new()));
    }
    let shown = page.lock();
    let kept: usize = shown.traces.iter().map(Bytes::len).sum();
    assert_eq!((shown.bytes, shown.traces.len(), shown.first), (kept, 31, 9));
    assert!(kept <= MOST_BYTES);
    drop(shown);
    let message = "y".repeat(LARGEST_TRACE);
    let event = Event { at: Duration::ZERO, filter: None, what: What::Log { level: "info", message } };
    page.trace(&trace("/large", vec![event]));
    let last = page.lock().traces.back().cloned().unwrap();
    let last = std::str::from_utf8(&last).unwrap();
    assert!(last.contains(r#""path":"/large""#) && last.contains(r#""omitted":1"#) && last.len() < 1000, "{last}");
}

#[test]
fn who_waits_is_woken_by_what_comes_and_sees_each_thing_as_it_is_now() {
    let page = Page::new();
    page.know("chain", &json!(1));
    page.know("build", &json!(1));
    page.know("chain", &json!(2));
    let mut viewer = Looking::at(&page, None);
    let state = |name: &str, value: u8| format!("state {{\"name\":\"{name}\",\"value\":{value}}}");
    assert_eq!(viewer.all(), ["hello".to_owned(), state("build", 1), state("chain", 2)]);
    assert_eq!(viewer.woken(), 0);
    page.know("build", &json!(3));
    page.trace(&trace("/a", Vec::new()));
    assert_eq!(viewer.woken(), 1);
    assert_eq!(viewer.all(), [state("build", 3), "/a".to_owned()]);
    page.trace(&trace("/b", Vec::new()));
    assert_eq!((viewer.woken(), viewer.all()), (2, vec!["/b".to_owned()]));
}

#[test]
fn a_line_is_written_now_and_then_so_that_who_is_gone_is_noticed() {
    let page = Page::new();
    let mut viewer = Looking::at(&page, None);
    assert_eq!(viewer.all(), ["hello"]);
    for _ in 0..2 {
        viewer.runtime.block_on(async { tokio::time::sleep(HEARTBEAT).await });
        assert_eq!(viewer.next(), Poll::Ready(Some(":\n\n".to_owned())));
        assert_eq!(viewer.next(), Poll::Pending);
    }
}

#[test]
fn when_it_closes_those_who_wait_come_to_their_end() {
    let page = Page::new();
    let mut waiting = Looking::at(&page, None);
    assert_eq!(waiting.all(), ["hello"]);
    let mut late = Looking::at(&page, None);
    assert!(late.next().is_ready());
    show(&page, 0..1);
    page.close();
    assert_eq!((waiting.woken(), waiting.next(), late.next()), (1, Poll::Ready(None), Poll::Ready(None)));
}

#[test]
fn there_are_so_many_viewers_at_a_time_and_one_that_goes_makes_room() {
    let page = Page::new();
    let mut viewers: Vec<_> = (0..MOST_VIEWERS).map(|_| Looking::at(&page, None)).collect();
    assert_eq!(asked(&page, None).status(), StatusCode::SERVICE_UNAVAILABLE);
    viewers.pop();
    Looking::at(&page, None);
    assert_eq!(page.lock().viewers.len(), MOST_VIEWERS - 1);
}
