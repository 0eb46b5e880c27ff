//! Debian's docker-registry, open or with a password.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whom the one with a password lets in, and with which.
pub(crate) const ACTOR: &str = "ann";
pub(crate) const PASSWORD: &str = "hunter2-very-secret";
/// As `htpasswd -B` writes it.
const HTPASSWD: &str = "ann:$2b$04$abcdefghijklmnopqrstuuHeJOV.bipiWXaAApJQSZdKFeoyKygHq\n";

/// A registry on a port of its own. It is killed when dropped.
pub(crate) struct DockerRegistry {
    child: Child,
    pub(crate) address: String,
}

impl DockerRegistry {
    /// One that keeps its content in this folder.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::with(folder, "")
    }

    /// One that wants to know who it is.
    pub(crate) fn with_password(folder: &Path) -> Self {
        let file = folder.join("htpasswd");
        fs::write(&file, HTPASSWD).unwrap();
        Self::with(folder, &format!("auth: {{htpasswd: {{realm: plugwright, path: '{}'}}}}\n", file.display()))
    }

    fn with(folder: &Path, more: &str) -> Self {
        let configuration = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n{more}",
            folder.join("registry").display()
        );
        fs::write(&configuration, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry runs; `cargo xtask ci --prepare` installs it");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("listening on ").map(|(_, rest)| rest.to_owned()))
            .expect("docker-registry says where it listens");
        let address = address.split(|c: char| c != ':' && c != '.' && !c.is_ascii_digit()).next().unwrap().to_owned();
        std::thread::spawn(move || lines.count());
        Self { child, address }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
