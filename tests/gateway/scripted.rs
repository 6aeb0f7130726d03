//! A backend that says what a test wants, byte by byte, and keeps what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it was sent, and when its connection was closed.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: String,
    pub closed: Option<Instant>,
}

/// The pieces of an answer, with a pause before each; then the connection is left open, unless the
/// last piece is empty: then it is closed.
pub type Script = Vec<(Duration, Vec<u8>)>;

/// A backend that is always well and answers each inference by its script.
pub struct Scripted {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    metrics: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

/// An answer with a length.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

impl Scripted {
    pub async fn start(script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let metrics = Arc::new(Mutex::new(Some(String::new())));
        let (script, kept, told) = (Arc::new(script), Arc::clone(&seen), Arc::clone(&metrics));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (script, seen) = (Arc::clone(&script), Arc::clone(&kept));
                let metrics = Arc::clone(&told);
                tokio::spawn(async move { converse(stream, &*script, (&seen, &metrics)).await });
            }
        });
        Scripted { addr, seen, metrics, task }
    }

    /// An answer at once.
    pub async fn saying(status: &str, headers: &str, body: &str) -> Scripted {
        let bytes = answer(status, headers, body);
        Scripted::start(move |_| vec![(Duration::ZERO, bytes.clone())]).await
    }

    /// What its metrics say from now on.
    pub fn set_metrics(&self, text: &str) {
        *self.metrics.lock().expect("nobody panics while it is held") = Some(text.to_owned());
    }

    /// Its metrics are asked for in vain from now on.
    pub fn hang_metrics(&self) {
        *self.metrics.lock().expect("nobody panics while it is held") = None;
    }

    /// The inferences that it was sent.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("nobody panics while it is held").clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut stream: TcpStream,
    script: &(impl Fn(usize) -> Script + ?Sized),
    (seen, metrics): (&Mutex<Vec<Seen>>, &Mutex<Option<String>>),
) {
    let mut buffer = Vec::new();
    loop {
        let Some(head) = read_until(&mut stream, &mut buffer).await else { return };
        if !head.starts_with("POST") {
            let text = metrics.lock().expect("nobody panics while it is held").clone();
            let text = match (head.contains("/metrics"), text) {
                (true, None) => return std::future::pending().await,
                (true, Some(text)) => text,
                (false, _) => "ok".to_owned(),
            };
            let well = answer("200 OK", "content-type: text/plain\r\n", &text);
            if stream.write_all(&well).await.is_err() {
                return;
            }
            continue;
        }
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        while buffer.len() < length {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let body = String::from_utf8_lossy(&buffer[..length]).into_owned();
        buffer.drain(..length);
        let number = {
            let mut seen = seen.lock().expect("nobody panics while it is held");
            seen.push(Seen { head, body, closed: None });
            seen.len() - 1
        };
        let pieces = script(number);
        let closes = pieces.last().is_some_and(|(_, piece)| piece.is_empty());
        let told = async {
            for (pause, piece) in pieces {
                tokio::time::sleep(pause).await;
                if stream.write_all(&piece).await.is_err() {
                    return false;
                }
            }
            !closes
        };
        if !told.await {
            return;
        }
        // Whoever reads nothing more is gone, or has another request.
        if buffer.is_empty() {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => {
                    let mut seen = seen.lock().expect("nobody panics while it is held");
                    seen[number].closed = Some(Instant::now());
                    return;
                }
                Ok(_) => {}
            }
        }
    }
}

async fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = buffer.drain(..end + 4).collect();
            return String::from_utf8(head).ok();
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
