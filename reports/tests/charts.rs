//! What charts draw of runs whose truth is known: a machine whose waste and blocked seats were put
//! there, and candidates that differ.

#[path = "../examples/invented/mod.rs"]
mod invented;

use plimsoll_base::{BackendId, BackendSample, ClassId, ClassSample, Fact, Observer, Span, Time};
use plimsoll_report::comparison::{Exhibit, beside};
use plimsoll_report::{Ledger, charts, page, summarise};

fn at(seconds: u64) -> Time {
    Time::ZERO + Span::from_secs(seconds)
}

/// A hundred busy seconds in which a part of the tokens was computed again, and requests wait in the
/// engine with so many seats taken.
fn machine(recomputed: u64, waiting: u32) -> String {
    let plan = invented::plan();
    let mut ledger = Ledger::new(&plan);
    ledger.observe(at(0), &Fact::WarmedUp);
    for second in 0..=100 {
        let sample = BackendSample {
            busy: Span::from_secs(second),
            prefill_tokens: 100 * second,
            recomputed_tokens: recomputed * second,
            seats: 64,
            running: 48,
            waiting,
            ..BackendSample::default()
        };
        ledger.observe(at(second), &Fact::BackendSampled { backend: BackendId::first(0), sample });
        let sample = ClassSample { busy: Span::from_secs(second), ..ClassSample::default() };
        ledger.observe(at(second), &Fact::ClassSampled { class: ClassId(0), sample });
    }
    ledger.observe(at(100), &Fact::ArrivalsEnded);
    ledger.observe(at(100), &Fact::RunEnded);
    let ledgers = [ledger];
    let summary = summarise(&plan, &ledgers, false);
    let html = page(&plan, &summary, &ledgers, None).expect("our own template renders");
    let (_, rest) = html.split_once("<figure id=\"utilization\">").expect("chart 6 is there");
    let drawn = charts(&plan, &ledgers, &summary);
    assert!(drawn.iter().any(|(name, _)| name == "utilization.svg"));
    rest.split_once("</figure>").expect("it ends").0.to_owned()
}

#[test]
fn waste_is_hatched_and_named_and_blocked_seats_are_drawn() {
    let (sound, broken) = (machine(0, 0), machine(25, 3));
    let ink = "stroke=\"#111111\"";
    assert_eq!(sound.matches(ink).count(), 0, "nothing was wasted");
    assert!(!sound.contains("computed twice"));
    assert!(broken.contains("computed twice"), "the key names the hatching");
    assert!(broken.matches(ink).count() > 100, "a quarter of the drawing is hatched");
    assert!(broken.contains("<td>25 %</td><td>75 %</td><td>25 %</td>"), "twice, taken, blocked");
    assert!(sound.contains("<td>0 %</td><td>75 %</td><td>0 %</td>"), "free seats are not blocked");
    // Bars over time in the colour of what is bad, beside the one of the key.
    let bars = |html: &str| html.matches("fill=\"#D55E01\"").count();
    assert!(bars(&sound) == 1 && bars(&broken) > 40, "{} {}", bars(&sound), bars(&broken));
}

#[test]
fn candidates_stand_beside_each_other_each_with_its_own_numbers() {
    let plan = invented::plan();
    let ledger = |requests| {
        let mut ledger = Ledger::new(&plan);
        invented::run(requests, &mut ledger);
        [ledger]
    };
    let (short, long) = (ledger(300), ledger(30_000));
    let exhibit = |name, ledgers| Exhibit { name, plan: &plan, ledgers };
    let drawn = beside(&[exhibit("calm", &short[..]), exhibit("long & slow", &long[..])]);
    let names: Vec<&str> = drawn.iter().map(|chart| chart.name).collect();
    assert_eq!(names, ["scoreboard", "percentiles", "blame"]);
    for chart in &drawn {
        assert!(chart.svg.contains("calm") && chart.svg.contains("long &amp; slow"));
        for name in ["calm", "long & slow"] {
            assert!(chart.data.iter().any(|row| row[0] == name), "{} of {name}", chart.name);
        }
        let widths = chart.data.iter().map(Vec::len);
        assert!(widths.clone().min() == widths.max(), "{}", chart.name);
    }
    for (name, ledgers) in [("calm", &short), ("long & slow", &long)] {
        let summary = summarise(&plan, ledgers, false);
        for class in &summary.classes {
            let good = &class.numbers.slo_attainment;
            let own = |row: &&Vec<String>| {
                row[0] == name && row[1] == class.name && row[2] == "good of offered"
            };
            let row = drawn[0].data.iter().find(own).expect("a row a candidate and class");
            let told = row.last().expect("it has cells").replace(',', "");
            assert_eq!(told, format!("{} of {}", good.count, good.of));
        }
    }
    // A panel a class, a line a candidate, the second one dashed.
    let lines = |color: &str| {
        let is = |line: &&str| line.starts_with("<polyline") && line.contains(color);
        drawn[1].svg.lines().filter(is).count()
    };
    assert_eq!((lines("var(--blue)"), lines("#E69F00\" stroke-dasharray")), (6, 6));
}
