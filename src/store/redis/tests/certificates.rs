//! Certificates for tests, made with `openssl`.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A folder of certificates and keys in PEM: `ca` has signed `server`, which is for this machine, `elsewhere`, which is
/// for another, and `expired`; `other-ca` has signed `stranger`.
pub(crate) struct Certificates {
    dir: TempDir,
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
const HERE: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

impl Certificates {
    pub(crate) fn make() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["ca", "other-ca"] {
            made.openssl(&format!(
                "req -x509 {KEY} -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name} \
                 -addext keyUsage=critical,keyCertSign"
            ));
        }
        made.signed("ca", "server", HERE, "30000101000000Z");
        made.signed("ca", "elsewhere", "subjectAltName=DNS:elsewhere.example", "30000101000000Z");
        made.signed("ca", "expired", HERE, "20200201000000Z");
        made.signed("other-ca", "stranger", HERE, "30000101000000Z");
        made
    }

    fn signed(&self, by: &str, name: &str, extension: &str, until: &str) {
        let folder = self.dir.path().display();
        let settings = format!(
            "[ca]\ndefault_ca = d\n[d]\ndatabase = {folder}/index\nnew_certs_dir = {folder}\nrand_serial = yes\n\
             default_md = sha256\npolicy = p\n[p]\ncommonName = supplied\n[v3]\n{extension}\n"
        );
        std::fs::write(self.file("settings"), settings).unwrap();
        std::fs::write(self.file("index"), "").unwrap();
        self.openssl(&format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "ca -batch -notext -config settings -extensions v3 -cert {by}.pem -keyfile {by}.key -in {name}.csr \
             -out {name}.pem -startdate 20200101000000Z -enddate {until}"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.current_dir(self.dir.path()).args(arguments.split_whitespace());
        let output = command.output().expect("openssl is installed");
        assert!(
            output.status.success(),
            "{arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
