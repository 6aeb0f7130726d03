//! The gateway as its own process, told by signals what to do: SIGHUP reads the file again, SIGTERM
//! drains.
#![cfg(unix)]

mod gateway;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gateway::{CHAT, Client, Plan, Reply, backend, books, chat, eventually, probe, run};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Starts `plimsoll serve` and reads where it listens.
async fn serve(file: &Path) -> (Child, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.arg("serve").arg(file).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let out = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(out).lines();
    let mut line = async || lines.next_line().await.expect("text").expect("two lines");
    let clients = line().await;
    let address = clients.strip_prefix("listening on http://").expect("that is what it says first");
    assert!(line().await.starts_with("operations on http://"));
    (child, address.parse().expect("an address"))
}

async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args([name, &id]).status().await.expect("there is `kill`");
    assert!(sent.success());
}

/// Asks for so many tokens as a stream; the stream has begun when the head is there.
async fn begin(address: SocketAddr, tokens: u32) -> Client {
    let mut client = Client::open(address).await;
    client.send(CHAT, "", &chat(tokens, "")).await;
    client
}

async fn ask(address: SocketAddr, tokens: u32) -> Reply {
    begin(address, tokens).await.reply().await
}

/// Waits until a backend has joined, so that requests are answered.
async fn is_ready(address: SocketAddr) {
    eventually(Duration::from_secs(10), "it answers", async || ask(address, 1).await.is_success())
        .await;
}

#[test]
fn sigterm_under_load_lets_every_stream_finish() {
    run(async {
        let backend_ = probe(8, 1.0);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        let plan = Plan { gateway: "admin = \"127.0.0.1:0\"\ndrain = \"20s\"", ..Plan::default() };
        std::fs::write(&file, plan.text(&[backend("b", backend_.addr, "")])).expect("a file");
        let (mut child, address) = serve(&file).await;
        is_ready(address).await;

        // Eight run and four wait for them. A step takes 10 ms, so they take most of a second.
        let mut streams = Vec::new();
        for _ in 0..12 {
            streams.push(begin(address, 40).await);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut before = Client::open(address).await;
        signal(&child, "-TERM").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        before.send(CHAT, "", &chat(1, "")).await;
        let refused = before.reply().await;
        assert!(!refused.is_success(), "it takes something new: {refused:?}");

        for stream in &mut streams {
            let reply = stream.reply().await;
            assert!(reply.is_success() && reply.tokens() == 40, "{}", reply.text());
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        let status = ended.expect("it ends when all have ended").expect("it ran");
        let mut said = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut said).await.expect("text");
        assert!(status.success(), "{status}\n{said}");
        assert!(!said.contains("under way"), "{said}");
        assert!(Client::try_open(address).await.is_err(), "somebody still listens");
        let books = books(&folder.path().join("decisions"));
        assert_eq!(books.held(), 0, "{books:?}");
    });
}

#[test]
fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    run(async {
        let backend_ = probe(8, 20.0);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        let plan = Plan { gateway: "admin = \"127.0.0.1:0\"", ..Plan::default() };
        let text = plan.text(&[backend("b", backend_.addr, "")]);
        std::fs::write(&file, &text).expect("a file");
        let (mut child, address) = serve(&file).await;
        let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut heard = async |word: &str| {
            let wait = async {
                while let Some(line) = said.next_line().await.expect("text") {
                    if line.contains(word) {
                        return line;
                    }
                }
                panic!("it ended without saying `{word}`")
            };
            tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it says so in time")
        };
        is_ready(address).await;

        std::fs::write(&file, text.replace("share = \"fcfs\"", "share = \"fcsf\""))
            .expect("a file");
        signal(&child, "-HUP").await;
        let line = heard("reloaded").await;
        assert!(line.contains("nothing has changed"), "{line}");
        assert!(ask(address, 2).await.is_success());

        std::fs::write(&file, text.replace("\"fcfs\"", "\"priority\"")).expect("a file");
        signal(&child, "-HUP").await;
        let line = heard("reloaded").await;
        assert!(!line.contains("nothing has changed"), "{line}");
        assert!(ask(address, 2).await.is_success());
        signal(&child, "-INT").await;
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        assert!(ended.expect("it ends").expect("it ran").success());
    });
}
