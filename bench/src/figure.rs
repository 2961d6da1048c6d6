//! What is printed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

/// Our value and the floor of the same work.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    /// `None` where there is no raw form of the work.
    pub(crate) floor: Option<f64>,
}

impl Figure {
    /// The median of several measurements of ours and of the floor.
    pub(crate) fn of_medians(name: &'static str, unit: &'static str, ours: Vec<f64>, floor: Vec<f64>) -> Self {
        detail(|| format!("{name}: ours {ours:.4?}, floor {floor:.4?} {unit}"));
        Self { name, unit, value: median(ours), floor: Some(median(floor)) }
    }

    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.value / floor)
    }

    pub(crate) fn json(&self) -> String {
        let round = |value: f64| (value * 10_000.0).round() / 10_000.0;
        json!({
            "name": self.name,
            "value": round(self.value),
            "unit": self.unit,
            "floor": self.floor.map(round),
            "ratio": self.ratio().map(round),
        })
        .to_string()
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, value, .. } = self;
        let digits = if *value < 100.0 { 3 } else { 0 };
        write!(f, "{name:24} {value:>10.digits$} {unit:12}")?;
        match (self.floor, self.ratio()) {
            (Some(floor), Some(ratio)) => write!(f, " floor {floor:>10.digits$}  ratio {ratio:.2}"),
            _ => write!(f, " floor          -  ratio -"),
        }
    }
}

static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Has each turn's measurement told on standard error.
pub(crate) fn be_verbose() {
    VERBOSE.store(true, Ordering::Relaxed);
}

pub(crate) fn detail(line: impl FnOnce() -> String) {
    if VERBOSE.load(Ordering::Relaxed) {
        eprintln!("{}", line());
    }
}

/// The middle one; the mean of both where there are two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
