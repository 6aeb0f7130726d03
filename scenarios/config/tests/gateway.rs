//! Gateway files: what they come to, what stands where nothing is written, and what is refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use plimsoll_base::{ClassId, ModelId, PoolId, SiteId, SourceId, Span, StageId, TenantId};
use plimsoll_config::gateway::{BackendKind, GatewayFile, PriorityOrder, ROUTES, Scheme, Secret};
use plimsoll_config::{Shipped, read};
use plimsoll_policy::{BackendInfo, Labels, RequestInfo};

const WHOLE: &str = include_str!("gateway/whole.toml");
const LEAST: &str = include_str!("gateway/least.toml");
/// A gateway over somebody's policy file.
const OVER: &str = r#"
schema_version = 1
extends = "shipped:policy"
name = "over"
[gateway]
listen = "127.0.0.1:8080"
[[backend]]
name = "gpu0"
url = "http://10.0.0.1:8000"
kind = "sglang"
seats = 8
kv_tokens = 1000
"#;
const POLICY: &str = r#"
schema_version = 1
name = "house"
class = [{ name = "chat" }, { name = "rest", weight = 2 }]
[policy]
share = "virtual-token-counter"
classify = [{ rule = "match", class = "rest" }]
"#;
const SHIPPED: Shipped = &[("whole", WHOLE), ("least", LEAST), ("over", OVER), ("policy", POLICY)];

fn load(name: &str, settings: &[&str]) -> Result<GatewayFile, String> {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    let path = format!("shipped:{name}");
    let layered = read(Path::new(&path), &settings, SHIPPED);
    layered.and_then(|layered| layered.gateway_file()).map_err(|wrong| wrong.to_string())
}

fn loaded(name: &str, settings: &[&str]) -> GatewayFile {
    load(name, settings).unwrap_or_else(|wrong| panic!("{settings:?}:\n{wrong}"))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

#[test]
fn everything_that_can_be_said_is_read() {
    let file = loaded("whole", &[]);
    assert_eq!((file.name.as_str(), file.description.as_str()), ("edge", "all there is"));
    assert_eq!(file.names.classes, ["chat", "batch"]);
    assert_eq!(file.names.tenants, ["search", "public"]);
    assert_eq!(file.names.sources, ROUTES);
    assert_eq!(file.names.pools, ["gpu", "default", "tools"]);
    assert_eq!(file.stages, ["", "plan", "act"]);
    assert_eq!(file.config.models, ["llama", "qwen", "tools"]);
    assert!(!file.any_model);
    assert_eq!(file.listen, address("[::1]:8443"));
    assert_eq!(file.admin, address("[::1]:9999"));
    assert_eq!(file.anonymous, Some(TenantId(1)));
    let tls = file.tls.as_ref().expect("it has a certificate");
    assert_eq!(tls.certificate, PathBuf::from("cert.pem"));
    assert_eq!(tls.key, PathBuf::from("key.pem"));
    let limits = &file.limits;
    assert_eq!((limits.connections_max, limits.header_bytes_max), (7, 16 << 10));
    assert_eq!((limits.body_bytes_max, limits.response_bytes_max), (1 << 20, 2 << 20));
    assert_eq!(limits.header_timeout, Span::from_secs(1));
    assert_eq!(limits.body_timeout, Span::from_secs(2));
    assert_eq!(limits.write_timeout, Span::from_secs(3));
    assert_eq!((limits.drain, limits.retries), (Span::ZERO, 0));
    assert_eq!((limits.tenants_max, limits.output_tokens_default), (10, 256));
    assert_eq!(limits.tokens_per_byte, 0.3);
    assert_eq!(file.headers.tenant, ["x-team", "x-org"]);
    assert_eq!(file.headers.stage, Vec::<String>::new());
    let log = file.log.as_ref().expect("it has a log");
    assert_eq!((log.folder.as_path(), log.files_max), (Path::new("decisions"), 3));
    assert_eq!(log.file_bytes_max, 1 << 20);
}

#[test]
fn keys_backends_and_resources_are_read() {
    let file = loaded("whole", &[]);
    let keys: Vec<_> = file.keys.iter().map(|key| (key.name.as_str(), key.trusted)).collect();
    assert_eq!(keys, [("search-team", true), ("file", false), ("hash", false)]);
    assert_eq!(file.keys[0].secret, Secret::Env("SEARCH_KEY".into()));
    assert_eq!(file.keys[1].secret, Secret::File("public.key".into()));
    assert!(matches!(file.keys[2].secret, Secret::Sha256([0x01, 0x23, .., 0xEF])));
    assert_eq!(file.keys[1].tenant, TenantId(1));
    let [gpu, cloud] = file.backends.as_slice() else { panic!("two backends") };
    assert_eq!(gpu.url.to_string(), "http://10.0.0.1:8000");
    assert_eq!(
        gpu.info,
        BackendInfo {
            pool: PoolId(0),
            seats: 64,
            kv_tokens: 400_000,
            context_max: 32_768,
            site: SiteId(0),
            models: 0b01,
        }
    );
    assert_eq!(gpu.model_names, ["meta-llama/Llama-3.1-8B", "qwen"]);
    assert!(gpu.serves(ModelId(0)) && !gpu.serves(ModelId(1)) && !gpu.serves(ModelId(2)));
    assert_eq!(gpu.key_env.as_deref(), Some("VLLM_KEY"));
    assert_eq!((gpu.kind, gpu.priority), (BackendKind::Vllm, PriorityOrder::HigherFirst));
    assert_eq!((gpu.health.as_str(), gpu.metrics.as_deref()), ("/healthz", None));
    assert_eq!(gpu.scrape_every, Span::from_millis(500));
    assert_eq!(cloud.url.scheme, Scheme::Https);
    let own = (cloud.info.pool, cloud.info.site, cloud.info.models, cloud.info.context_max);
    assert_eq!(own, (PoolId(1), SiteId(1), 0b11, 100_000));
    let [tools] = file.resources.as_slice() else { panic!("one resource") };
    assert_eq!((tools.name.as_str(), tools.model), ("tools", ModelId(2)));
    assert_eq!(tools.lease_max, Span::from_secs(300));
    let info = tools.info;
    assert_eq!((info.pool, info.site, info.seats), (PoolId(2), SiteId(1), 32));
    assert_eq!((info.models, info.context_max), (0b100, u32::MAX));
    // No leases that fit the seats are stopped by their tokens.
    assert!(info.kv_tokens >= u64::from(info.seats) * 2 * u64::from(u32::MAX));
}

#[test]
fn deadlines_are_those_of_the_class_and_then_those_of_all() {
    let file = loaded("whole", &[]);
    let seconds = |class: usize| {
        let of = file.deadlines[class];
        [of.connect, of.first_token, of.idle, of.total].map(|span| span.nanos() / 1_000_000_000)
    };
    assert_eq!(seconds(0), [2, 5, 20, 600]);
    assert_eq!(seconds(1), [2, 60, 20, 3_600]);
    assert_eq!(file.deadlines.len(), 2);
}

#[test]
fn what_is_not_written_has_a_default() {
    let file = loaded("least", &[]);
    assert_eq!(file.admin, address("127.0.0.1:9091"));
    assert_eq!(file.names.tenants, ["anonymous"]);
    assert_eq!(file.anonymous, Some(TenantId(0)));
    assert_eq!(file.names.pools, ["default"]);
    assert_eq!(
        (file.stages.as_slice(), file.config.models.as_slice()),
        (&[String::new()][..], &["any".to_owned()][..])
    );
    assert!(file.any_model && file.tls.is_none() && file.log.is_none());
    let limits = &file.limits;
    assert_eq!((limits.connections_max, limits.header_bytes_max), (20_000, 32 << 10));
    assert_eq!((limits.body_bytes_max, limits.response_bytes_max), (8 << 20, 64 << 20));
    assert_eq!(limits.header_timeout, Span::from_secs(10));
    assert_eq!(
        (limits.body_timeout, limits.write_timeout),
        (Span::from_secs(30), Span::from_secs(30))
    );
    assert_eq!((limits.drain, limits.retries), (Span::from_secs(30), 1));
    assert_eq!((limits.tenants_max, limits.output_tokens_default), (4_096, 1_024));
    assert_eq!(limits.tokens_per_byte, 0.25);
    let headers = &file.headers;
    assert_eq!(headers.tenant, ["x-gateway-inference-fairness-id"]);
    assert_eq!(headers.class, ["x-gateway-inference-objective"]);
    assert_eq!(headers.session, ["x-session-id"]);
    assert_eq!(headers.workflow, ["x-workflow-id", "traceparent"]);
    assert_eq!(headers.stage, ["x-workflow-stage"]);
    assert_eq!(headers.attempt, ["x-envoy-attempt-count"]);
    assert_eq!(
        (&headers.ttft_ms[..], &headers.tpot_ms[..]),
        (&["x-slo-ttft-ms".to_owned()][..], &["x-slo-tpot-ms".to_owned()][..])
    );
    let [backend] = file.backends.as_slice() else { panic!("one backend") };
    assert_eq!((backend.info.context_max, backend.info.site), (1_000, SiteId(0)));
    // Nothing is lent, so all models are the same to the allocator.
    assert_eq!(backend.info.models, u64::MAX);
    let lends = loaded("least", &["resource=[{ name = \"tools\", seats = 1 }]"]);
    assert_eq!(lends.backends[0].info.models, 0b01);
    assert_eq!(lends.resources[0].info.models, 0b10);
    assert_eq!(lends.config.models, ["any", "tools"]);
}

#[test]
fn a_gateway_is_laid_over_a_policy_file() {
    let file = loaded("over", &["class.rest.weight=3"]);
    assert_eq!((file.name.as_str(), file.config.classes[1].weight), ("over", 3));
    let origin = file.effective.rows.iter().find(|row| row.path == "policy.share");
    assert_eq!(origin.map(|row| row.origin.as_str()), Some("shipped:policy:6"));
}

#[test]
fn each_kind_of_backend_has_its_habits() {
    use PriorityOrder::{HigherFirst, LowerFirst, None as Unknown};
    for (kind, name, priority, health, metrics) in [
        ("vllm", BackendKind::Vllm, LowerFirst, "/health", Some("/metrics")),
        ("sglang", BackendKind::Sglang, HigherFirst, "/health", Some("/metrics")),
        ("llama-cpp", BackendKind::LlamaCpp, Unknown, "/health", Some("/metrics")),
        ("openai", BackendKind::OpenAi, Unknown, "/v1/models", None),
    ] {
        let file = loaded("least", &[&format!("backend.gpu0.kind={kind}")]);
        let backend = &file.backends[0];
        assert_eq!((backend.kind, backend.kind.name()), (name, kind));
        assert_eq!((backend.priority, backend.health.as_str()), (priority, health), "{kind}");
        assert_eq!(backend.metrics.as_deref(), metrics, "{kind}");
    }
}

#[test]
fn who_comes_without_a_key_belongs_to_somebody_or_to_nobody() {
    let key = "key=[{ name = \"k\", tenant = \"search\", env = \"K\" }]";
    let search = "tenant=[{ name = \"search\" }]";
    let own = "tenant=[{ name = \"search\" }, { name = \"anonymous\" }]";
    for (settings, tenant) in [
        (&[][..], Some("anonymous")),
        (&[search], Some("anonymous")),
        (&[own], Some("anonymous")),
        (&[search, key], None),
        (&[own, key], None),
        (&[search, "gateway.anonymous=search"], Some("search")),
        (&[search, key, "gateway.anonymous=search"], Some("search")),
    ] {
        let file = loaded("least", settings);
        let found = file.anonymous.map(|id| file.names.tenant(id));
        assert_eq!(found.as_deref(), tenant, "{settings:?}");
        let mut unique = file.names.tenants.clone();
        unique.dedup();
        assert_eq!(unique, file.names.tenants, "{settings:?}");
    }
}

#[test]
fn rules_see_routes_keys_resources_and_stages() {
    let file = loaded("whole", &[]);
    let info = RequestInfo { prompt_tokens: 1, ..RequestInfo::default() };
    let key = file
        .config
        .labels
        .iter()
        .position(|label| *label == plimsoll_policy::config::Label::Key("search-team".into()));
    let key = Labels(1 << key.expect("a rule names the key"));
    for (what, info, class) in [
        ("a lease of the resource", RequestInfo { model: ModelId(2), ..info }, 1),
        ("the route", RequestInfo { source: SourceId(2), ..info }, 1),
        ("the key", RequestInfo { labels: key, ..info }, 1),
        ("the stage", RequestInfo { stage: StageId(2), ..info }, 1),
        ("a claim", RequestInfo { claims: Some(ClassId(1)), ..info }, 1),
        ("anything else", info, 0),
    ] {
        assert_eq!(file.config.class_of(&info), Some(ClassId(class)), "{what}");
    }
}

#[test]
fn metrics_are_read_as_often_as_rules_need_them() {
    let gate = "policy.admit=[{ rule = \"saturation-gate\", ceilings = { chat = 0.9 } }]";
    let every = |settings: &[&str]| loaded("least", settings).backends[0].scrape_every;
    assert_eq!(every(&[]), Span::from_secs(1));
    assert_eq!(every(&[gate]), Span::from_millis(100));
    assert_eq!(every(&[gate, "backend.gpu0.scrape_every=50ms"]), Span::from_millis(50));
    let hasty = "policy.admit=[{ rule = \"saturation-gate\", stale_after = \"2ms\", \
                 ceilings = { chat = 0.9 } }]";
    let wrong = load("least", &[hasty]).expect_err("nobody reads metrics so often");
    assert!(wrong.contains("needs the metrics of backends every 1.00 ms"), "{wrong}");
}

#[test]
fn what_cannot_be_is_refused() {
    let resources = |count: usize| {
        let one = |at: usize| format!("{{ name = \"r{at}\", seats = 1 }}");
        format!("resource=[{}]", (0..count).map(one).collect::<Vec<_>>().join(", "))
    };
    loaded("least", &[&resources(63)]);
    let public = "gateway.listen=0.0.0.0:8080";
    for (settings, message) in [
        (&[resources(64).as_str()][..], "there are 65 models and resources"),
        (&[resources(4_096).as_str()], "there are 4097 backends and resources"),
        (&["gateway.listen=127.0.0.1:9091"], "cannot both have port 9091"),
        (&["gateway.listen=0.0.0.0:9091"], "cannot both have port 9091"),
        (&["gateway.listen=127.0.0.1:65536"], "is not an address and a port"),
        (&["gateway.admin=192.168.0.1:9091"], "which others can reach"),
        (&["gateway.listen=localhost:80"], "is not an address and a port"),
        (&["backend.gpu0.url=http://127.0.0.1:8080"], "is this gateway itself"),
        (&["backend.gpu0.url=http://127.0.0.1:9091"], "is this gateway itself"),
        (&["backend.gpu0.url=http://localhost:9091"], "is this gateway itself"),
        (&["backend.gpu0.url=http://localhost:8080", public], "is this gateway itself"),
        (&["backend.gpu0.url=http://127.0.0.1:8080", public], "is this gateway itself"),
        (&["backend.gpu0.health=health"], "`health` is not a path"),
        (&["backend.gpu0.metrics=\"/a b\""], "`metrics` is not a path"),
        (&["backend.gpu0.key_env=1KEY"], "not the name of an environment variable"),
        (&["backend.gpu0.seats=1000001"], "`seats` is not from 1 to 1000000"),
        (&["backend.gpu0.kv_tokens=0"], "`kv_tokens` is not from 1 to 1000000000000"),
        (&["backend.gpu0.context_max=0"], "contexts of 0 tokens do not fit"),
        (&["backend.gpu0.scrape_every=2h"], "`scrape_every` is not from 10ms to 1min"),
        (&["backend.gpu0.models=[\"llama\"]"], "no model is named `llama`"),
        (&["backend.gpu0.rename={ llama = \"x\" }"], "no model is named `llama`"),
        (&["backend.gpu0.pool=\"a b\""], "cannot be the name of a pool"),
        (&["resource=[{ name = \"a b\", seats = 1 }]"], "cannot be the name of a resource"),
        (&["resource=[{ name = \"any\", seats = 1 }]"], "has the name of a model"),
        (&["gateway.tokens_per_byte=0"], "`tokens_per_byte` is not from 0.01 to 2"),
        (&["gateway.output_tokens_default=0"], "is not from 1 to 16777216"),
        (&["gateway.headers.session=[\"\"]"], "is not the name of a header"),
        (&["gateway.deadlines.connect=0s"], "`connect` is not from 1ms to 1d"),
        (&["deadlines=[{ class = \"chat\", total = \"1s\" }]"], "is longer than `total`"),
        (&["policy.classify=[{ rule = \"match\" }]"], "no request can ever get a class"),
        (&["policy.guard={ due_share = 0.1 }"], "the guard has nothing to guard"),
        (&["workload=[]"], "unknown key `workload`"),
    ] {
        let wrong = load("least", settings).expect_err(&format!("{settings:?}"));
        assert!(wrong.contains(message), "{settings:?}:\n{wrong}");
    }
}

#[test]
fn what_looks_alike_and_can_be_is_let_in() {
    for settings in [
        &["gateway.listen=127.0.0.1:0", "gateway.admin=127.0.0.1:0"][..],
        &["gateway.listen=192.168.0.1:9091"],
        &["gateway.listen=\"[::1]:9091\""],
        &["backend.gpu0.url=http://10.0.0.7:8080", "gateway.listen=0.0.0.0:8080"],
        &["backend.gpu0.url=http://localhost:8081"],
        &["backend.gpu0.url=https://gateway.lan:8080/behind"],
        &["backend.gpu0.metrics=none"],
        &["gateway.headers.tenant=[]"],
        &["gateway.drain=0s", "gateway.retries=0", "gateway.tenants_max=0"],
    ] {
        loaded("least", settings);
    }
}

#[test]
fn whoever_runs_it_is_told_what_is_open() {
    let key = ["tenant=[{ name = \"t\" }]", "key=[{ name = \"k\", tenant = \"t\", env = \"K\" }]"];
    let public = "gateway.listen=0.0.0.0:80";
    let tls = "gateway.tls={ certificate = \"c\", key = \"k\" }";
    for (settings, told) in [
        (&[][..], &[][..]),
        (&[public], &["Whoever reaches 0.0.0.0:80"]),
        (&[key[0], key[1]], &[]),
        (&[key[0], key[1], public], &["in the clear"]),
        (&[key[0], key[1], public, tls], &[]),
        (&[key[0], key[1], public, tls, "gateway.anonymous=t"], &["Whoever reaches"]),
    ] {
        let file = loaded("least", settings);
        assert_eq!(file.assumptions.len(), told.len(), "{settings:?}: {:?}", file.assumptions);
        for (sentence, part) in file.assumptions.iter().zip(told) {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}

#[test]
fn no_file_makes_the_reader_panic() {
    let lines: Vec<&str> = WHOLE.lines().collect();
    let folder = std::env::temp_dir().join(format!("plimsoll-gateway-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    let file = folder.join("cut.toml");
    let mut sound = 0;
    for at in 0..lines.len() {
        let without: Vec<&str> = [&lines[..at], &lines[at + 1..]].concat();
        let zero = lines[at].replace(|c: char| c.is_ascii_digit(), "0");
        let empty = lines[at].split_once('=').map_or("", |(key, _)| key).to_owned() + " = []";
        for text in [
            without.join("\n"),
            lines[..at].join("\n"),
            [&lines[..at], &[zero.as_str()], &lines[at + 1..]].concat().join("\n"),
            [&lines[..at], &[empty.as_str()], &lines[at + 1..]].concat().join("\n"),
        ] {
            std::fs::write(&file, text).expect("the file can be written");
            let read = read(&file, &[], &[]).and_then(|layered| layered.gateway_file());
            sound += usize::from(read.is_ok());
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    assert!(sound > lines.len() / 2, "only {sound} are sound");
}
