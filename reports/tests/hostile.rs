//! Names are text, whatever they hold: nothing that a name says becomes markup, script, a column of a
//! table or a command to a terminal. And runs in which nothing was served have reports as well.

use plimsoll_base::{
    Attribution, BackendId, BackendSample, ClassId, ClassSample, End, Fact, Names, Observer,
    Outcome, Phases, PoolId, Reason, Refusal, RequestId, RequestRecord, SourceId, Span, TenantId,
    Time,
};
use plimsoll_report::summary::Summary;
use plimsoll_report::{
    ClassPlan, Format, Ledger, Metric, Objective, Plan, PoolPlan, charts, diff, page, summarise,
    table,
};

/// What a name should not be able to do.
const HOSTILE: [&str; 4] = [
    "</script><script>alert(1)</script>",
    "a|b `c` [d](https://e.test) \"f\" 'g' & <img src=x onerror=alert(2)>",
    "\u{1b}[31mred\u{7}\u{202e}txet\u{202c} \u{5d0}\u{5d1}\u{5d2}\rover",
    "<!-- --> ]]> {{ summary }} {% raw %}",
];

fn long() -> String {
    format!("{}{}", "very-long-".repeat(60), "<b>end</b>")
}

fn plan() -> Plan {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let limit = Objective {
        metric: Metric::Ttft,
        percentile: 99.0,
        limit: 0.5,
        text: "ttft_p99 = 500ms <i>".to_owned(),
    };
    let class = || ClassPlan {
        weight: 1,
        wait_max: Some(Span::from_secs(1)),
        objectives: vec![limit.clone()],
        ..ClassPlan::default()
    };
    let mut classes = own(&HOSTILE);
    classes.push(long());
    Plan {
        scenario: HOSTILE[0].to_owned(),
        description: HOSTILE[1].to_owned(),
        scenario_hash: "0".to_owned(),
        policy: HOSTILE[3].to_owned(),
        attribution: Attribution::On,
        one_queue: true,
        duration: Some(Span::from_secs(100)),
        names: Names {
            tenants: classes.clone(),
            pools: own(&HOSTILE[..1]),
            sources: classes.clone(),
            classes,
        },
        classes: (0..5).map(|_| class()).collect(),
        pools: vec![PoolPlan {
            replicas: 1,
            seats: 4,
            kv_tokens: 1000,
            provenance: HOSTILE[1].to_owned(),
        }],
        backends: vec![PoolId(0)],
        assumptions: HOSTILE.map(str::to_owned).to_vec(),
        version: "0".to_owned(),
        ..Plan::default()
    }
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Span::from_secs(seconds)
}

/// One request a second for each of some classes; every one is refused, or every one is served.
fn run(plan: &Plan, served: &[u16], refused: &[u16]) -> (Summary, Vec<Ledger>) {
    let mut ledger = Ledger::new(plan);
    for second in 0..100u64 {
        for (number, &row) in served.iter().chain(refused).enumerate() {
            let id = RequestId(second * 10 + number as u64);
            let (class, tenant) = (ClassId(row), TenantId(row.into()));
            let arrived = Fact::Arrived {
                id,
                tenant,
                class: Some(class),
                arrived: at(second),
                prompt_tokens: 10,
            };
            ledger.observe(at(second), &arrived);
            let record = RequestRecord {
                source: SourceId(row),
                tenant,
                class: Some(class),
                prompt_tokens: 10,
                closed: at(second),
                ..RequestRecord::new(id, at(second))
            };
            if refused.contains(&row) {
                let outcome = Outcome::Refused(Refusal::QueueFull);
                ledger.observe(at(second), &Fact::Closed(RequestRecord { outcome, ..record }));
                continue;
            }
            let backend = BackendId::first(0);
            let dispatched = Fact::Dispatched {
                id,
                tenant,
                class,
                backend,
                reason: Reason::ArrivalOrder,
                bound: None,
                arrived: at(second),
                prompt_tokens: 10,
                tokens: 20,
            };
            ledger.observe(at(second), &dispatched);
            ledger.observe(at(second), &Fact::Started { id, class, backend, arrived: at(second) });
            ledger.observe(
                at(second),
                &Fact::Closed(RequestRecord {
                    outcome: Outcome::Ended(End::Finished),
                    backend: Some(backend),
                    dispatched: Some(at(second)),
                    started: Some(at(second)),
                    first_token: Some(at(second)),
                    last_token: Some(at(second)),
                    output_tokens: 1,
                    tokens: 20,
                    phases: Phases::default(),
                    reason: Some(Reason::ArrivalOrder),
                    ..record
                }),
            );
        }
        let sample = BackendSample { seats: 4, ..BackendSample::default() };
        ledger.observe(at(second), &Fact::BackendSampled { backend: BackendId::first(0), sample });
        for row in 0..5 {
            let sample = ClassSample::default();
            ledger.observe(at(second), &Fact::ClassSampled { class: ClassId(row), sample });
        }
    }
    ledger.observe(at(100), &Fact::ArrivalsEnded);
    ledger.observe(at(100), &Fact::RunEnded);
    let ledgers = vec![ledger];
    (summarise(plan, &ledgers, false), ledgers)
}

/// Whether a text holds something that would steer a terminal.
fn steers(text: &str) -> Option<char> {
    let bad = |c: &char| {
        c.is_control() && *c != '\n'
            || matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().find(bad)
}

/// The tags of a page that a name could have brought.
fn check_markup(what: &str, text: &str) {
    for bad in ["<img", "<b>end", "500ms <i>", "<!-- --> ]]", "alert(1)</script>"] {
        assert!(!text.contains(bad), "{what} holds {bad}");
    }
}

#[test]
fn names_are_text_in_a_page_its_data_and_its_drawings() {
    let plan = plan();
    let (summary, ledgers) = run(&plan, &[0, 1, 2, 3], &[4]);
    let html = page(&plan, &summary, &ledgers, None).expect("our own template renders");
    check_markup("the page", &html);
    let ends = html.matches("</script>").count();
    assert_eq!(ends, html.matches("<script").count(), "every script is ours");
    let (_, island) = html.split_once("id=\"data\">").expect("the page has data");
    let (island, _) = island.split_once("</script>").expect("they end");
    let data: serde_json::Value = serde_json::from_str(island).expect("they are JSON");
    assert!(data.to_string().contains("alert(1)"), "and hold the names as they are");
    assert!(html.contains("&lt;img src=x onerror=alert(2)&gt;"), "the page says the names");
    for (name, svg) in charts(&plan, &ledgers, &summary) {
        check_markup(&name, &svg);
        assert_eq!(svg.chars().find(|c| c.is_control() && *c != '\n'), None, "{name} is XML");
        let rest = svg.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
        let rest = rest.replace("&quot;", "").replace("&apos;", "").replace("&#39;", "");
        assert!(!rest.contains('&'), "{name}: an ampersand is loose");
        assert_eq!(rest.matches('<').count(), rest.matches('>').count(), "{name}");
    }
}

#[test]
fn names_neither_steer_a_terminal_nor_break_a_table() {
    let plan = plan();
    let (summary, _) = run(&plan, &[0, 1, 2, 3], &[4]);
    let human = table(&summary, Format::Human, 100);
    assert_eq!(steers(&human), None);
    assert!(human.contains("red") && human.contains("alert(1)"), "the names are there: {human}");
    let comparison = diff(("a|b", &summary), ("\u{1b}[2J`c`", &summary)).study();
    let texts = [table(&summary, Format::Md, 100), comparison.text(Format::Md, 100)];
    for text in &texts {
        assert_eq!(steers(text), None);
        assert!(!text.contains(" [d]"), "no link: {text}");
        assert!(!text.contains("<img") && !text.contains("<script"), "no markup: {text}");
        let mut columns = None;
        for line in text.lines() {
            let bars = line.replace("\\|", "").matches('|').count();
            // A table goes on as it began, whatever its cells hold.
            match columns {
                Some(expected) if line.starts_with('|') => assert_eq!(bars, expected, "{line}"),
                _ => columns = line.starts_with('|').then_some(bars),
            }
        }
    }
    assert!(!texts[0].contains(" `c` "), "no code: {}", texts[0]);
    assert_eq!(steers(&comparison.text(Format::Human, 100)), None);
    check_markup("the study", &comparison.page(None).expect("our own template renders"));
}

#[test]
fn where_all_are_refused_nothing_is_invented() {
    let plan = plan();
    let (summary, ledgers) = run(&plan, &[], &[0, 1]);
    for (row, class) in summary.classes.iter().enumerate() {
        let offered = if row < 2 { 100 } else { 0 };
        assert_eq!(class.numbers.counts.offered, offered, "{}", class.name);
        assert_eq!(class.numbers.counts.finished, 0);
        assert_eq!(class.numbers.latency.ttft.p99.value, None, "{}", class.name);
        // Refused is missed; of nobody nothing can be said.
        let expected = (row < 2).then_some(0.0);
        assert_eq!(class.numbers.slo_attainment.value, expected, "{}", class.name);
    }
    assert_ne!(summary.exit_code(), 0, "nobody was served: {}", summary.verdict_line);
    let html = page(&plan, &summary, &ledgers, None).expect("our own template renders");
    for absurd in ["NaN", "inf ", "infinity"] {
        assert!(!html.contains(&format!(">{absurd}")), "{absurd}");
    }
    for (name, svg) in charts(&plan, &ledgers, &summary) {
        assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{name}");
    }
    assert!(table(&summary, Format::Human, 100).contains("refused"));
}

#[test]
fn a_run_without_a_request_has_a_report() {
    let plan = plan();
    let (summary, ledgers) = run(&plan, &[], &[]);
    assert_eq!(summary.run.counts.offered, 0);
    let html = page(&plan, &summary, &ledgers, None).expect("our own template renders");
    assert!(html.contains("Nobody waited"));
}
