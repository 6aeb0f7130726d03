//! The decision log: what is written is read, damage is found where it is, and a replay decides
//! as before.

#[path = "support/inputs.rs"]
mod inputs;
#[path = "support/naive.rs"]
#[allow(dead_code, reason = "the storm names it")]
mod naive;
#[path = "support/storm.rs"]
#[allow(dead_code, reason = "only its policies and acts are used here")]
mod storm;

use flate2::FlushDecompress;
use plimsoll_base::{
    BackendId, Bound, ClassId, ClassObjectives, End, Metric, ModelId, Names, Objective, PoolId,
    Reason, Refusal, RequestId, Scale, SessionId, SiteId, SourceId, Span, StageId, TenantId, Time,
    WorkflowId,
};
use plimsoll_policy::config::{Class, Config, Share};
use plimsoll_policy::log::{
    Ending, Header, LogError, Malformed, Problem, Reader, Record, Replay, Writer,
};
use plimsoll_policy::{
    Action, Alarm, AlarmKind, BackendInfo, Decision, EnginePriority, Held, Input, Labels, Load,
    RequestInfo, Signal, Used,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn header(policy: Config) -> Header {
    let names = Names { classes: vec!["chat".into(), "ünï".into()], ..Names::default() };
    Header {
        build: "0.1.0".into(),
        scenario: "a test".into(),
        scenario_hash: "0123456789abcdef".into(),
        seed: u64::MAX,
        replication: 7,
        names,
        policy,
        objectives: vec![ClassObjectives {
            class: ClassId(0),
            objectives: vec![Objective {
                metric: Metric::Ttft,
                percentile: 99.9,
                limit: 0.0405,
                text: "ttft_p999 <= 40.5ms".into(),
            }],
        }],
    }
}

fn plain() -> Header {
    header(Config::plain(Share::Fcfs, vec![Class::default()]))
}

fn written(header: &Header, records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(header);
    let mut bytes = Vec::new();
    for record in records {
        writer.input(record.now, &record.input);
        record.decisions.iter().for_each(|decision| writer.decision(decision));
        record.signals.iter().for_each(|signal| writer.signal(signal));
        bytes.append(writer.bytes());
    }
    bytes.extend(writer.finish());
    bytes
}

/// The records up to the end or the first error.
fn read(bytes: &[u8]) -> (Vec<Record>, Result<Ending, LogError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut records = Vec::new();
    for record in &mut reader {
        match record {
            Ok(record) => records.push(record),
            Err(error) => return (records, Err(error)),
        }
    }
    assert_eq!(reader.totals().inputs, records.len() as u64);
    (records, Ok(reader.ending().expect("what is read to its end has an ending")))
}

/// Small numbers, and now and then any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..200, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}
fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|number| number as u32)
}
fn tiny() -> impl Strategy<Value = u16> {
    number().prop_map(|number| number as u16)
}
fn request() -> impl Strategy<Value = RequestId> {
    number().prop_map(RequestId)
}
fn backend() -> impl Strategy<Value = BackendId> {
    (small(), small()).prop_map(|(slot, generation)| BackendId { slot, generation })
}
fn end() -> impl Strategy<Value = End> {
    select(vec![End::Finished, End::Failed, End::Cancelled, End::Expired])
}

fn info() -> impl Strategy<Value = RequestInfo> {
    let first = (small(), tiny(), of(tiny()), tiny(), tiny());
    let second = (small(), small(), number(), number(), number(), any::<u8>());
    (first, second).prop_map(|(first, second)| RequestInfo {
        tenant: TenantId(first.0),
        source: SourceId(first.1),
        claims: first.2.map(ClassId),
        model: ModelId(first.3),
        stage: StageId(first.4),
        prompt_tokens: second.0,
        output_cap: second.1,
        labels: Labels(second.2),
        session: SessionId(second.3),
        workflow: WorkflowId(second.4),
        attempt: second.5,
    })
}

fn backend_info() -> impl Strategy<Value = BackendInfo> {
    (tiny(), small(), number(), small(), tiny(), number()).prop_map(
        |(pool, seats, kv_tokens, context_max, site, models)| BackendInfo {
            pool: PoolId(pool),
            seats,
            kv_tokens,
            context_max,
            site: SiteId(site),
            models,
        },
    )
}

/// Every kind of input.
fn input() -> impl Strategy<Value = Input> {
    let used = (small(), small())
        .prop_map(|(prompt_tokens, output_tokens)| Used { prompt_tokens, output_tokens });
    let load = (small(), small(), small(), number()).prop_map(|(running, waiting, kv, wait)| {
        Load { running, waiting, kv_used_ppm: kv, queue_wait: Span::from_nanos(wait) }
    });
    prop_oneof![
        (request(), info()).prop_map(|(id, info)| Input::Arrived(id, info)),
        (request(), info(), (tiny(), number(), of(backend()))).prop_map(
            |(id, info, (class, at, backend))| {
                let (class, arrived) = (ClassId(class), Time::from_nanos(at));
                Input::Resumed(id, info, Held { class, arrived, backend })
            }
        ),
        request().prop_map(Input::Withdrawn),
        request().prop_map(Input::Accepted),
        request().prop_map(Input::FirstToken),
        (request(), small()).prop_map(|(id, tokens)| Input::Progressed(id, tokens)),
        (request(), end(), used).prop_map(|(id, end, used)| Input::Ended(id, end, used)),
        (request(), backend(), small()).prop_map(|(id, at, n)| Input::Matched(id, at, n)),
        (request(), small()).prop_map(|(id, tokens)| Input::Predicted(id, tokens)),
        (backend(), backend_info()).prop_map(|(id, info)| Input::Joined(id, info)),
        (backend(), load, number()).prop_map(|(id, load, at)| Input::Reported(
            id,
            load,
            Time::from_nanos(at)
        )),
        backend().prop_map(Input::Left),
        Just(Input::Draining),
        Just(Input::Deadline),
    ]
}

/// Every kind of decision. (Each reason has a code: a test beside the codes says so.)
fn decision() -> impl Strategy<Value = Decision> {
    let priority = any::<i32>().prop_map(EnginePriority);
    let action = prop_oneof![
        (backend(), priority).prop_map(|(backend, priority)| Action::Dispatch(backend, priority)),
        (select(Refusal::ALL.to_vec()), number())
            .prop_map(|(refusal, wait)| Action::Reject(refusal, Span::from_nanos(wait))),
        end().prop_map(Action::Close),
        backend().prop_map(Action::Preempt),
        backend().prop_map(Action::Cancel),
    ];
    let reasons = vec![Reason::ArrivalOrder, Reason::Due, Reason::NoBackend, Reason::Evicted];
    (request(), of(tiny()), action, select(reasons), of(select(Bound::ALL.to_vec()))).prop_map(
        |(id, class, action, reason, bound)| Decision {
            id,
            class: class.map(ClassId),
            action,
            reason,
            bound,
        },
    )
}

fn alarm() -> impl Strategy<Value = Alarm> {
    let who = (select(AlarmKind::ALL.to_vec()), any::<u16>(), of(any::<u16>()));
    let what = (of(select(Bound::ALL.to_vec())), any::<u64>());
    (who, what).prop_map(|((kind, victim, culprit), (resource, since))| Alarm {
        kind,
        victim: ClassId(victim),
        culprit: culprit.map(ClassId),
        resource,
        since: Time::from_nanos(since),
    })
}

fn records(count: usize) -> impl Strategy<Value = Vec<Record>> {
    let scale =
        (tiny(), small(), small(), small()).prop_map(|(pool, present, wanted, load_ppm)| {
            Signal::Scale(Scale { pool: PoolId(pool), present, wanted, load_ppm })
        });
    let signal = prop_oneof![scale, alarm().prop_map(Signal::Alarm)];
    let few = prop_oneof![5 => vec(decision(), 0..3), 1 => vec(decision(), 3..9)];
    let advice = prop_oneof![5 => Just(vec![]), 1 => vec(signal, 1..3)];
    let one = (0u64..1_000_000, input(), few, advice);
    vec(one, 0..count).prop_map(|list| {
        let mut at = 0;
        let mut records = Vec::new();
        for (number, (step, input, decisions, signals)) in (0..).zip(list) {
            at += step;
            records.push(Record { number, now: Time::from_nanos(at), input, decisions, signals });
        }
        records
    })
}

/// Many records of one kind after another: several blocks.
fn long() -> Vec<Record> {
    let arrival = |number: u64| Record {
        number,
        now: Time::from_nanos(number * 1_000_003),
        input: Input::Arrived(
            RequestId(number),
            RequestInfo {
                prompt_tokens: (number * 7919 % 4099) as u32,
                output_cap: (number * 104_729 % 997) as u32,
                ..RequestInfo::default()
            },
        ),
        decisions: vec![Decision {
            id: RequestId(number),
            class: Some(ClassId(0)),
            action: Action::Dispatch(BackendId::first(number as u32 % 8), EnginePriority(0)),
            reason: Reason::ArrivalOrder,
            bound: None,
        }],
        signals: Vec::new(),
    };
    (0..20_000).map(arrival).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read(records in records(60)) {
        let header = plain();
        let bytes = written(&header, &records);
        assert_eq!(read(&bytes), (records, Ok(Ending::Whole)));
        assert_eq!(*Reader::new(&bytes).expect("it is whole").header(), header);
    }

    /// One changed bit anywhere is found: nothing that was not written is ever read.
    #[test]
    fn a_changed_bit_is_found(records in records(40), at in any::<usize>(), bit in 0u8..8) {
        let mut bytes = written(&plain(), &records);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let (found, ending) = read(&bytes);
        let error = ending.expect_err("a changed bit is damage");
        assert!(error.at <= at as u64, "{error} after byte {at}");
        assert!(records.starts_with(&found));
    }

    /// Bytes that were torn, doubled and scrambled never panic, and errors lie within the file.
    #[test]
    fn damage_never_panics(
        records in records(40),
        edits in vec((any::<usize>(), any::<usize>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = written(&plain(), &records);
        for (from, length, byte, kind) in edits {
            let from = from % bytes.len().max(1);
            let to = (from + length % 40).min(bytes.len());
            match kind {
                0 => bytes[from..to].fill(byte),
                1 => drop(bytes.drain(from..to)),
                2 => bytes.extend_from_within(from..to),
                _ => bytes.truncate(to),
            }
        }
        let (_, ending) = read(&bytes);
        if let Err(error) = ending {
            assert!(error.at <= bytes.len() as u64, "{error}");
        }
    }

    /// Whoever computes the checksums anew gets past them: what stands in the blocks may then be
    /// anything, and still nothing panics.
    #[test]
    fn forged_blocks_never_panic(
        records in records(30),
        edits in vec((any::<usize>(), any::<u8>(), 0u8..3), 0..4),
        which in 0usize..3,
    ) {
        let bytes = written(&plain(), &records);
        let mut log = bytes[..10].to_vec();
        for (index, block) in blocks(&bytes).into_iter().enumerate() {
            let (kind, mut raw) = opened(&bytes[block]);
            for &(at, byte, edit) in edits.iter().filter(|_| index == which) {
                let at = at % raw.len().max(1);
                match edit {
                    0 if at < raw.len() => raw[at] = byte,
                    1 => raw.truncate(at),
                    _ => raw.insert(at.min(raw.len()), byte),
                }
            }
            log.extend(forged(kind, &raw));
        }
        if let (_, Err(error)) = read(&log) {
            assert!(error.at <= log.len() as u64 && !error.to_string().is_empty());
        }
    }

    /// A log that was cut off anywhere after its header gives its first records and says so.
    #[test]
    fn a_cut_is_told_from_damage(records in records(40), at in any::<usize>()) {
        let whole = written(&plain(), &records);
        let head = written(&plain(), &[]).len();
        let at = at % whole.len();
        let (found, ending) = read(&whole[..at]);
        match ending {
            Ok(Ending::Cut(last)) => assert!(last <= at as u64),
            Ok(Ending::Whole) => panic!("{at} of {} bytes are not the whole log", whole.len()),
            Err(error) => {
                assert!(at < head, "{error}");
                let told = [Problem::NoHeader, Problem::Empty];
                assert!(told.contains(&error.problem), "{error}");
            }
        }
        assert!(records.starts_with(&found));
    }

    /// The policy comes back exactly, whatever it is, and decides the storm as before.
    #[test]
    fn a_storm_replays(config in storm::config(), acts in storm::acts()) {
        let inputs = inputs::inputs(acts);
        let (log, _) = inputs::logged(&header(config.clone()), &inputs);
        let mut reader = Reader::new(&log).expect("it is whole");
        assert_eq!(reader.header().policy, config);
        let mut replay = Replay::new(reader.header().policy.clone()).expect("it is valid");
        for record in &mut reader {
            let record = record.expect("it is whole");
            assert!(replay.step(&record).is_ok(), "{record:?}");
        }
        assert_eq!(reader.totals().inputs, inputs.len() as u64);
    }
}

#[test]
fn long_logs_have_many_blocks_and_are_compact() {
    let records = long();
    let bytes = written(&plain(), &records);
    assert_eq!(read(&bytes), (records.clone(), Ok(Ending::Whole)));
    assert!(bytes.len() < 10 * records.len(), "{} bytes", bytes.len());
    // A cut loses what is after the last whole block and nothing else.
    let (found, ending) = read(&bytes[..bytes.len() / 2]);
    assert!(matches!(ending, Ok(Ending::Cut(_))), "{ending:?}");
    assert!(found.len() > 2000 && records.starts_with(&found), "{}", found.len());
}

/// The blocks of a log: where each begins and ends.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = 10;
    let mut blocks = Vec::new();
    while at < bytes.len() {
        let stored = u32::from_le_bytes(*bytes[at + 2..].first_chunk().expect("a head"));
        blocks.push(at..at + 18 + stored as usize);
        at += 18 + stored as usize;
    }
    blocks
}

/// A block's kind and its content.
fn opened(block: &[u8]) -> (u8, Vec<u8>) {
    let (kind, coding, payload) = (block[0], block[1], &block[18..]);
    if coding == 0 {
        return (kind, payload.to_vec());
    }
    let size = u32::from_le_bytes(*block[6..].first_chunk().expect("a head"));
    let mut raw = Vec::with_capacity(size as usize + 1);
    let mut decompress = flate2::Decompress::new(false);
    decompress.decompress_vec(payload, &mut raw, FlushDecompress::Finish).expect("it is deflated");
    (kind, raw)
}

/// A block that is not compressed, with checksums that are right.
fn forged(kind: u8, raw: &[u8]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    let size = (raw.len() as u32).to_le_bytes();
    let mut block = vec![kind, 0];
    for word in [size, size, crc(raw)] {
        block.extend(word);
    }
    block.extend(crc(&block));
    block.extend(raw);
    block
}

/// The problem of a log whose block of this index was made anew.
fn changed(index: usize, change: impl Fn(&mut Vec<u8>)) -> LogError {
    let bytes = written(&plain(), &long()[..3]);
    let mut log = bytes[..10].to_vec();
    for (at, block) in blocks(&bytes).into_iter().enumerate() {
        let (kind, mut raw) = opened(&bytes[block]);
        if at == index {
            change(&mut raw);
        }
        log.extend(forged(kind, &raw));
    }
    read(&log).1.expect_err("it was changed")
}

#[test]
fn blocks_that_mean_nothing_are_told() {
    let header = changed(0, |raw| {
        let text = String::from_utf8(raw.clone()).expect("JSON is UTF-8");
        let text = text.replace("\"0.1.0\"", "\"9.9.9\"").replace("\"Fcfs\"", "\"Lottery\"");
        *raw = text.into_bytes();
    });
    let said = header.to_string();
    let start = "byte 10: the header was written by plimsoll 9.9.9, and this build cannot read it: \
        unknown variant `Lottery`";
    assert!(said.starts_with(start), "{said}");
    let said = changed(0, |raw| raw.truncate(9)).to_string();
    assert!(said.contains("written by plimsoll of an unknown version"), "{said}");
    let record = changed(1, |raw| raw[3] = 31);
    assert!(matches!(record.problem, Problem::Record(Malformed::Unknown("input", 31), 3)));
    let said = record.to_string();
    let end = ": a record means nothing: no input has the code 31 (byte 3 of the open block)";
    assert!(said.ends_with(end), "{said}");
    let record = changed(1, |raw| drop(raw.drain(7..)));
    assert!(matches!(record.problem, Problem::Record(Malformed::Ends(_), _)), "{record}");
    let number = changed(1, |raw| raw.splice(4..5, [255; 10]).for_each(drop));
    assert!(matches!(number.problem, Problem::Record(Malformed::TooLarge(_), _)), "{number}");
    let first = changed(1, |raw| raw[0] = 5);
    assert_eq!(first.problem, Problem::Gap(5, 0));
    let time = changed(1, |raw| raw[1] = 5);
    assert!(matches!(time.problem, Problem::BlockOrder(_)), "{time}");
    let late = changed(1, |raw| {
        // A later record of the block comes 2⁶⁴ − 1 ns after the one before it.
        let later = raw.iter().skip(4).position(|&tag| tag == 32).expect("a later record");
        let step = later + 5;
        raw.splice(step..step + 1, [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]).for_each(drop);
    });
    assert!(matches!(late.problem, Problem::Time(_)), "{late}");
    let hash = changed(1, |raw| *raw.last_mut().expect("a hash") ^= 1);
    assert!(matches!(hash.problem, Problem::Hash(..)), "{hash}");
    let hash = changed(2, |raw| *raw.last_mut().expect("a hash") ^= 1);
    assert!(matches!(hash.problem, Problem::Hash(..)), "{hash}");
    assert_eq!(changed(2, |raw| raw[0] += 1).problem, Problem::Counts);
}

#[test]
fn lost_and_exchanged_blocks_are_found() {
    let bytes = written(&plain(), &long());
    let blocks = blocks(&bytes);
    assert!(blocks.len() > 5, "{}", blocks.len());
    let joined = |order: &[usize]| {
        let mut log = bytes[..10].to_vec();
        order.iter().for_each(|&block| log.extend(&bytes[blocks[block].clone()]));
        read(&log).1.expect_err("blocks are missing or mixed up").problem
    };
    assert!(matches!(joined(&[0, 2, 1, 3]), Problem::Gap(_, 0)));
    assert!(matches!(joined(&[0, 1, 3]), Problem::Gap(..)));
    assert!(matches!(joined(&[0, 1, 1]), Problem::Gap(0, _)));
    assert!(matches!(joined(&[0, 0]), Problem::BlockOrder(_)));
    assert!(matches!(joined(&[1]), Problem::BlockOrder(_)));
    assert_eq!(joined(&[0, 1, blocks.len() - 1]), Problem::Counts);
    let all: Vec<usize> = (0..blocks.len()).chain([blocks.len() - 1]).collect();
    assert_eq!(joined(&all), Problem::Trailing);
}

/// A block of another run that fits but for its decisions: the running hash tells.
#[test]
fn a_block_of_another_run_is_found() {
    let mut other = long();
    other[0].decisions[0].bound = Some(Bound::Seats);
    let (one, two) = (written(&plain(), &long()), written(&plain(), &other));
    let (first, second) = (blocks(&one), blocks(&two));
    let mut mixed = one[..first[1].end].to_vec();
    mixed.extend(&two[second[2].clone()]);
    let error = read(&mixed).1.expect_err("it is of another run");
    assert!(matches!(error.problem, Problem::Hash(..)), "{error}");
    assert_eq!(error.at, first[2].start as u64);
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let problem = |bytes: &[u8]| read(bytes).1.expect_err("it is no log").problem;
    assert_eq!(problem(b""), Problem::Empty);
    assert_eq!(problem(b"id,replication,source\n"), Problem::Foreign);
    assert_eq!(problem(b"\x89PNG\r\n\x1a\n"), Problem::Foreign);
    let mut newer = written(&plain(), &[]);
    newer[8] = 2;
    assert_eq!(problem(&newer), Problem::Version(2));
}

#[test]
fn the_first_difference_is_shown_with_the_state() {
    let config = Config::plain(Share::Fcfs, vec![Class::default()]);
    let mut replay = Replay::new(config).expect("it is valid");
    let info = BackendInfo { seats: 1, kv_tokens: 100, context_max: 100, ..Default::default() };
    let joined = Record {
        number: 0,
        now: Time::ZERO,
        input: Input::Joined(BackendId::first(0), info),
        decisions: Vec::new(),
        signals: Vec::new(),
    };
    assert!(replay.step(&joined).is_ok());
    let request = RequestInfo { claims: Some(ClassId(0)), prompt_tokens: 5, ..Default::default() };
    let arrived = Record { input: Input::Arrived(RequestId(0), request), number: 1, ..joined };
    let difference = replay.step(&arrived).expect_err("a dispatch was not expected");
    assert_eq!(difference.decisions.len(), 1);
    assert_eq!(difference.expected, arrived);
    let state = difference.state.to_string();
    assert!(state.contains("class 0: 0 queued, 1 outstanding with 5 tokens"), "{state}");
    assert!(state.contains("backend 0: 1 of 1 requests, 5 of 100 tokens"), "{state}");
    // The one after it waits for the seat.
    let second = Record { input: Input::Arrived(RequestId(1), request), number: 2, ..arrived };
    assert!(replay.step(&second).is_ok());
    assert!(replay.state().to_string().contains("1 queued since 0.000000000 s, stopped by seats"));
}
