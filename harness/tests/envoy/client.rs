//! Sends requests byte by byte as told and says exactly what came back.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http2;
use crate::scenario::Request;
use crate::upstream::shown;

/// Sent with every request, so that both proxies keep it instead of making one.
pub(crate) const REQUEST_ID: &str = "11111111-2222-4333-8444-555555555555";

/// Sends a request on a connection of its own; the response as text. `logged` waits for a line in the proxy's log.
pub(crate) fn send(address: SocketAddr, request: &Request, logged: &dyn Fn(&str)) -> String {
    if request.http2 {
        return http2::send(address, request, logged);
    }
    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        Err(error) => return format!("no connection: {error}"),
    };
    stream.set_nodelay(true).unwrap();
    let patience = Duration::from_millis(request.patience_ms);
    let pieces = request.raw.clone().unwrap_or_else(|| written(request));
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            // So that the proxy reads each piece by itself.
            std::thread::sleep(Duration::from_millis(30));
        }
        // The proxy may have answered and closed already.
        let _ = stream.write_all(piece);
    }
    if let Some(line) = &request.hangup {
        logged(line);
        let _ = stream.shutdown(Shutdown::Both);
        return "hung up".to_owned();
    }
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut reader = Reader { stream: &mut stream, bytes: &mut bytes, deadline };
    if let Some(wanted) = request.read {
        while reader.bytes.len() < wanted && reader.more() == More::Data {}
        return format!("tcp {:?}", String::from_utf8_lossy(&bytes));
    }
    let count = if request.raw.is_some() { pieces.iter().map(|piece| heads(piece)).sum::<usize>().max(1) } else { 1 };
    let mut text = String::new();
    let mut from = 0;
    for _ in 0..count {
        let method = if request.raw.is_some() { "GET" } else { &request.method };
        text += &response(&mut reader, &mut from, method);
        text.push('\n');
    }
    text.trim_end().to_owned()
}

/// How many requests begin in a piece of raw text.
fn heads(piece: &[u8]) -> usize {
    String::from_utf8_lossy(piece).matches(" HTTP/1.").count()
}

fn written(request: &Request) -> Vec<Vec<u8>> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.path);
    if !request.headers.iter().any(|(name, _)| name == "host") {
        head += "host: example.com\r\n";
    }
    if !request.headers.iter().any(|(name, _)| name == "x-request-id") {
        head += &format!("x-request-id: {REQUEST_ID}\r\n");
    }
    for (name, value) in &request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let length: usize = request.body.iter().map(Vec::len).sum();
    if request.chunked {
        head += "transfer-encoding: chunked\r\n";
    } else if !request.body.is_empty() && !request.headers.iter().any(|(name, _)| name == "content-length") {
        head += &format!("content-length: {length}\r\n");
    }
    head += "\r\n";
    let mut pieces = vec![head.into_bytes()];
    for (at, piece) in request.body.iter().enumerate() {
        let piece = if request.chunked { chunk(piece) } else { piece.clone() };
        if at == 0 && !request.chunked {
            pieces[0].extend_from_slice(&piece);
        } else {
            pieces.push(piece);
        }
    }
    if request.chunked {
        let mut end = "0\r\n".to_owned();
        for (name, value) in &request.trailers {
            end += &format!("{name}: {value}\r\n");
        }
        pieces.push((end + "\r\n").into_bytes());
    }
    pieces
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum More {
    Data,
    Closed,
    Reset,
    Timeout,
}

struct Reader<'a> {
    stream: &'a mut TcpStream,
    bytes: &'a mut Vec<u8>,
    deadline: Instant,
}

impl Reader<'_> {
    fn more(&mut self) -> More {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return More::Timeout;
        }
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut buffer = vec![0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => More::Closed,
            Ok(got) => {
                self.bytes.extend_from_slice(&buffer[..got]);
                More::Data
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                More::Timeout
            }
            Err(_) => More::Reset,
        }
    }

    /// The bytes up to and without `end`, from `from`, which moves behind it.
    fn until(&mut self, from: &mut usize, end: &[u8]) -> Result<Vec<u8>, More> {
        loop {
            if let Some(at) = self.bytes[*from..].windows(end.len()).position(|window| window == end) {
                let taken = self.bytes[*from..*from + at].to_vec();
                *from += at + end.len();
                return Ok(taken);
            }
            match self.more() {
                More::Data => {}
                other => return Err(other),
            }
        }
    }

    fn take(&mut self, from: &mut usize, count: usize) -> Result<Vec<u8>, (Vec<u8>, More)> {
        while self.bytes.len() < *from + count {
            match self.more() {
                More::Data => {}
                other => return Err((self.bytes[*from..].to_vec(), other)),
            }
        }
        let taken = self.bytes[*from..*from + count].to_vec();
        *from += count;
        Ok(taken)
    }
}

fn response(reader: &mut Reader<'_>, from: &mut usize, method: &str) -> String {
    let head = match reader.until(from, b"\r\n\r\n") {
        Ok(head) => String::from_utf8_lossy(&head).into_owned(),
        Err(More::Closed | More::Reset) => return "closed without a response".to_owned(),
        Err(_) => return "no response in time".to_owned(),
    };
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ").or(line.split_once(':'))).collect();
    let mut text = status.clone();
    let find = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    // These come from the codec, and where they stand is its business.
    let codec = ["date", "server", "connection", "transfer-encoding", "x-envoy-upstream-service-time", "keep-alive"];
    for (name, value) in headers.iter().filter(|(name, _)| !codec.contains(name)) {
        text += &format!("\n{name}: {value}");
    }
    for name in ["server", "connection", "transfer-encoding"] {
        if let Some(value) = find(name) {
            text += &format!("\n({name}: {value})");
        }
    }
    if status.starts_with('1') && status != "101" {
        return text + "\n" + &response(reader, from, method);
    }
    if method == "HEAD" || status == "204" || status == "304" || status == "101" {
        return text;
    }
    let (body, end) = if find("transfer-encoding").is_some() {
        chunks(reader, from, &mut text)
    } else if let Some(length) = find("content-length").and_then(|length| length.parse().ok()) {
        reader.take(from, length).map_or_else(|(body, end)| (body, Some(end)), |body| (body, None))
    } else {
        while reader.more() == More::Data {}
        (reader.bytes[*from..].to_vec(), None)
    };
    text += &format!("\nbody {}", shown(&body));
    match end {
        None => {}
        Some(More::Timeout) => text += " and then nothing",
        Some(_) => text += " broken off",
    }
    text
}

fn chunks(reader: &mut Reader<'_>, from: &mut usize, text: &mut String) -> (Vec<u8>, Option<More>) {
    let mut body = Vec::new();
    loop {
        let size = match reader.until(from, b"\r\n") {
            Ok(line) => usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).unwrap_or(0),
            Err(end) => return (body, Some(end)),
        };
        if size == 0 {
            while let Ok(line) = reader.until(from, b"\r\n") {
                if line.is_empty() {
                    break;
                }
                *text += &format!("\ntrailer {}", String::from_utf8_lossy(&line));
            }
            return (body, None);
        }
        match reader.take(from, size + 2) {
            Ok(bytes) => body.extend_from_slice(&bytes[..size]),
            Err((bytes, end)) => {
                body.extend_from_slice(&bytes);
                return (body, Some(end));
            }
        }
    }
}
