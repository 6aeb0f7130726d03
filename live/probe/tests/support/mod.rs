//! A client that sees every byte of HTTP/1.1, and an engine small enough to reckon with.

#![allow(dead_code, reason = "no test uses all of it")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use plimsoll_probe::backend::{Backend, Fault, FaultShare, Faults, Running, Settings};
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};
use serde_json::Value;

/// How a response, or the wait for it, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Whole,
    /// The connection was closed before.
    Closed,
    /// The connection was reset before.
    Reset,
    /// Nothing came for longer than the client's patience.
    Silent,
}

/// What was received.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Chunks (or the body as one) and when they came, since the request was sent.
    pub chunks: Vec<(Duration, Vec<u8>)>,
    pub end: End,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map_or("", |(_, value)| value)
    }
    pub fn text(&self) -> String {
        let bytes = self.chunks.iter().flat_map(|(_, chunk)| chunk).copied().collect();
        String::from_utf8(bytes).expect("the body is UTF-8")
    }
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text()).expect("the body is JSON")
    }
    /// What stands behind each `data:`, and when it came.
    pub fn events(&self) -> Vec<(Duration, String)> {
        let lines = self.chunks.iter().flat_map(|(at, chunk)| {
            let text = String::from_utf8_lossy(chunk).into_owned();
            let lines: Vec<_> = text.split("\n\n").map(|line| (*at, line.to_owned())).collect();
            lines
        });
        let events = lines.filter_map(|(at, line)| Some((at, line.strip_prefix("data: ")?.into())));
        events.collect()
    }
    /// When each token came.
    pub fn tokens(&self) -> Vec<Duration> {
        let is_token = |event: &str| event.contains(" tok");
        self.events().into_iter().filter(|(_, event)| is_token(event)).map(|(at, _)| at).collect()
    }
    /// The reason of the final chunk, if there was one.
    pub fn finish_reason(&self) -> Option<String> {
        let events = self.events();
        let parsed = events.iter().filter_map(|(_, text)| serde_json::from_str(text).ok());
        let mut reasons = parsed.filter_map(|event: Value| {
            Some(event["choices"][0]["finish_reason"].as_str()?.to_owned())
        });
        reasons.next()
    }
    pub fn is_done(&self) -> bool {
        self.events().last().is_some_and(|(_, event)| event == "[DONE]")
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    sent: Instant,
}

impl Connection {
    pub fn open(addr: SocketAddr) -> Connection {
        let stream = TcpStream::connect(addr).expect("somebody listens");
        stream.set_nodelay(true).expect("a socket has options");
        let connection = Connection { stream, buffer: Vec::new(), sent: Instant::now() };
        connection.patience(Duration::from_secs(5));
        connection
    }

    /// How long it waits for the next byte.
    pub fn patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a socket has options");
    }

    /// Sends bytes as they are. A server that has hung up already shows when it is read.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
        self.sent = Instant::now();
    }

    pub fn send(&mut self, start: &str, headers: &[(&str, &str)], body: &str) {
        let mut text = format!("{start} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        self.send_raw(text.as_bytes());
    }

    /// Reads a response to its end.
    pub fn reply(&mut self) -> Reply {
        let mut reply =
            Reply { status: 0, headers: Vec::new(), chunks: Vec::new(), end: End::Whole };
        if let Err(end) = self.read(&mut reply) {
            reply.end = end;
        }
        reply
    }

    fn read(&mut self, reply: &mut Reply) -> Result<(), End> {
        (reply.status, reply.headers) = self.head()?;
        if reply.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk()? {
                reply.chunks.push((self.sent.elapsed(), chunk));
            }
            return Ok(());
        }
        let length = reply.header("content-length").parse().expect("a body has a length");
        let body = self.take(length)?;
        reply.chunks.push((self.sent.elapsed(), body));
        Ok(())
    }

    /// Reads status and headers.
    pub fn head(&mut self) -> Result<(u16, Vec<(String, String)>), End> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok((status.expect("a response has a status"), headers))
    }

    /// Reads a chunk; `None` is the last.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let length = usize::from_str_radix(&self.line()?, 16).expect("a chunk has a length");
        let mut chunk = self.take(length + 2)?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }

    fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut bytes = [0; 4_096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(End::Closed),
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(End::Silent),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Err(End::Reset),
                other => panic!("{other}"),
            },
        }
    }
}

/// One request on a connection of its own.
pub fn post(addr: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut connection = Connection::open(addr);
    connection.send(&format!("POST {path}"), headers, body);
    connection.reply()
}

/// A look on a connection of its own.
pub fn get(addr: SocketAddr, path: &str) -> Reply {
    let mut connection = Connection::open(addr);
    connection.send(&format!("GET {path}"), &[], "");
    connection.reply()
}

/// The body of a chat that streams so many tokens.
pub fn chat(max_tokens: u32) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"a b c"}}],"max_tokens":{max_tokens},"stream":true}}"#
    )
}

pub const CHAT: &str = "/v1/chat/completions";

/// Steps of 10 ms, and 10 µs a prompt token.
pub fn engine(seats: u32) -> EngineModel {
    EngineModel {
        seats,
        step_tokens_max: 512,
        kv_blocks: 4_096,
        block_tokens: 16,
        context_max: 20_000,
        chunked_prefill: true,
        admission: Admission::Fcfs,
        step_noise: None,
        step_cost: StepCostSpec::affine(Affine {
            base: 10e6,
            prefill: 10e3,
            sequence: 100e3,
            context: 100.0,
            ..Affine::default()
        }),
    }
}

/// A backend of so many seats whose clock is so much faster.
pub fn start(seats: u32, speed: f64) -> Running {
    let settings = Settings { speed, ..Settings::default() };
    Backend::start(engine(seats), settings).expect("the backend starts")
}

/// One fault for a part of all requests.
pub fn faults(fault: Fault, probability: f64) -> Faults {
    Faults::new(vec![FaultShare { fault, probability }], 1).expect("it is a part")
}

/// Waits until something holds, for two seconds at most; returns how long that took.
pub fn eventually(what: &str, holds: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(2), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}
