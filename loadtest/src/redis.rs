//! A Redis server as a process of its own, with an append-only file, ended when dropped.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is shipped for this use.
const SETTINGS: &str = include_str!("../../config/redis/redis.conf");

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts one in a directory; `fsync` is its `appendfsync`.
    pub fn start(directory: &Path, fsync: &str) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let settings = directory.join("redis.conf");
        std::fs::write(&settings, SETTINGS)?;
        let child = Command::new("redis-server")
            .arg(std::path::absolute(&settings)?)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", fsync])
            .arg("--dir")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting redis-server; `apt-get install redis-server` installs it")?;
        let mut redis = Self { child, port };
        let start = Instant::now();
        while !redis.answers() {
            if let Some(status) = redis.child.try_wait()? {
                bail!("redis-server ended with {status}");
            }
            if start.elapsed() > PATIENCE {
                bail!("redis-server did not answer within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG")
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
