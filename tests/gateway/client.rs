//! A client that sees every byte of HTTP/1.1.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map_or("", |(_, value)| value)
    }
}

/// What was received.
#[derive(Clone, Debug)]
pub struct Reply {
    pub head: Head,
    /// Chunks (or the body as one) and when they came, since the request was sent.
    pub chunks: Vec<(Duration, Vec<u8>)>,
    pub end: End,
    /// When it ended, since the request was sent.
    pub took: Duration,
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.head.status
    }
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.chunks.iter().flat_map(|(_, chunk)| chunk).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap_or(Value::Null)
    }
    /// OpenAI's code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
    /// What stands behind each `data:`.
    pub fn events(&self) -> Vec<String> {
        let text = self.text();
        text.lines().filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).collect()
    }
    pub fn tokens(&self) -> usize {
        self.events().iter().filter(|event| event.contains(" tok")).count()
    }
    /// When the first piece of the body came.
    pub fn first(&self) -> Option<Duration> {
        self.chunks.first().map(|(at, _)| *at)
    }
    pub fn finish_reason(&self) -> Option<String> {
        let parsed = self.events().into_iter();
        let mut parsed = parsed.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
        parsed.find_map(|event| Some(event["choices"][0]["finish_reason"].as_str()?.to_owned()))
    }
    pub fn is_done(&self) -> bool {
        self.events().last().is_some_and(|event| event == "[DONE]")
    }
    /// The code of an event `error`, if the stream ends with one.
    pub fn error_event(&self) -> Option<String> {
        let text = self.text();
        let (_, error) = text.split_once("event: error\ndata: ")?;
        let error: Value = serde_json::from_str(error.trim()).expect("one event, and JSON");
        Some(error["error"]["code"].as_str().expect("a code").to_owned())
    }
    /// A stream, or a whole answer, that says of itself that it is complete.
    pub fn is_success(&self) -> bool {
        self.status() == 200
            && self.end == End::Whole
            && (self.is_done() || self.json()["choices"][0]["finish_reason"].is_string())
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    pub sent: Instant,
    /// How long it waits for the next byte.
    pub patience: Duration,
}

impl Client {
    pub async fn open(addr: SocketAddr) -> Client {
        Client::try_open(addr).await.expect("somebody listens")
    }

    pub async fn try_open(addr: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Client::of(stream))
    }

    pub fn of(stream: TcpStream) -> Client {
        let patience = Duration::from_secs(10);
        Client { stream, buffer: Vec::new(), sent: Instant::now(), patience }
    }

    /// Sends bytes as they are. A server that has hung up already shows when it is read.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        self.sent = Instant::now();
    }

    /// Posts a body.
    pub async fn send(&mut self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n{headers}\
             content-length: {length}\r\n\r\n{body}"
        );
        self.send_raw(text.as_bytes()).await;
    }

    /// Reads a response to its end.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = Reply {
            head: Head::default(),
            chunks: Vec::new(),
            end: End::Whole,
            took: Duration::ZERO,
        };
        if let Err(end) = self.read(&mut reply).await {
            reply.end = end;
        }
        reply.took = self.sent.elapsed();
        reply
    }

    async fn read(&mut self, reply: &mut Reply) -> Result<(), End> {
        reply.head = self.head().await?;
        if reply.head.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.chunk().await? {
                reply.chunks.push((self.sent.elapsed(), chunk));
            }
            return Ok(());
        }
        let length = reply.head.header("content-length").parse().unwrap_or(0);
        let body = self.take(length).await?;
        reply.chunks.push((self.sent.elapsed(), body));
        Ok(())
    }

    /// Reads status and headers.
    pub async fn head(&mut self) -> Result<Head, End> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(Head { status: status.expect("a response has a status"), headers })
    }

    /// Reads a chunk; `None` is the last.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let length = usize::from_str_radix(&self.line().await?, 16).expect("a chunk has a length");
        let mut chunk = self.take(length + 2).await?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }

    /// Reads on until the other side has closed the connection; how many bytes that were.
    pub async fn rest(&mut self) -> (usize, End) {
        let mut count = 0;
        loop {
            count += self.buffer.len();
            self.buffer.clear();
            if let Err(end) = self.fill().await {
                return (count, end);
            }
        }
    }

    /// Waits until the other side has closed the connection; what comes before is dropped.
    pub async fn closed(&mut self) -> End {
        loop {
            match self.fill().await {
                Ok(()) => self.buffer.clear(),
                Err(end) => return end,
            }
        }
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn fill(&mut self) -> Result<(), End> {
        match timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await {
            Err(_) => Err(End::Silent),
            Ok(Ok(0)) => Err(End::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Err(End::Reset),
                other => panic!("{other}"),
            },
        }
    }
}

/// One request on a connection of its own.
pub async fn post(addr: SocketAddr, body: &str) -> Reply {
    let mut client = Client::open(addr).await;
    client.send(super::CHAT, "", body).await;
    client.reply().await
}

/// A chat of so many tokens that streams; the wishes go to the test backend.
pub fn chat(max_tokens: u32, wishes: &str) -> String {
    let messages = [json!({"role": "user", "content": format!("hello {wishes}")})];
    json!({"model": "any", "messages": messages, "max_tokens": max_tokens, "stream": true})
        .to_string()
}

/// The same as a whole.
pub fn whole(max_tokens: u32, wishes: &str) -> String {
    chat(max_tokens, wishes).replace("\"stream\":true", "\"stream\":false")
}
