//! The least number that is enough.

use plimsoll_report::capacity::Judged;

/// The least number of `range` that is judged to be met, if more is never worse: doubles from
/// `start` until the answer is bracketed, then bisects. What is undecided counts as not met.
///
/// # Errors
/// Those of `judge`.
pub(crate) fn least<E>(
    (low, high): (u32, u32),
    start: u32,
    judge: &mut dyn FnMut(u32) -> Result<Judged, E>,
) -> Result<Option<u32>, E> {
    let mut is_met = |n| Ok(judge(n)? == Judged::Met);
    // `not` is not met or below the range, `met` is met.
    let (mut not, mut met) = (low - 1, None);
    let mut at = start.clamp(low, high);
    while met.is_none() {
        if is_met(at)? {
            met = Some(at);
        } else if at == high {
            return Ok(None);
        } else {
            not = at;
            at = at.saturating_mul(2).min(high);
        }
    }
    let mut met = met.expect("the loop ended");
    // Where the start itself was met, down by halves.
    while met > low && not < low && met / 2 >= low {
        let half = met / 2;
        match is_met(half)? {
            true => met = half,
            false => not = half,
        }
    }
    while met - not > 1 {
        let middle = not + (met - not) / 2;
        match is_met(middle)? {
            true => met = middle,
            false => not = middle,
        }
    }
    Ok(Some(met))
}

/// The largest multiple that is met and the least that is not, to about `precision` of each other,
/// if less load is never worse. Begins at 1; `None` for a side that was not found between `1/far`
/// and `far`.
///
/// # Errors
/// Those of `judge`.
pub(crate) fn safe<E>(
    far: f64,
    precision: f64,
    judge: &mut dyn FnMut(f64) -> Result<Judged, E>,
) -> Result<(Option<f64>, Option<f64>), E> {
    let mut is_met = |load: f64| Ok(judge(load)? == Judged::Met);
    let (mut met, mut not) = (None, None);
    let (mut load, mut step) = (1.0, 1.1);
    loop {
        match is_met(load)? {
            true => met = Some(load),
            false => not = Some(load),
        }
        if met.is_some() && not.is_some() {
            break;
        }
        let next = if not.is_none() { load * step } else { load / step };
        let next = next.clamp(1.0 / far, far);
        if next == load {
            return Ok((met, not));
        }
        load = next;
        step *= 1.2;
    }
    while let (Some(low), Some(high)) = (met, not)
        && high / low > 1.0 + precision
    {
        let middle: f64 = (low * high).sqrt();
        match is_met(middle)? {
            true => met = Some(middle),
            false => not = Some(middle),
        }
    }
    Ok((met, not))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_found_wherever_one_starts() {
        for answer in 1..=70u32 {
            for start in [1, 2, 7, 33, 64] {
                let mut asked = Vec::new();
                let found = least((1, 64), start, &mut |n| {
                    asked.push(n);
                    let met = n >= answer;
                    Ok::<_, ()>(if met { Judged::Met } else { Judged::Missed })
                });
                assert_eq!(found, Ok((answer <= 64).then_some(answer)), "from {start}");
                assert!(asked.len() <= 13, "{asked:?}");
                let mut unique = asked.clone();
                unique.sort_unstable();
                unique.dedup();
                assert_eq!(unique.len(), asked.len(), "nothing is asked twice: {asked:?}");
            }
        }
    }

    #[test]
    fn the_safe_load_is_bracketed_from_both_sides() {
        for answer in [0.3, 0.95, 1.0, 1.07, 2.5, 5.9] {
            let found = safe(8.0, 0.02, &mut |load| {
                Ok::<_, ()>(if load <= answer { Judged::Met } else { Judged::Missed })
            });
            let (met, not) = found.expect("judging cannot fail");
            let (met, not) = (met.expect("a side"), not.expect("a side"));
            assert!(met <= answer && answer < not && not / met <= 1.021, "{met} {answer} {not}");
        }
        let all = safe(8.0, 0.02, &mut |_| Ok::<_, ()>(Judged::Met)).expect("it cannot fail");
        assert_eq!(all, (Some(8.0), None));
    }
}
