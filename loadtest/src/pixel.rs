//! The generator: hits over keep-alive connections, one outstanding on each, from one thread or more.
//!
//! With a rate it is open-loop: hit k is due at k / rate whatever the server does, and its latency runs
//! from there, so the hits that a stalled server made wait are counted as slow (no coordinated
//! omission). Without one, each connection sends again as soon as it is answered.

use crate::histogram::Histogram;
use crate::http;
use crate::request::Requests;
use anyhow::{Context, Result, bail};
use rustix::event::epoll;
use rustix::fs::Timespec;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub target: SocketAddr,
    /// Keep-alive connections over all threads.
    pub connections: usize,
    /// Threads; one makes more than 100,000 hits a second.
    pub threads: usize,
    /// Hits a second; `None` sends as fast as answers come.
    pub rate: Option<f64>,
    /// Time that is not measured, before the time that is.
    pub warm_up: Duration,
    /// Time that is measured.
    pub time: Duration,
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// From when a hit was due to its whole answer.
    pub latency: Histogram,
    /// Answers with another status than 200.
    pub refused: u64,
    /// Hits that were due and could not be sent before the time was over.
    pub unsent: u64,
    /// The measured time.
    pub time: Duration,
}

impl Answers {
    /// Answers a second.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn rate(&self) -> f64 {
        self.latency.count() as f64 / self.time.as_secs_f64()
    }
}

/// Puts the load on the server and waits for the last answer.
pub fn run(load: &Load, requests: &Requests, seed: u64) -> Result<Answers> {
    let threads = load.threads.clamp(1, load.connections.max(1));
    let start = Instant::now();
    let parts = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|thread| {
                let part = Load {
                    connections: (load.connections / threads).max(1),
                    rate: load.rate.map(|rate| rate / threads as f64),
                    ..load.clone()
                };
                let requests = requests.reseeded(seed.wrapping_add(thread as u64));
                scope.spawn(move || Generator::new(&part, requests, start)?.run())
            })
            .collect();
        spawned.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut all = Answers { time: load.time, ..Answers::default() };
    for part in parts {
        let part = part.map_err(|_| anyhow::anyhow!("a generator thread panicked"))??;
        all.latency.merge(&part.latency);
        all.refused += part.refused;
        all.unsent += part.unsent;
    }
    Ok(all)
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
    due: Duration,
    busy: bool,
}

struct Generator<'a> {
    load: &'a Load,
    requests: Requests,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    epoll: OwnedFd,
    start: Instant,
    answers: Answers,
}

impl<'a> Generator<'a> {
    fn new(load: &'a Load, requests: Requests, start: Instant) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let stream = TcpStream::connect(load.target)
                .with_context(|| format!("connecting {}", load.target))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            let answer = Vec::with_capacity(http::MAX_HEAD);
            connections.push(Connection { stream, answer, due: Duration::ZERO, busy: false });
        }
        let idle = (0..load.connections).collect();
        let answers = Answers::default();
        Ok(Self { load, requests, connections, idle, epoll, start, answers })
    }

    fn run(mut self) -> Result<Answers> {
        let end = self.load.warm_up + self.load.time;
        let step = self.load.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut due = self.start.elapsed();
        let first = due;
        let mut hit = 0_u32;
        let mut events = Vec::with_capacity(self.load.connections);
        loop {
            let now = self.start.elapsed();
            if now >= end {
                break;
            }
            let mut wait = end - now;
            if let Some(step) = step {
                while due <= now {
                    let Some(connection) = self.idle.pop_front() else { break };
                    self.send(connection, due)?;
                    hit += 1;
                    due = first + step * hit;
                }
                if !self.idle.is_empty() {
                    wait = wait.min(due.saturating_sub(now));
                }
            } else {
                while let Some(connection) = self.idle.pop_front() {
                    self.send(connection, now)?;
                }
            }
            self.receive(&mut events, wait)?;
        }
        if let Some(step) = step {
            while due < end {
                self.answers.unsent += 1;
                due += step;
            }
        }
        // What is outstanding was due in time and counts, up to a limit for a server that hangs.
        let limit = end + Duration::from_secs(10);
        while self.idle.len() < self.connections.len() {
            let now = self.start.elapsed();
            if now >= limit {
                bail!("{} hits had no answer", self.connections.len() - self.idle.len());
            }
            self.receive(&mut events, limit - now)?;
        }
        Ok(self.answers)
    }

    fn send(&mut self, index: usize, due: Duration) -> Result<()> {
        let connection = &mut self.connections[index];
        let request = self.requests.fill();
        let written = connection.stream.write(request).context("sending a hit")?;
        if written < request.len() {
            bail!("the socket took {written} of {} bytes", request.len());
        }
        connection.due = due;
        connection.busy = true;
        Ok(())
    }

    fn receive(&mut self, events: &mut Vec<epoll::Event>, wait: Duration) -> Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("waiting for answers"),
        }
        for event in events.iter() {
            let index = usize::try_from(event.data.u64()).expect("an index was put in");
            self.read(index)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let mut chunk = [0; 4096];
        let read = match connection.stream.read(&mut chunk) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("reading an answer"),
        };
        // The answer nearly always comes in one piece and is judged where it was read.
        let answer = if connection.answer.is_empty() {
            &chunk[..read]
        } else {
            connection.answer.extend_from_slice(&chunk[..read]);
            &connection.answer
        };
        match http::head(answer)? {
            Some(head) if answer.len() >= head.length + head.body => {
                if !connection.busy {
                    bail!("an answer came to no hit");
                }
                connection.busy = false;
                if connection.due >= self.load.warm_up {
                    self.answers.latency.record(self.start.elapsed() - connection.due);
                    self.answers.refused += u64::from(head.status != 200);
                }
                connection.answer.clear();
                self.idle.push_back(index);
            }
            _ if connection.answer.is_empty() => {
                connection.answer.extend_from_slice(&chunk[..read]);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Visitors;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Answers every request on every connection, the first of each after `stall`.
    fn server(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    std::thread::park_timeout(stall);
                    let reader = BufReader::new(stream.try_clone().unwrap());
                    for line in reader.lines().map_while(Result::ok) {
                        if line.is_empty() {
                            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nGIF";
                            if stream.write_all(answer).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    fn load(target: SocketAddr, rate: Option<f64>) -> Load {
        Load {
            target,
            connections: 2,
            threads: 1,
            rate,
            warm_up: Duration::ZERO,
            time: Duration::from_millis(400),
        }
    }

    #[test]
    fn hits_that_waited_behind_a_stall_are_counted_as_slow() {
        let requests = Requests::new("demo", Visitors::Named(10), 1);
        let stalled = load(server(Duration::from_millis(200)), Some(500.0));
        let answers = run(&stalled, &requests, 1).unwrap();
        // 200 are due, but for those of the time that the connections take to stand: long, on a busy machine.
        assert!((100..=200).contains(&(answers.latency.count() + answers.unsent)), "{answers:?}");
        // Half of the hits were due during the stall: a closed loop would have seen two of them.
        assert!(answers.latency.quantile(0.6) >= Duration::from_millis(20), "{answers:?}");
        assert_eq!(answers.refused, 0);
    }

    #[test]
    fn without_a_rate_every_connection_is_kept_busy() {
        let requests = Requests::new("demo", Visitors::Named(10), 1);
        let answers = run(&load(server(Duration::ZERO), None), &requests, 1).unwrap();
        assert!(answers.latency.count() > 100, "{answers:?}");
    }
}
