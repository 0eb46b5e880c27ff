//! Registries of others, with a password or a certificate where wanted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use packager::reference::ImageReference;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::reference;

/// Whom the registry with a password lets in: `ann` with this.
pub(crate) const PASSWORD: &str = "hunter2-very-secret";
/// `htpasswd -B` for `ann` and the password above.
const HTPASSWD: &str = "ann:$2b$04$abcdefghijklmnopqrstuuHeJOV.bipiWXaAApJQSZdKFeoyKygHq";

/// Which registry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program {
    /// Debian's docker-registry, distribution 2.8.
    Debian,
    /// CNCF distribution 3.
    Distribution,
    /// The one in crane, of go-containerregistry, which has the referrers API. It asks for no password and has no TLS.
    Crane,
}

impl Program {
    pub(crate) const ALL: [Self; 3] = [Self::Debian, Self::Distribution, Self::Crane];
    /// Those that take a password or a certificate.
    pub(crate) const GUARDED: [Self; 2] = [Self::Debian, Self::Distribution];

    /// With what it takes to serve from `folder`.
    fn command(self, folder: &Path, http: &str, more: &str) -> Command {
        if let Self::Crane = self {
            let mut command = Command::new(tool("debian-forky/usr/bin/crane"));
            let storage = folder.join("storage");
            std::fs::create_dir(&storage).unwrap();
            command.args(["registry", "serve", "--address", "127.0.0.1:0", "--disk"]).arg(storage);
            return command;
        }
        let program =
            if let Self::Debian = self { "docker-registry".into() } else { tool("distribution-3.1.1/registry") };
        let configuration = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nhttp: {{addr: '127.0.0.1:0'{http}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n{more}",
            folder.join("storage").display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(&configuration);
        command
    }
}

/// The address in a line that says where it listens.
fn address(line: &str) -> Option<String> {
    if let Some((_, port)) = line.split_once("serving on port ") {
        return Some(format!("127.0.0.1:{port}"));
    }
    let (_, address) = line.split_once("listening on ")?;
    address.split(|c: char| !matches!(c, '.' | ':' | '0'..='9')).next().map(str::to_owned)
}

/// A program that `cargo xtask ci --prepare` puts into `target/tools`.
pub(crate) fn tool(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools").join(path);
    assert!(program.is_file(), "{} is missing: run `cargo xtask ci --prepare`", program.display());
    program
}

/// A registry of others on a free port. It is killed when dropped.
pub(crate) struct RealRegistry {
    child: Child,
    pub(crate) host: String,
    pub(crate) folder: TempDir,
}

impl RealRegistry {
    fn start(program: Program, folder: TempDir, http: &str, more: &str) -> Self {
        let mut child = program
            .command(folder.path(), http, more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the registry runs; `cargo xtask ci --prepare` installs it");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let host = lines.find_map(|line| address(&line)).expect("the registry says where it listens");
        // It blocks once nobody reads what it logs.
        std::thread::spawn(move || lines.count());
        Self { child, host, folder }
    }

    pub(crate) fn open(program: Program) -> Self {
        Self::start(program, tempfile::tempdir().unwrap(), "", "")
    }

    pub(crate) fn with_password(program: Program) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        std::fs::write(&path, format!("{HTPASSWD}\n")).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: plugwright, path: '{}'}}}}\n", path.display());
        Self::start(program, folder, "", &auth)
    }

    /// With a certificate of a CA of its own, which is in `ca.pem`.
    pub(crate) fn with_tls(program: Program) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1", "localhost", "registry.nowhere.invalid"].map(str::to_owned);
        let leaf = CertificateParams::new(names.to_vec()).unwrap().signed_by(&key, &ca).unwrap();
        std::fs::write(file("ca.pem"), ca.pem()).unwrap();
        std::fs::write(file("leaf.pem"), leaf.pem()).unwrap();
        std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
        let tls =
            format!(", tls: {{certificate: '{}', key: '{}'}}", file("leaf.pem").display(), file("key.pem").display());
        Self::start(program, folder, &tls, "")
    }

    pub(crate) fn reference(&self, rest: &str) -> ImageReference {
        reference(&self.host, rest)
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
