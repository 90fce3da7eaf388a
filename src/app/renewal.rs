//! Certificates of the listeners, read again when their files change, or at once when SIGHUP asks for it.

use std::sync::Arc;

use tokio::signal::unix::Signal;

use crate::net::listener::Certificate;
use crate::store::chain;

/// Starts looking. SIGHUP ends no process that has no certificate either.
pub(super) fn start(shown: Vec<Arc<Certificate>>, mut hangup: Signal) {
    actix_web::rt::spawn(async move {
        // What is wrong is told when it begins to be so.
        let mut told = vec![String::new(); shown.len()];
        loop {
            tokio::select! {
                () = tokio::time::sleep(Certificate::LOOK) => {}
                _ = hangup.recv() => told.iter_mut().for_each(String::clear),
            }
            for (certificate, told) in shown.iter().zip(&mut told) {
                let wrong = match certificate.renew() {
                    Ok(false) => continue,
                    Ok(true) => {
                        tracing::info!("a renewed certificate is shown from now on");
                        String::new()
                    }
                    Err(error) => chain(&error),
                };
                if !wrong.is_empty() && wrong != *told {
                    tracing::error!("the certificate that was read before is shown on: {wrong}");
                }
                *told = wrong;
            }
        }
    });
}
