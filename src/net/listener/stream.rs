//! What a client sends and is sent, and when it owes something.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::Patience;
use super::gate::Pass;
use super::gate::Refusal;

/// A head of so many bytes any connection may have; beyond it room is taken from what all share.
const HEAD: usize = 8 << 10;
/// HTTP keeps no more of a connection's bytes than these: a head that is longer is refused, and what is more is thrown away.
const KEPT: usize = 128 << 10;
/// So much of heads is read before what they ask for is answered: requests that come one behind the other would all be
/// answered into memory.
const TURN: usize = 4 << 10;
/// The first head's time is told by HTTP, with an answer: this one is later, and without.
const AFTER: Duration = Duration::from_secs(1);
/// How long the rest of a body that is not taken may go on, so that its client can read why.
const ENDING: Duration = Duration::from_secs(4);

/// How an answer begins that is none yet.
const CONTINUE: &[u8] = b"HTTP/1.1 100 ";

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
    /// A handler, which waits for the body itself.
    Answer,
    /// The end of what is not taken any more.
    End,
}

/// How far a connection's client is. Shared by the stream and those who handle its requests, all on one thread.
pub(super) struct Pace {
    pass: Pass,
    patience: Patience,
    is_tls: bool,
    awaited: Cell<(Awaited, Instant)>,
    /// Bytes read since the last answer, and what of it was taken from what all share.
    head: Cell<usize>,
    taken: Cell<usize>,
}

impl Pace {
    pub(super) fn new(pass: Pass, patience: Patience, is_tls: bool) -> Self {
        let awaited = Cell::new((Awaited::Request, Instant::now()));
        Self { pass, patience, is_tls, awaited, head: Cell::new(0), taken: Cell::new(0) }
    }

    /// Until when what is awaited has to come.
    fn until(&self) -> Option<Instant> {
        let (awaited, since) = self.awaited.get();
        let Patience { head, idle, handling, .. } = self.patience;
        let wait = match awaited {
            // A part of a next head may have come with the last request, so idleness ends here, too; not where an answer
            // may come in parts, far apart.
            Awaited::Request => handling.map(|_| idle + head)?,
            Awaited::Head => head + AFTER,
            Awaited::Answer => handling?,
            Awaited::End => ENDING,
        };
        Some(since + wait)
    }

    /// Bytes have come.
    fn read(&self, bytes: usize) -> io::Result<()> {
        match self.awaited.get().0 {
            Awaited::Request => self.awaited.set((Awaited::Head, Instant::now())),
            Awaited::Head => {}
            Awaited::Answer | Awaited::End => return Ok(()),
        }
        let head = (self.head.get() + bytes).min(KEPT);
        self.head.set(head);
        let more = head.saturating_sub(HEAD) - self.taken.get();
        if more > 0 {
            if !self.pass.gate().take_head(more) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.taken.set(self.taken.get() + more);
        }
        Ok(())
    }

    fn next(&self, awaited: Awaited, since: Instant) {
        if self.awaited.get().0 != Awaited::End {
            self.awaited.set((awaited, since));
        }
        self.head.set(0);
        match self.taken.replace(0) {
            0 => {}
            taken => self.pass.gate().give_head(taken),
        }
    }

    fn slow(&self) -> io::Error {
        self.pass.gate().refused(Refusal::Slow);
        io::ErrorKind::TimedOut.into()
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.pass.gate().give_head(self.taken.get());
    }
}

/// What a request can be told of the connection that it came by.
#[derive(Clone)]
pub struct Connection(Rc<Pace>);

impl Connection {
    /// Whether its client speaks TLS to this process.
    pub fn is_tls(&self) -> bool {
        self.0.is_tls
    }

    /// Says that a request's head has come, and that a handler has it.
    pub fn handling(&self) {
        // From its first byte on, which asks for no clock.
        self.0.next(Awaited::Answer, self.0.awaited.get().1);
    }

    /// Says that the rest of a request's body is not taken, and nothing after it.
    pub fn ending(&self) {
        self.0.next(Awaited::End, Instant::now());
    }
}

/// A connection's bytes.
pub(super) struct Stream {
    bytes: Bytes,
    pace: Rc<Pace>,
    /// Since when a client does not read what it is sent.
    unread: Option<Instant>,
    /// Whether no more is read of it until it does.
    waits: bool,
    /// How much of heads was read since there was something else to do.
    turn: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

enum Bytes {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn plain(socket: TcpStream, pace: Rc<Pace>) -> Self {
        Self::new(Bytes::Plain(socket), pace)
    }

    pub(super) fn encrypted(stream: TlsStream<TcpStream>, pace: Rc<Pace>) -> Self {
        Self::new(Bytes::Encrypted(Box::new(stream)), pace)
    }

    fn new(bytes: Bytes, pace: Rc<Pace>) -> Self {
        Self { bytes, pace, unread: None, waits: false, turn: 0, timer: None }
    }

    pub(super) fn connection(&self) -> Connection {
        Connection(Rc::clone(&self.pace))
    }

    /// Whether the client is too late; if not, it is looked at again when it may be.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let unread = self.unread.zip(self.pace.patience.reading);
        let unread = unread.map(|(since, wait)| since + wait);
        let awaited = self.pace.until();
        let Some(until) = unread.into_iter().chain(awaited).min() else { return false };
        if let Some(timer) = &mut self.timer {
            // One that is early wakes this connection all the same, which finds out then what there is to wait for: most
            // requests ask for no clock here.
            if !timer.is_elapsed() && timer.deadline() <= until {
                return false;
            }
            timer.as_mut().reset(until);
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        timer.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_some() {
            self.waits = true;
            return match self.is_late(context) {
                true => Poll::Ready(Err(self.pace.slow())),
                false => Poll::Pending,
            };
        }
        let before = into.filled().len();
        let read = match self.pace.awaited.get().0 {
            Awaited::Answer | Awaited::End => self.read(context, into),
            Awaited::Request | Awaited::Head if self.turn >= TURN => {
                self.turn = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Awaited::Request | Awaited::Head => {
                let mut some = [MaybeUninit::uninit(); TURN];
                let room = (TURN - self.turn).min(into.remaining());
                let mut some = ReadBuf::uninit(&mut some[..room]);
                let read = self.read(context, &mut some);
                into.put_slice(some.filled());
                self.turn += some.filled().len();
                read
            }
        };
        match read {
            Poll::Ready(Ok(())) => match into.filled().len() - before {
                0 => Poll::Ready(Ok(())),
                bytes => Poll::Ready(self.pace.read(bytes)),
            },
            Poll::Pending => {
                self.turn = 0;
                match self.is_late(context) {
                    true => Poll::Ready(Err(self.pace.slow())),
                    false => Poll::Pending,
                }
            }
            read => read,
        }
    }
}

impl Stream {
    fn read(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(socket) => Pin::new(socket).poll_read(context, into),
            Bytes::Encrypted(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl Stream {
    /// What became of a write, or a flush: a client that takes nothing has so long for it.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(done)) => {
                self.unread = None;
                if std::mem::take(&mut self.waits) {
                    // What it has sent meanwhile wakes nobody.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(Ok(done))
            }
            Poll::Pending => {
                self.unread.get_or_insert_with(Instant::now);
                if self.is_late(context) {
                    return Poll::Ready(Err(self.pace.slow()));
                }
                Poll::Pending
            }
            failed => failed,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.bytes {
            Bytes::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Bytes::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        // Who is told to go on has not been answered.
        if matches!(written, Poll::Ready(Ok(1..))) && !bytes.starts_with(CONTINUE) {
            self.pace.next(Awaited::Request, Instant::now());
        }
        self.written(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.bytes {
            Bytes::Plain(socket) => Pin::new(socket).poll_flush(context),
            Bytes::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        };
        self.written(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = match &mut self.bytes {
            Bytes::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Bytes::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        };
        self.written(context, shut)
    }
}
