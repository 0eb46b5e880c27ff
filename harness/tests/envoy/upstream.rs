//! A server that records what reaches it and answers as it is told.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::scenario::Answer;

pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

const HELLO: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\nx-up: one\r\nx-up: two\r\n\r\nhello";

/// Starts it. `network`: no HTTP, what arrives is recorded and answered with the pieces, one for each read.
pub(crate) fn start(answers: &[Answer], network: bool) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let mut answers = answers.to_vec();
    if answers.is_empty() {
        answers.push(Answer { pieces: vec![HELLO.to_vec()], ..Answer::default() });
    }
    let (answers, record) = (Arc::new((Mutex::new(0), answers)), seen.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let (answers, record) = (answers.clone(), record.clone());
            std::thread::spawn(move || {
                if network { serve_tcp(stream, &answers.1, &record) } else { serve(stream, &answers, &record) }
            });
        }
    });
    (address, seen)
}

/// An address that refuses connections: a free port would not be free for long among so many servers.
pub(crate) fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 77, 77, 77], 1))
}

fn serve_tcp(mut stream: TcpStream, answers: &[Answer], seen: &Seen) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let mut answers = answers.iter();
    loop {
        let got = stream.read(&mut buffer).unwrap_or(0);
        if got == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..got]);
        let Some(answer) = answers.next() else { continue };
        for (at, piece) in answer.pieces.iter().enumerate() {
            if at > 0 {
                // So that the proxy reads each piece, and the end, by itself.
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
            let _ = stream.write_all(piece);
        }
        if answer.close {
            break;
        }
    }
    seen.lock().unwrap().push(format!("tcp {:?}", String::from_utf8_lossy(&all)));
}

fn serve(stream: TcpStream, answers: &(Mutex<usize>, Vec<Answer>), seen: &Seen) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = receive(&mut reader, seen) {
        seen.lock().unwrap().push(request);
        let answer = {
            let mut next = answers.0.lock().unwrap();
            *next += 1;
            answers.1[(*next - 1).min(answers.1.len() - 1)].clone()
        };
        if answer.hang {
            let _ = reader.read_to_end(&mut Vec::new());
            return;
        }
        for (at, piece) in answer.pieces.iter().enumerate() {
            if at > 0 {
                // So that the proxy reads each piece by itself.
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        if answer.close {
            return;
        }
    }
}

/// One request as text: its head in order, its body, its trailers. `None` at the end of the connection.
fn receive(reader: &mut BufReader<TcpStream>, seen: &Seen) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut text = line.trim_end().to_owned();
    let mut headers = fields(reader)?;
    let mut length = 0;
    let mut chunked = false;
    // Where the codec writes it is its business.
    headers.sort_by_key(|(name, _)| name != "host");
    for (name, value) in &headers {
        match name.as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
        text += &format!("\n{name}: {value}");
    }
    let mut body = Vec::new();
    let mut trailers = Vec::new();
    if chunked {
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                seen.lock().unwrap().push(format!("{text}\nincomplete {}", shown(&body)));
                return None;
            }
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            if size == 0 {
                trailers = fields(reader)?;
                break;
            }
            let mut chunk = vec![0; size + 2];
            if reader.read_exact(&mut chunk).is_err() {
                seen.lock().unwrap().push(format!("{text}\nincomplete {}", shown(&body)));
                return None;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            seen.lock().unwrap().push(format!("{text}\nincomplete"));
            return None;
        }
    }
    if chunked || length > 0 {
        text += &format!("\nbody {}", shown(&body));
    }
    for (name, value) in trailers {
        text += &format!("\ntrailer {name}: {value}");
    }
    Some(text)
}

/// Long bodies by their length and ends.
pub(crate) fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if body.len() <= 400 {
        return format!("{text:?}");
    }
    let end = String::from_utf8_lossy(&body[body.len() - 20..]);
    format!("{} bytes {:?}…{end:?}", body.len(), text.chars().take(20).collect::<String>())
}

fn fields(reader: &mut BufReader<TcpStream>) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}
