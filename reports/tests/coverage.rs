//! Intervals cover what they say: on queues whose answers are known, 95 % intervals hold the exact
//! value in 93 to 97 of 100 studies.
//!
//! A study is ten replications of a queue in steady state. How many are made is sized for CI:
//! 1,600 studies have a standard error of 0.54 %. `PLIMSOLL_SOAK=10` makes ten times as many.
//! `cargo test -p plimsoll-report --test coverage -- --nocapture` prints what was found.
//!
//! Formulas: D. Gross, J. F. Shortle, J. M. Thompson, C. M. Harris, "Fundamentals of Queueing
//! Theory", 4th edition (2008), 2.2 (M/M/1) and 2.3 (M/M/c). The unit of time is a mean service.

use plimsoll_base::{Stream, StreamKey};
use plimsoll_report::interval::{around, student_t, wilson};

const STUDIES: u32 = 1_600;
const REPLICATIONS: u32 = 10;

fn studies() -> u32 {
    let soak = std::env::var("PLIMSOLL_SOAK").ok().and_then(|text| text.parse::<u32>().ok());
    STUDIES * soak.unwrap_or(1).max(1)
}

/// First come, first served; `rate` arrivals a mean service.
#[derive(Clone, Copy)]
struct Queue {
    servers: usize,
    rate: f64,
    customers: usize,
}

impl Queue {
    /// The probability that a customer waits (Erlang's C).
    fn waits(&self) -> f64 {
        let (c, a) = (self.servers as f64, self.rate);
        let mut term = 1.0;
        let mut sum = 0.0;
        for k in 0..self.servers {
            sum += term;
            term *= a / (k as f64 + 1.0);
        }
        let last = term * c / (c - a);
        last / (sum + last)
    }
    fn mean_wait(&self) -> f64 {
        self.waits() / (self.servers as f64 - self.rate)
    }
    /// The wait that a part `p` of all customers do not exceed.
    fn wait_at(&self, p: f64) -> f64 {
        ((self.waits() / (1.0 - p)).ln() / (self.servers as f64 - self.rate)).max(0.0)
    }

    /// The waits of one replication, by Kiefer and Wolfowitz's recursion, after a warm-up that
    /// forgets the empty start.
    fn run(&self, study: u32, replication: u32) -> Vec<f64> {
        let name = format!("coverage {} {}", self.servers, self.rate);
        let mut stream = Stream::new(StreamKey {
            seed: u64::from(study) + 1,
            replication,
            name: &name,
            entity: 0,
        });
        let mut free = vec![0.0f64; self.servers];
        let (warm_up, mut now) = (300 * self.servers, 0.0f64);
        let mut waits = Vec::with_capacity(self.customers);
        for customer in 0..warm_up + self.customers {
            now += stream.exponential() / self.rate;
            let first = free.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("there is a server");
            let begins = first.max(now);
            *first = begins + stream.exponential();
            if customer >= warm_up {
                waits.push(begins - now);
            }
        }
        waits
    }
}

/// How many of so many studies cover, in per cent; `covers` answers for several intervals at once.
fn coverage<const N: usize>(
    studies: u32,
    names: [String; N],
    covers: impl Fn(u32) -> [bool; N],
) -> [f64; N] {
    let mut covered = [0u32; N];
    for study in 0..studies {
        for (count, covers) in covered.iter_mut().zip(covers(study)) {
            *count += u32::from(covers);
        }
    }
    let shares = covered.map(|count| 100.0 * f64::from(count) / f64::from(studies));
    for (name, share) in names.iter().zip(shares) {
        println!("{name}: {share:.2} % of {studies} studies");
    }
    shares
}

fn holds(interval: Option<[f64; 2]>, exact: f64) -> bool {
    interval.is_some_and(|[low, high]| (low..=high).contains(&exact))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The value of rank ⌈p n⌉.
fn quantile(values: &mut [f64], p: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((p * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
}

const QUEUES: [Queue; 3] = [
    Queue { servers: 1, rate: 0.5, customers: 400 },
    Queue { servers: 1, rate: 0.7, customers: 1_000 },
    Queue { servers: 4, rate: 2.8, customers: 2_500 },
];

#[test]
fn formulas_are_those_of_the_books() {
    // M/M/1 at half load waits one service; M/M/2 at half load a third of one.
    let check = |servers, rate, expected: f64| {
        let wait = Queue { servers, rate, customers: 0 }.mean_wait();
        assert!((wait - expected).abs() < 1e-12, "{wait} {expected}");
    };
    check(1, 0.5, 1.0);
    check(2, 1.0, 1.0 / 3.0);
    check(1, 0.9, 9.0);
}

#[test]
fn intervals_of_means_and_percentiles_cover_what_they_say() {
    for queue in QUEUES {
        let (exact, exact_p90) = (queue.mean_wait(), queue.wait_at(0.9));
        let name = format!("M/M/{} at {}", queue.servers, queue.rate);
        let names = [format!("{name}, mean wait"), format!("{name}, p90")];
        let shares = coverage(studies(), names, |study| {
            let mut runs: Vec<Vec<f64>> =
                (0..REPLICATIONS).map(|replication| queue.run(study, replication)).collect();
            let means: Vec<f64> = runs.iter().map(|waits| mean(waits)).collect();
            [holds(student_t(&means), exact), holds(sections(&mut runs, 0.9), exact_p90)]
        });
        assert!(shares.iter().all(|share| (93.0..=97.0).contains(share)), "{name}: {shares:?}");
    }
}

#[test]
fn intervals_of_tails_need_long_runs() {
    let tail = |customers, studies| {
        let queue = Queue { servers: 1, rate: 0.5, customers };
        let exact = queue.wait_at(0.99);
        let name = format!("M/M/1 at 0.5, p99, runs of {customers}");
        let [share] = coverage(studies, [name], |study| {
            let mut runs: Vec<Vec<f64>> =
                (0..REPLICATIONS).map(|replication| queue.run(study, replication)).collect();
            [holds(sections(&mut runs, 0.99), exact)]
        });
        share
    };
    let long = tail(8_000, studies() / 2);
    assert!((93.0..=97.0).contains(&long), "{long} %");
    // Four samples beyond the percentile in each run: the report marks it.
    let short = tail(400, studies());
    assert!(short < 93.0, "{short} %");
}

/// The interval of a percentile over all runs, as reports make it.
fn sections(runs: &mut [Vec<f64>], p: f64) -> Option<[f64; 2]> {
    let each: Vec<f64> = runs.iter_mut().map(|waits| quantile(waits, p)).collect();
    around(quantile(&mut runs.concat(), p), &each)
}

#[test]
fn intervals_of_shares_cover_what_they_say() {
    for p in [0.5, 0.9, 0.99] {
        let [share] = coverage(studies(), [format!("a share of {p}, Wilson")], |study| {
            let key =
                StreamKey { seed: u64::from(study), replication: 0, name: "share", entity: 0 };
            let mut stream = Stream::new(key);
            let good = (0..1_000).filter(|_| stream.uniform() < p).count() as u64;
            [holds(wilson(good, 1_000), p)]
        });
        assert!((93.0..=97.0).contains(&share), "{p}: {share} %");
    }
    // Waits of one run are alike: the share of those that keep a limit varies more than Wilson
    // believes, and only the interval across replications holds.
    let queue = QUEUES[1];
    let (limit, exact) = (queue.wait_at(0.9), 0.9);
    let names = ["Wilson over correlated waits", "the same across replications"].map(str::to_owned);
    let [pooled, across] = coverage(studies(), names, |study| {
        let one = |replication| {
            queue.run(study, replication).iter().filter(|&&wait| wait <= limit).count() as u64
        };
        let within: Vec<u64> = (0..REPLICATIONS).map(one).collect();
        let all = u64::from(REPLICATIONS) * queue.customers as u64;
        let each: Vec<f64> =
            within.iter().map(|&count| count as f64 / queue.customers as f64).collect();
        let wilson = wilson(within.iter().sum(), all);
        [holds(wilson, exact), holds(around(mean(&each), &each), exact)]
    });
    assert!(pooled < 85.0, "correlation is what replications are for: {pooled} %");
    assert!((93.0..=97.0).contains(&across), "{across} %");
}
