//! Work that is not inference waits in the same queues, and local backends come before far ones.

mod gateway;

use std::time::{Duration, Instant};

use gateway::{CHAT, Client, Fixture, Plan, Reply, TWO_CLASSES, backend, eventually, probe, run};

/// Two leases of `tools` at once.
const TOOLS: &str = r#"
[[resource]]
name = "tools"
seats = 2
lease_max = "10s"
"#;

async fn ask(fixture: &Fixture, method: &str, path: &str, body: &str) -> Reply {
    let mut client = Client::open(fixture.address).await;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n");
    client.send_raw(format!("{head}{body}").as_bytes()).await;
    client.reply().await
}

async fn take(fixture: &Fixture, body: &str) -> (String, Reply) {
    let reply = ask(fixture, "POST", "/v1/leases", body).await;
    (reply.json()["id"].as_str().unwrap_or_default().to_owned(), reply)
}

#[test]
fn a_lease_waits_its_turn_and_comes_back() {
    run(async {
        let server = probe(8, 100.0);
        // A class waits in its order, so leases have one of their own.
        let class = "[[class]]\nname = \"tools\"\n[policy]\nstages = [\"fetch\"]";
        let rule = "classify = [\n{ rule = \"match\", workload = \"leases\", class = \"tools\" },";
        let policy = TWO_CLASSES.replace("[policy]", class).replace("classify = [", rule);
        let plan = Plan { policy: &policy, more: TOOLS, ..Plan::default() };
        let fixture = Fixture::start(plan, &[backend("one", server.addr, "")]).await;

        let body = r#"{"resource":"tools","stage":"fetch","workflow":"w","cost":500,"seconds":99}"#;
        let (first, reply) = take(&fixture, body).await;
        assert_eq!(reply.status(), 201, "{}", reply.text());
        // Never longer than the file allows.
        assert_eq!(reply.json()["expires_in"], 10.0);
        assert_eq!(reply.json()["class"], "tools");
        let (second, _) = take(&fixture, r#"{"resource":"tools"}"#).await;
        assert_eq!(fixture.held().await, (0, 2));

        // The third waits, inference goes on beside it, and it goes once one is given back.
        let mut waiting = Client::open(fixture.address).await;
        waiting.send("/v1/leases", "", r#"{"resource":"tools","seconds":1}"#).await;
        eventually(Duration::from_secs(2), "it waits", async || fixture.held().await.0 == 1).await;
        let mut client = Client::open(fixture.address).await;
        client.send(CHAT, "", &gateway::whole(3, "")).await;
        assert_eq!(client.reply().await.status(), 200);
        let path = format!("/v1/leases/{first}");
        assert_eq!(ask(&fixture, "DELETE", &path, "").await.status(), 204);
        assert_eq!(ask(&fixture, "DELETE", &path, "").await.code(), "lease_not_found");
        assert_eq!(waiting.reply().await.status(), 201);

        // Renewed, the second outlives the third, which nobody renews.
        let path = format!("/v1/leases/{second}");
        let renewed = ask(&fixture, "PUT", &path, r#"{"seconds":7}"#).await;
        assert_eq!((renewed.status(), &renewed.json()["expires_in"]), (200, &7.0.into()));
        let expired = async || fixture.held().await == (0, 1);
        eventually(Duration::from_secs(4), "the other expires", expired).await;
        assert_eq!(ask(&fixture, "DELETE", &path, "").await.status(), 204);

        for (body, code) in [
            (r#"{"resource":"none"}"#, "resource_not_found"),
            (r#"{"resource":"tools","stage":"none"}"#, "unknown_stage"),
            (r#"{"resource":"tools","surprise":1}"#, "invalid_json"),
        ] {
            assert_eq!(take(&fixture, body).await.1.code(), code);
        }
        // Whoever leaves gives its place up.
        let (one, _) = take(&fixture, r#"{"resource":"tools"}"#).await;
        let (two, _) = take(&fixture, r#"{"resource":"tools"}"#).await;
        let mut leaving = Client::open(fixture.address).await;
        leaving.send("/v1/leases", "", r#"{"resource":"tools"}"#).await;
        eventually(Duration::from_secs(2), "it waits", async || fixture.held().await.0 == 1).await;
        drop(leaving);
        eventually(Duration::from_secs(2), "it left", async || fixture.held().await.0 == 0).await;
        for id in [one, two] {
            ask(&fixture, "DELETE", &format!("/v1/leases/{id}"), "").await;
        }
        let books = fixture.finish().await;
        assert_eq!(books.held(), 0);
    });
}

const LOCAL_FIRST: &str = r#"
[[class]]
name = "chat"
queue_max = 100

[[class]]
name = "patient"
sites = ["office"]
queue_max = 100

[policy]
sites = ["office", "cloud"]
place = [
  { rule = "local-first", spill_wait = "400ms", return_after = "5s" },
  { rule = "least-tokens" },
]
classify = [
  { rule = "match", service_tier = "flex", class = "patient" },
  { rule = "match", class = "chat" },
]
"#;

/// A request that runs for a while, and when it was answered.
async fn answered(fixture: &Fixture, body: String) -> Duration {
    let mut client = Client::open(fixture.address).await;
    let began = Instant::now();
    client.send(CHAT, "", &body).await;
    assert_eq!(client.reply().await.status(), 200);
    began.elapsed()
}

#[test]
fn what_finds_no_room_nearby_spills_over_after_a_wait_unless_its_data_may_not() {
    run(async {
        let (office, cloud) = (probe(1, 1.0), probe(8, 1.0));
        let near = backend("near", office.addr, "site = \"office\"\nseats = 1");
        let far = backend("far", cloud.addr, "site = \"cloud\"\nseats = 8");
        let plan = Plan { policy: LOCAL_FIRST, ..Plan::default() };
        let fixture = Fixture::start(plan, &[near, far]).await;
        // Long enough to hold the office's one seat for a good second.
        let long = gateway::whole(150, "");
        let flex = long.replacen('{', r#"{"service_tier":"flex","#, 1);
        let first = answered(&fixture, long.clone());
        let second = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answered(&fixture, gateway::whole(2, "")).await
        };
        let third = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answered(&fixture, flex).await
        };
        let (first, second, third) = tokio::join!(first, second, third);
        assert!(second >= Duration::from_millis(350), "it spilt at once: {second:?}");
        assert!(second < first, "it waited for the office: {second:?} of {first:?}");
        assert!(third > first, "patient data left the office: {third:?} of {first:?}");
        assert_eq!((office.counts().accepted, cloud.counts().accepted), (2, 1));
        let books = fixture.finish().await;
        assert_eq!((books.by_backend[&0], books.by_backend[&1]), (2, 1));
    });
}
