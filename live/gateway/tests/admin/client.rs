//! A gateway over backends, and a client that sees what comes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_config::gateway::GatewayFile;
use plimsoll_gateway::{Gateway, Keys, Operations, Running};
use plimsoll_probe::backend::{self, Backend};
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// An engine of steps of 10 ms that runs so many times faster.
pub fn engine(speed: f64) -> backend::Running {
    let model = EngineModel {
        seats: 8,
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
    };
    let settings = backend::Settings { speed, ..Default::default() };
    Backend::start(model, settings).expect("the backend starts")
}

/// A `[[backend]]` of so many seats.
pub fn backend(name: &str, address: SocketAddr, seats: u32) -> String {
    format!(
        "[[backend]]\nname = \"{name}\"\nurl = \"http://{address}\"\nkind = \"vllm\"\n\
         seats = {seats}\nkv_tokens = 60000\nscrape_every = \"50ms\"\n"
    )
}

/// What stands before the backends: two classes, told apart by header.
pub const HEAD: &str = r#"
schema_version = 1
name = "ops"
class = [{ name = "chat", weight = 3 }, { name = "batch" }]
[policy]
classify = [
  { rule = "match", header = { name = "x-work", value = "batch" }, class = "batch" },
  { rule = "match", class = "chat" },
]
[gateway]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
"#;

/// A gateway whose file is on disk, and read again from there.
pub struct Stand {
    pub gateway: Running,
    pub folder: tempfile::TempDir,
    levels: Arc<std::sync::Mutex<Vec<String>>>,
}

pub fn read(path: &Path) -> Result<(GatewayFile, Keys), String> {
    let layered = plimsoll_config::read(path, &[], &[]).map_err(|wrong| wrong.to_string())?;
    let file = layered.gateway_file().map_err(|wrong| wrong.to_string())?;
    let keys = Keys::look_up(&file.keys, &file.backends).map_err(|error| error.to_string())?;
    Ok((file, keys))
}

impl Stand {
    pub async fn start(text: &str) -> Stand {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).expect("the file is written");
        let (file, keys) = read(&path).unwrap_or_else(|wrong| panic!("{wrong}"));
        let levels: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&levels);
        let operations = Operations {
            read_again: Some(Arc::new(move || read(&path))),
            set_log_level: Some(Arc::new(move |level| match level {
                "debug" | "info" => {
                    told.lock().expect("nobody panics").push(level.to_owned());
                    Ok(())
                }
                other => Err(format!("`{other}` is no level")),
            })),
        };
        let gateway = Gateway { file, keys, observer: Box::new(()) };
        let gateway = gateway.operate(operations).await.expect("it starts");
        let stand = Stand { gateway, folder, levels };
        stand.until("a backend is there", |state| state["backends"][0]["up"] == true).await;
        stand
    }

    pub fn admin(&self) -> SocketAddr {
        self.gateway.admin_address().expect("it has an operations side")
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    pub fn levels(&self) -> Vec<String> {
        self.levels.lock().expect("nobody panics").clone()
    }

    pub async fn state(&self) -> Value {
        get(self.admin(), "/state").await.json()
    }

    /// Waits until the state is such, for two seconds at most.
    pub async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let state = self.state().await;
            if holds(&state) {
                return state;
            }
            assert!(began.elapsed() < Duration::from_secs(2), "{what}: {state:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Another file, put in force by a post.
    pub async fn reload(&self, text: &str) -> Reply {
        std::fs::write(self.path(), text).expect("the file is written");
        post(self.admin(), "/reload", "").await
    }

    /// A chat of so many tokens under way.
    pub fn chat(&self, tokens: u32, headers: &str) -> JoinHandle<Reply> {
        let address = self.gateway.address();
        let headers = headers.to_owned();
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"a b x-output-tokens:{tokens}"}}],"max_tokens":{tokens},"stream":true}}"#
        );
        tokio::spawn(async move {
            let start = "POST /v1/chat/completions";
            let headers = format!("content-type: application/json\r\n{headers}");
            exchange(address, (start, &headers), &body).await
        })
    }
}

/// What was received.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
    /// Whether it is a stream that came to its end.
    pub fn is_done(&self) -> bool {
        self.status == 200 && self.body.ends_with("data: [DONE]\n\n")
    }
    pub fn tokens(&self) -> usize {
        self.body.matches(" tok").count()
    }
}

pub async fn get(address: SocketAddr, path: &str) -> Reply {
    exchange(address, (&format!("GET {path}"), ""), "").await
}

pub async fn post(address: SocketAddr, path: &str, body: &str) -> Reply {
    let json = "content-type: application/json\r\n";
    exchange(address, (&format!("POST {path}"), json), body).await
}

/// One request on a connection of its own. `headers` are whole lines; a `host` among them replaces
/// that of the address.
pub async fn exchange(address: SocketAddr, (start, headers): (&str, &str), body: &str) -> Reply {
    let mut stream = open(address, (start, headers), body).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("it answers");
    parse(&bytes)
}

pub async fn open(address: SocketAddr, (start, headers): (&str, &str), body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let host = match headers.contains("host:") {
        true => String::new(),
        false => format!("host: {address}\r\n"),
    };
    let length = body.len();
    let text = format!(
        "{start} HTTP/1.1\r\n{host}{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("it reads");
    stream
}

fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes);
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut body = rest.to_owned();
    if head.contains("transfer-encoding: chunked") {
        body.clear();
        while let Some((length, after)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).expect("a chunk has a length");
            body += after.get(..length).unwrap_or(after);
            rest = after.get(length + 2..).unwrap_or("");
        }
    }
    Reply { status, head, body }
}
