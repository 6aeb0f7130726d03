//! Intervals: Wilson for a proportion, Student-t and sections across replications.

use std::sync::OnceLock;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// The standard normal quantile at 0.975.
const Z: f64 = 1.959_963_984_540_054;

/// The Wilson score interval at 95 % for `good` successes of `trials`. `None` without trials.
///
/// Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
/// JASA 22 (1927).
pub fn wilson(good: u64, trials: u64) -> Option<[f64; 2]> {
    if trials == 0 {
        return None;
    }
    let n = trials as f64;
    let p = good as f64 / n;
    let z2 = Z * Z;
    let middle = p + z2 / (2.0 * n);
    let reach = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    Some([((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0)])
}

/// The Student-t interval at 95 % for the mean of independent values. `None` below two values.
pub fn student_t(values: &[f64]) -> Option<[f64; 2]> {
    student_t_at(CONFIDENCE, values)
}

/// The Student-t interval for the mean of independent values at another confidence, such as that
/// of one of several simultaneous intervals. `None` below two values.
pub fn student_t_at(confidence: f64, values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    let reach = t_quantile(0.5 + confidence / 2.0, n - 1.0) * (variance / n).sqrt();
    Some([mean - reach, mean + reach])
}

/// The interval at 95 % around a `value` that was computed over all replications together, from
/// the same value of `each`: the pooled value plus and minus a Student-t multiple of how far those
/// of the replications lie from it. For a mean over requests or a share it is the ratio
/// estimator's interval, for a percentile that of sectioning, which has less bias than the mean of
/// the replications' percentiles. `None` below two replications.
///
/// Source: S. Asmussen, P. W. Glynn, "Stochastic Simulation" (2007), III.5a and V.5 (sectioning);
/// M. K. Nakayama, "Confidence Intervals for Quantiles Using Sectioning When Applying Variance
/// Reduction Techniques", ACM TOMACS 24 (2014).
pub fn around(value: f64, each: &[f64]) -> Option<[f64; 2]> {
    if each.len() < 2 {
        return None;
    }
    let n = each.len() as f64;
    let variance = each.iter().map(|x| (x - value) * (x - value)).sum::<f64>() / (n - 1.0);
    let reach = t_usual(each.len() - 1) * (variance / n).sqrt();
    Some([value - reach, value + reach])
}

/// The quantile for intervals at [`CONFIDENCE`]. A report asks for it some hundred times, always for
/// as many replications, and it takes a search.
fn t_usual(freedom: usize) -> f64 {
    static KNOWN: [OnceLock<f64>; 64] = [const { OnceLock::new() }; 64];
    let compute = || t_quantile(0.5 + CONFIDENCE / 2.0, freedom as f64);
    KNOWN.get(freedom).map_or_else(compute, |known| *known.get_or_init(compute))
}

/// The quantile of Student's t distribution at a probability; `freedom` is above 0.
pub fn t_quantile(probability: f64, freedom: f64) -> f64 {
    let t = StudentsT::new(0.0, 1.0, freedom).expect("the degrees of freedom are positive");
    t.inverse_cdf(probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: Option<[f64; 2]>, low: f64, high: f64, tolerance: f64) {
        let [a, b] = got.expect("an interval");
        assert!((a - low).abs() < tolerance && (b - high).abs() < tolerance, "{a} {b}");
    }

    #[test]
    fn wilson_matches_published_intervals() {
        // R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        close(wilson(81, 263), 0.2553, 0.3662, 5e-5);
        close(wilson(15, 148), 0.0624, 0.1605, 5e-5);
        close(wilson(0, 20), 0.0000, 0.1611, 5e-5);
        close(wilson(1, 29), 0.0061, 0.1718, 5e-5);
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn student_t_matches_the_tables() {
        // Two-sided 95 % points: 12.706 (1), 2.776 (4), 2.262 (9) degrees of freedom.
        for (n, t) in [(2u32, 12.706_2), (5, 2.776_4), (10, 2.262_2)] {
            let values: Vec<f64> = (0..n).map(f64::from).collect();
            let count = f64::from(n);
            let mean = (count - 1.0) / 2.0;
            // The variance of 0, 1, …, n − 1 is n(n + 1)/12.
            let reach = t * ((count * (count + 1.0) / 12.0) / count).sqrt();
            close(student_t(&values), mean - reach, mean + reach, 2e-4);
        }
        assert_eq!(student_t(&[1.0]), None);
    }

    #[test]
    fn an_interval_lies_around_the_pooled_value() {
        // Around the mean it is Student's.
        assert_eq!(around(3.0, &[2.0, 3.0, 4.0]), student_t(&[2.0, 3.0, 4.0]));
        // Elsewhere it holds the pooled value, and is wider for it.
        let [low, high] = around(5.0, &[2.0, 3.0, 4.0]).expect("three replications");
        assert!((low + high - 10.0).abs() < 1e-12 && high - low > 4.9, "{low} {high}");
        assert_eq!(around(1.0, &[1.0]), None);
    }
}
