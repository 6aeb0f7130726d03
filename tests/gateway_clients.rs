//! Clients that others wrote: the official Python package and curl.

mod gateway;

use std::process::{Command, Stdio};

use gateway::{Fixture, Plan, backend, chat, probe, run};

const PYTHON: &str = r#"
import sys
from openai import OpenAI, APIStatusError, APIError

client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
assert [model.id for model in client.models.list()] == ["llama"]
hello = [{"role": "user", "content": "hello out there"}]

stream = client.chat.completions.create(
    model="llama", messages=hello, max_tokens=12, stream=True,
    stream_options={"include_usage": True})
text, reason, usage = "", None, None
for chunk in stream:
    for choice in chunk.choices:
        text += choice.delta.content or ""
        reason = choice.finish_reason or reason
    usage = chunk.usage or usage
assert text == " tok" * 12 and reason == "length", (text, reason)
assert usage.completion_tokens == 12 and usage.prompt_tokens == 3, usage

whole = client.chat.completions.create(model="llama", messages=hello, max_tokens=5)
assert whole.choices[0].message.content == " tok" * 5 and whole.usage.completion_tokens == 5

words = client.completions.create(model="llama", prompt="one two", max_tokens=4, stream=True)
assert "".join(chunk.choices[0].text for chunk in words) == " tok" * 4

vectors = client.embeddings.create(model="llama", input=["a", "b"], encoding_format="float")
assert len(vectors.data) == 2

try:
    client.chat.completions.create(model="none", messages=hello)
    raise SystemExit("nobody serves that model")
except APIStatusError as error:
    assert error.status_code == 404 and error.code == "model_not_found", error

broken = [{"role": "user", "content": "x-fault:reset"}]
try:
    for chunk in client.chat.completions.create(model="llama", messages=broken, stream=True):
        assert not chunk.choices or chunk.choices[0].finish_reason is None
    raise SystemExit("a stream that broke off was passed off as done")
except APIError as error:
    assert "broke off" in str(error), error

client.chat.completions.create(
    model="llama", messages=hello, max_tokens=2, service_tier="flex",
    extra_headers={"x-session-id": "s"}, temperature=0.2, top_p=0.9, stop=["\n"], seed=1)
print("all is well")
"#;

async fn fixture(backend_: &gateway::Probe) -> Fixture {
    let policy = gateway::TWO_CLASSES.replace("[policy]", "[policy]\nmodels = [\"llama\"]");
    let plan = Plan { policy: &policy, ..Plan::default() };
    Fixture::start(plan, &[backend("b", backend_.addr, "")]).await
}

#[test]
fn the_official_python_client_streams() {
    let Some(python) = std::env::var_os("PLIMSOLL_OPENAI_PYTHON") else {
        println!("skipped: PLIMSOLL_OPENAI_PYTHON names no interpreter that has `openai`");
        return;
    };
    run(async {
        let backend_ = probe(8, 20.0);
        let fixture = fixture(&backend_).await;
        let mut command = tokio::process::Command::new(python);
        command.args(["-c", PYTHON, &format!("http://{}/v1", fixture.address)]);
        let said = command.stdin(Stdio::null()).output().await.expect("it runs");
        let (out, err) =
            (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success() && out.contains("all is well"), "{out}\n{err}");
        fixture.finish().await;
    });
}

#[test]
fn curl_streams() {
    if !Command::new("curl").arg("--version").output().is_ok_and(|said| said.status.success()) {
        println!("skipped: there is no curl");
        return;
    }
    run(async {
        let backend_ = probe(8, 20.0);
        let fixture = fixture(&backend_).await;
        let url = format!("http://{}/v1/chat/completions", fixture.address);
        let body = chat(6, "").replace("\"any\"", "\"llama\"");
        let curl = async |more: &[&str]| {
            let mut command = tokio::process::Command::new("curl");
            command.args(["--silent", "--show-error", "--no-buffer", "--max-time", "20"]);
            command.args(["-H", "content-type: application/json", "-d", &body, &url]).args(more);
            let said = command.stdin(Stdio::null()).output().await.expect("it runs");
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            String::from_utf8(said.stdout).expect("UTF-8")
        };
        // As curl does it, with a body in chunks, and in the words of HTTP/1.0.
        for more in [&[][..], &["-H", "transfer-encoding: chunked"], &["--http1.0"]] {
            let text = curl(more).await;
            assert_eq!(text.matches(" tok").count(), 6, "{more:?}: {text}");
            assert!(text.trim_end().ends_with("data: [DONE]"), "{more:?}: {text}");
        }
        let head = curl(&["--include"]).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        fixture.finish().await;
    });
}
