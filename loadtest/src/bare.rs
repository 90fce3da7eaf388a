//! The reference: an actix-web handler that answers the pixel's GIF and does nothing else.

use actix_web::http::header::{CACHE_CONTROL, ContentType};
use actix_web::{App, HttpResponse, HttpServer, mime, web};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A transparent image of 1×1 pixel.
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0\
    ,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

async fn pixel() -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType(mime::IMAGE_GIF))
        .insert_header((CACHE_CONTROL, "no-store, private"))
        .body(GIF)
}

/// Serves until the process ends; writes its address as the first line of `out`.
pub fn serve(listen: SocketAddr, workers: usize, out: &mut impl Write) -> Result<()> {
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| App::new().route("/pixel.gif", web::get().to(pixel)))
            .workers(workers)
            .bind(listen)
            .with_context(|| format!("listening on {listen}"))?;
        for address in server.addrs() {
            writeln!(out, "{address}")?;
        }
        out.flush()?;
        server.run().await.context("serving")
    })
}

/// The reference as a process of its own; killed when dropped.
#[derive(Debug)]
pub struct Bare {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Bare {
    /// Starts `loadtest bare` on a free port.
    pub fn start(loadtest: &Path, workers: usize) -> Result<Self> {
        let mut child = Command::new(loadtest)
            .args(["bare", "--listen", "127.0.0.1:0", "--workers", &workers.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", loadtest.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().context("the bare server told no address")?;
        Ok(Self { child, address })
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It ends with us in any case; a process that is gone already needs nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::GIF;

    #[test]
    fn the_image_has_43_bytes_like_the_product_s() {
        assert_eq!(GIF.len(), 43);
    }
}
