//! Medians and what goes with them.

/// The median; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The median absolute deviation, scaled so that it is a standard deviation where values are
/// normal.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let middle = median(values);
    let away: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    1.4826 * median(&away)
}

/// The deviation as a part of the median.
pub(super) fn relative_spread(values: &[f64]) -> f64 {
    let middle = median(values);
    if middle > 0.0 { deviation(values) / middle } else { 0.0 }
}

/// The half-width of the median's 95 % interval, as a part of it; infinite for fewer than three.
/// A median's standard error is 1.2533 times that of a mean where values are normal.
pub(super) fn half_width(values: &[f64]) -> f64 {
    if values.len() < 3 {
        return f64::INFINITY;
    }
    1.96 * 1.2533 * relative_spread(values) / (values.len() as f64).sqrt()
}
