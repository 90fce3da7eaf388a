//! As much of HTTP/1.1 as a load generator needs: answers with a `Content-Length`.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No head of an answer is longer.
pub const MAX_HEAD: usize = 8 << 10;

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Bytes up to and with the empty line.
    pub length: usize,
    /// Bytes after it.
    pub body: usize,
}

/// Reads the head that stands at the beginning of `bytes`; `None` while it is not whole.
pub fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > MAX_HEAD {
            bail!("the head of the answer is longer than {MAX_HEAD} bytes");
        }
        return Ok(None);
    };
    let status = bytes
        .get(9..12)
        .filter(|_| bytes.starts_with(b"HTTP/1."))
        .and_then(|code| std::str::from_utf8(code).ok()?.parse().ok())
        .context("the answer is not HTTP/1.x")?;
    let body = header(&bytes[..end], b"content-length")
        .and_then(|value| value.parse().ok())
        .context("the answer has no Content-Length")?;
    Ok(Some(Head { status, length: end + 4, body }))
}

/// The value of the first header of this name, which is given in lower case.
pub fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.get(name.len()..)?.strip_prefix(b":")?;
        line[..name.len()].eq_ignore_ascii_case(name).then_some(())?;
        std::str::from_utf8(value).ok().map(str::trim)
    })
}

/// One blocking keep-alive connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
    /// A header line for each request.
    authorization: String,
}

impl Client {
    /// Connects; a read that takes longer than 10 s fails.
    pub fn connect(target: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(target).with_context(|| format!("connecting {target}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, answer: Vec::new(), authorization: String::new() })
    }

    /// Sends a token with what it gets.
    pub fn with_token(mut self, token: &str) -> Self {
        self.authorization = format!("Authorization: Bearer {token}\r\n");
        self
    }

    /// Sends a whole request and waits for the whole answer: its head and its body.
    pub fn send(&mut self, request: &[u8]) -> Result<(Head, &[u8], &[u8])> {
        self.stream.write_all(request)?;
        self.answer.clear();
        let mut chunk = [0; 16 << 10];
        let head = loop {
            if let Some(head) = head(&self.answer)?
                && self.answer.len() >= head.length + head.body
            {
                break head;
            }
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            self.answer.extend_from_slice(&chunk[..read]);
        };
        let (first, body) = self.answer.split_at(head.length);
        Ok((head, first, body))
    }

    /// GETs a path.
    pub fn get(&mut self, path: &str) -> Result<(Head, &[u8], &[u8])> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", self.authorization);
        self.send(head.as_bytes())
    }

    /// POSTs JSON.
    pub fn post(&mut self, path: &str, body: &str) -> Result<(Head, &[u8], &[u8])> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{}\r\n{body}",
            body.len(),
            self.authorization
        );
        self.send(request.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 43\r\nX: y\r\n\r\nGIF";
        assert_eq!(head(&answer[..30]).unwrap(), None);
        let whole = head(answer).unwrap().unwrap();
        assert_eq!(whole, Head { status: 200, length: answer.len() - 3, body: 43 });
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(&[b'x'; MAX_HEAD + 1]).is_err());
    }
}
