//! A server that is measured: what it takes from the machine, as Linux accounts for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::report::Failure;

/// A running server. It is killed when dropped.
pub(super) struct Server {
    child: Child,
    /// From the start of its process to its first response.
    pub(super) first_response: Duration,
}

impl Server {
    /// Starts it and waits until it answers at `address`.
    pub(super) fn start(mut command: Command, input: Option<fs::File>, address: SocketAddr) -> Result<Self, Failure> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |why: &str| Failure::environment(format!("`{name}` {why}"));
        command.stdin(input.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| failed(&format!("does not start: {error}")))?;
        while !answers(address) {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(failed(&format!("ended with {status} before it answered")));
            }
            if started.elapsed() > Duration::from_mins(1) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed("did not answer within a minute"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { child, first_response: started.elapsed() })
    }

    /// User and system time so far, in clock ticks: hundredths of a second on Linux.
    pub(super) fn ticks(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The second field is the program's name in parentheses, which may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }

    /// Resident memory in KiB.
    pub(super) fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
