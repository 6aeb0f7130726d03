//! `plimsoll backend`: it says where it listens, serves, and ends when it is told to.

#![cfg(feature = "serve")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use support::plimsoll;

/// A backend of its own process, ended when this is dropped.
struct Backend {
    child: Child,
    addr: String,
}

impl Backend {
    fn start(options: &[&str]) -> Backend {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.args(["backend", "--listen", "127.0.0.1:0"]).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let addr = line.trim().strip_prefix("listening on http://");
        Backend { addr: addr.expect("an address").to_owned(), child }
    }

    /// One request; the whole response as text.
    fn ask(&self, start: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.addr).expect("it listens");
        let length = body.len();
        write!(
            stream,
            "{start} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: \
             {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers in UTF-8");
        text
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CHAT: &str = r#"{"messages":[{"role":"user","content":"hello"}],"max_tokens":4}"#;

#[test]
fn the_engine_of_a_shipped_scenario_answers_until_it_is_told_to_stop() {
    let options = ["--profile", "local-first", "--pool", "cloud", "--speed", "50"];
    let mut backend =
        Backend::start(&[&options[..], &["--model", "m", "--kind", "sglang"]].concat());
    let answer = backend.ask("POST /v1/chat/completions", "", CHAT);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(" tok tok tok tok"));
    assert!(backend.ask("GET /v1/models", "", "").contains(r#""id":"m""#));
    let metrics = backend.ask("GET /metrics", "", "");
    assert!(metrics.contains("sglang:generation_tokens_total{model_name=\"m\"} 4\n"), "{metrics}");
    if cfg!(unix) {
        let kill = ["-TERM".to_owned(), backend.child.id().to_string()];
        assert!(std::process::Command::new("kill").args(kill).status().is_ok_and(|s| s.success()));
        assert!(backend.child.wait().expect("it ends").success());
    }
}

#[test]
fn faults_of_the_command_line_strike() {
    let backend = Backend::start(&["--fault", "status-503:0.5", "--fault", "status-500:0.5"]);
    let answer = backend.ask("POST /v1/chat/completions", "", CHAT);
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    assert!(backend.ask("GET /requests", "", "").contains(r#""failed":1"#));
}

#[test]
fn help_names_every_fault() {
    let output = plimsoll().args(["backend", "--help"]).output().expect("the command starts");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for fault in plimsoll_probe::backend::Fault::ALL {
        assert!(help.contains(&format!("\n  {:12}  {}\n", fault.name(), fault.about())), "{help}");
    }
    assert!(help.contains("x-output-tokens") && help.contains("/requests"));
}

#[test]
fn mistakes_exit_with_2() {
    for (options, why) in [
        (&["--profile", "quickstrat"][..], "did you mean `quickstart`?"),
        (&["--pool", "tpu"], "no pool is called `tpu`; there is gpu"),
        (&["--fault", "sink:0.1"], "no fault is called `sink`"),
        (&["--fault", "reset:0.6", "--fault", "cut:0.6"], "above 1"),
        (&["--speed", "0"], "a speed of 0"),
        (&["--kind", "abacus"], "llama-cpp"),
        (&["--listen", "nowhere"], "--listen"),
    ] {
        let output = plimsoll().arg("backend").args(options).output().expect("the command starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {error}");
        assert!(output.stdout.is_empty() && error.contains(why), "{options:?}: {error}");
    }
}

#[test]
fn a_taken_address_is_said() {
    let first = Backend::start(&[]);
    let listen = ["backend", "--listen", &first.addr];
    let output = plimsoll().args(listen).output().expect("the command starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("listening on {}", first.addr)), "{error}");
}
