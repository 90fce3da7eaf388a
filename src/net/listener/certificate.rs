//! The certificate that a listener shows, read again when its files change: renewals need no restart.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// A file cannot be read.
    #[error("{setting} = \"{}\" cannot be read", path.display())]
    Unreadable {
        /// Its setting.
        setting: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{setting} = \"{}\": {hint}", path.display())]
    Malformed {
        /// Its setting.
        setting: String,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        hint: String,
    },
}

/// What a listener shows.
pub struct Certificate {
    /// The section of the settings, such as `collect.tls`.
    section: &'static str,
    files: Tls,
    shown: Arc<Shown>,
    /// What the files held when they were read last.
    read: Mutex<[Vec<u8>; 2]>,
}

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// How often the files are looked at.
    pub const LOOK: Duration = Duration::from_secs(5);

    /// Reads the files that a section of the settings names.
    pub fn read(section: &'static str, files: &Tls) -> Result<Self, BadCertificate> {
        let contents = contents(section, files)?;
        let key = Arc::new(certified(section, files, &contents)?);
        let shown = Arc::new(Shown(ArcSwap::new(key)));
        Ok(Self { section, files: files.clone(), shown, read: Mutex::new(contents) })
    }

    /// Reads them again where they have changed, and tells whether they have. What cannot be shown is told once, and what was
    /// shown before is shown on.
    pub fn renew(&self) -> Result<bool, BadCertificate> {
        let contents = contents(self.section, &self.files)?;
        let mut read = self.read.lock();
        if *read == contents {
            return Ok(false);
        }
        let certified = certified(self.section, &self.files, &contents);
        *read = contents;
        self.shown.0.store(Arc::new(certified?));
        Ok(true)
    }

    /// TLS 1.2 and 1.3, and HTTP/1.1 in it.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has what these versions need");
        let shown: Arc<dyn ResolvesServerCert> = Arc::clone(&self.shown) as _;
        let mut config = builder.with_no_client_auth().with_cert_resolver(shown);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What the files hold: the certificate's, and the key's.
fn contents(section: &str, files: &Tls) -> Result<[Vec<u8>; 2], BadCertificate> {
    let read = |name: &str, path: &PathBuf| {
        fs::read(path).map_err(|source| BadCertificate::Unreadable {
            setting: format!("{section}.{name}"),
            path: path.clone(),
            source,
        })
    };
    Ok([read("certificate", &files.certificate)?, read("key", &files.key)?])
}

fn certified(
    section: &str,
    files: &Tls,
    [certificate, key]: &[Vec<u8>; 2],
) -> Result<CertifiedKey, BadCertificate> {
    let wrong = |name: &str, path: &PathBuf, hint: String| BadCertificate::Malformed {
        setting: format!("{section}.{name}"),
        path: path.clone(),
        hint,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
        let hint = "expected certificates in PEM, the listener's own first".to_owned();
        wrong("certificate", &files.certificate, hint)
    })?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        wrong("key", &files.key, "expected a private key in PEM, without a passphrase".to_owned())
    })?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        let hint = format!("it is not the private key of the certificate: {error}");
        wrong("key", &files.key, hint)
    })
}
