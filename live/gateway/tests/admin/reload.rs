//! The file, read again under load: all of it or nothing, and no request fails.

use std::time::Duration;

use serde_json::json;

use crate::client::{HEAD, Stand, backend, engine};

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_changes_nothing_and_says_why() {
    let engine = engine(2.0);
    let text = format!("{HEAD}{}", backend("gpu0", engine.addr, 2));
    let stand = Stand::start(&text).await;
    let before = stand.state().await["policy"].clone();
    let running: Vec<_> = (0..6).map(|_| stand.chat(20, "")).collect();
    let cases = [
        (text.replace("class = \"chat\" }", "class = \"chad\" }"), "chad"),
        (text.replace("seats = 2", "seats = \"many\""), "seats"),
        ("nonsense".to_owned(), "nonsense"),
        (text.replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\""), "`listen` cannot"),
        (
            text.replace("{ name = \"batch\" }", "{ name = \"crunch\" }")
                .replace("class = \"batch\"", "class = \"crunch\""),
            "`crunch` stands where `batch` stood",
        ),
        (
            format!("{text}[[resource]]\nname = \"r\"\nseats = 1\n")
                .replace("[policy]", "[policy]\nmodels = [\"m\"]"),
            "whether the file names models",
        ),
    ];
    for (text, wanted) in cases {
        let reply = stand.reload(&text).await;
        assert_eq!(reply.status, 422, "{text}\n{}", reply.body);
        let json = reply.json();
        let message = json["error"]["message"].as_str().expect("a message");
        assert!(message.contains(wanted), "{wanted} is missing in {message}");
    }
    std::fs::remove_file(stand.path()).expect("it is there");
    assert!(stand.gateway.reload().await.is_err(), "the file is gone");
    assert_eq!(stand.state().await["policy"], before);
    for running in running {
        assert!(running.await.expect("it ends").is_done());
    }
    stand.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_file_takes_over_under_load_without_a_failure() {
    let engine = engine(4.0);
    let text = format!("{HEAD}{}", backend("gpu0", engine.addr, 2));
    let stand = Stand::start(&text).await;
    let before = stand.state().await["policy"]["sha256"].clone();
    let mut running = Vec::new();
    for round in 0..10 {
        running.extend((0..4).map(|_| stand.chat(8, "")));
        running.push(stand.chat(8, "x-work: batch\r\n"));
        let weight = 2 + round % 3;
        let text = text.replace("weight = 3", &format!("weight = {weight}"));
        let reply = stand.reload(&text).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for running in running {
        let reply = running.await.expect("it ends");
        assert!(reply.is_done() && reply.tokens() == 8, "{reply:?}");
    }
    let state = stand.until("nothing is held", |state| {
        (0..2).all(|class| state["classes"][class]["outstanding"]["requests"] == 0)
    });
    let state = state.await;
    assert_ne!(state["policy"]["sha256"], before);
    assert_eq!(state["classes"][0]["weight"], 2);
    stand.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_come_and_go_and_finish_what_runs() {
    let (one, two) = (engine(1.0), engine(4.0));
    let resource = "[[resource]]\nname = \"tools\"\nseats = 3\n";
    let file = |backends: &str| format!("{HEAD}{backends}{resource}");
    let stand = Stand::start(&file(&backend("gpu0", one.addr, 1))).await;
    let running = stand.chat(50, "");
    stand.until("it runs", |state| state["classes"][0]["outstanding"]["requests"] == 1).await;
    // It waits under the old file, and goes to a backend that only the new one names.
    let waiting = stand.chat(5, "");
    stand.until("one waits", |state| state["classes"][0]["queued"] == 1).await;
    let both = backend("gpu0", one.addr, 1) + &backend("gpu1", two.addr, 4);
    let reply = stand.reload(&file(&both)).await;
    assert_eq!(reply.json()["reloaded"]["added"], json!(["gpu1"]));
    let reply = waiting.await.expect("it ends");
    assert!(reply.is_done(), "{reply:?}");
    let state = stand.state().await;
    let slots: Vec<_> = (0..3).map(|at| state["backends"][at]["name"].clone()).collect();
    assert_eq!(slots, ["gpu0", "tools", "gpu1"], "resources keep their slots");
    assert_eq!(state["classes"][0]["outstanding"]["requests"], 1, "the first runs on");

    let reply = stand.reload(&file(&backend("gpu1", two.addr, 2))).await;
    let said = &reply.json()["reloaded"];
    assert_eq!((&said["removed"], &said["changed"]), (&json!(["gpu0"]), &json!(["gpu1"])));
    let state = stand.until("it has left", |state| state["backends"][0]["up"] == false).await;
    assert_eq!(state["backends"][0]["removed"], true);
    assert_eq!(state["backends"][2]["requests"]["limit"], 2, "it offers less: {state:#}");
    for _ in 0..3 {
        assert!(stand.chat(3, "").await.expect("it ends").is_done());
    }
    let reply = running.await.expect("it ends");
    assert!(reply.is_done() && reply.tokens() == 50, "what ran was finished: {reply:?}");

    // A third takes the slot of the first, where nothing is held any more.
    let other = backend("gpu1", two.addr, 2) + &backend("gpu2", one.addr, 2);
    stand
        .until("nothing is held", |state| state["classes"][0]["outstanding"]["requests"] == 0)
        .await;
    assert_eq!(stand.reload(&file(&other)).await.status, 200);
    let state = stand.until("it is there", |state| state["backends"][0]["up"] == true).await;
    assert_eq!(state["backends"][0]["name"], "gpu2");
    assert_eq!(state["backends"].as_array().map(Vec::len), Some(3));
    stand.gateway.stop().await;
}
