//! HTTPS on both sides: a gateway in front of a gateway.

use std::path::Path;
use std::process::Command;

use crate::client::{HEAD, Stand, backend, engine};

const INNER: &str = "tls::through_https_inner";

/// Whom a process trusts is told by its environment, so the test runs in a process of its own.
#[test]
fn through_https() {
    let trusted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/certificate.pem");
    let own = std::env::current_exe().expect("it runs");
    let status = Command::new(own)
        .args(["--exact", INNER, "--ignored"])
        .env("SSL_CERT_FILE", trusted)
        .status();
    assert!(status.expect("it runs").success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`through_https` runs it"]
async fn through_https_inner() {
    let engine = engine(50.0);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let path = |name: &str| folder.join(name).display().to_string().replace('\\', "/");
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let tls = format!("tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n");
    let far = Stand::start(&format!("{HEAD}{tls}{}", backend("gpu0", engine.addr, 4))).await;
    let near = backend("far", far.gateway.address(), 4)
        .replace("http://127.0.0.1", "https://localhost")
        .replace("vllm", "openai");
    let near = Stand::start(&format!("{HEAD}{near}")).await;
    for _ in 0..3 {
        let reply = near.chat(9, "").await.expect("it ends");
        assert!(reply.is_done() && reply.tokens() == 9, "{reply:?}");
    }
    // Whoever speaks in the clear to it is not answered, and holds nothing up.
    let clear = backend("far", far.gateway.address(), 4).replace("vllm", "openai");
    let reply = near.reload(&format!("{HEAD}{clear}")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    near.until("it is not there", |state| state["backends"][0]["up"] == false).await;
    near.gateway.stop().await;
    far.gateway.stop().await;
}
