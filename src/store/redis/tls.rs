//! TLS on the way to Redis: whose certificates are accepted, what is shown, and what an error of it means.

use std::error::Error as Cause;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redis::Client;
use redis::ClientTlsConfig;
use redis::ConnectionAddr;
use redis::ConnectionInfo;
use redis::RedisError;
use redis::TlsCertificates;
use rustls::AlertDescription;
use rustls::Error;

use crate::config::Trust;
use crate::store::StoreError;

/// Reads the files of TLS into how a node is connected to, where it is with TLS.
pub(super) fn equip(info: ConnectionInfo, trust: &Trust) -> Result<ConnectionInfo, StoreError> {
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) || *trust == Trust::default() {
        return Ok(info);
    }
    let own = match &trust.own {
        Some((certificate, key)) => {
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        }
        None => None,
    };
    let ca = trust.ca.as_deref().map(read).transpose()?;
    if let Some(path) = trust.ca.as_deref().filter(|_| ca.as_deref().is_some_and(is_without)) {
        return Err(malformed(path, "it holds no certificate in PEM", None));
    }
    let equipped = Client::build_with_tls(info, TlsCertificates { client_tls: own, root_cert: ca });
    // What is wrong is said without the file: it is one of those.
    equipped.map(|client| client.get_connection_info().clone()).map_err(|error| {
        let mut paths: Vec<&Path> = trust.ca.iter().map(AsRef::as_ref).collect();
        paths.extend(trust.own.iter().flat_map(|(certificate, key)| [&**certificate, &**key]));
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        malformed(Path::new(&names.join(", ")), "it is not what TLS needs, in PEM", Some(error))
    })
}

fn is_without(pem: &[u8]) -> bool {
    !String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----")
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|error| StoreError::Malformed {
        what: path.display().to_string(),
        hint: "it is named by store.ca, store.certificate or store.key".to_owned(),
        source: Some(error.into()),
    })
}

fn malformed(path: &Path, hint: &str, source: Option<RedisError>) -> StoreError {
    let source = source.map(Into::into);
    StoreError::Malformed { what: path.display().to_string(), hint: hint.to_owned(), source }
}

/// What an error means where it is one of TLS that no other try changes, with the way out.
pub(super) fn explain(error: &RedisError) -> Option<RedisError> {
    let source = error.source()?;
    // The client shares its causes between clones.
    let shared = source.downcast_ref::<Arc<dyn Cause + Send + Sync>>();
    let source = shared.map_or(source, |shared| &**shared as &(dyn Cause + 'static));
    let of_io = source.downcast_ref::<io::Error>()?;
    let of_tls = of_io.get_ref()?.downcast_ref::<Error>()?;
    let way_out = match of_tls {
        Error::InvalidCertificate(_) => {
            "its certificate is not accepted: `store.ca` names who has signed it, and it has to be made out to the \
             host that `store.url` or the cluster names"
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => {
            "it does not accept ours: `store.certificate` and `store.key` are what is shown to a server that wants \
             one (or `tls-auth-clients no` there)"
        }
        Error::InvalidMessage(_) => {
            "there is no TLS at that port: write redis://, or the port of TLS"
        }
        _ => return None,
    };
    Some(RedisError::from(io::Error::other(format!("{way_out} ({of_tls})"))))
}
