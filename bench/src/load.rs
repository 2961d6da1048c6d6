//! Closed-loop senders: each sends its next when the one before is answered.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::figure::{detail, median};

/// How often ours and the floor are measured, in turn.
pub(crate) const TURNS: usize = 5;
const WINDOW: Duration = Duration::from_millis(1_500);
const WARM_UP: Duration = Duration::from_millis(500);
/// Measured one at a time for each median.
const SINGLES: usize = 1_000;

/// One unit of what is measured.
pub(crate) trait Work: Clone + Send + Sync + 'static {
    /// Does it once and waits until it is durable. `place` spreads the load.
    fn once(&self, place: usize) -> impl Future<Output = ()> + Send;
}

/// What one window showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Units a second.
    pub(crate) per_second: f64,
    /// What this process computed for each, in microseconds: a busy machine changes it little.
    cpu_us: f64,
}

/// Units a second with this many concurrent senders, after a warm-up: of ours and the floor in turn.
pub(crate) async fn many(senders: usize, ours: &impl Work, floor: &impl Work) -> (Vec<f64>, Vec<f64>) {
    let (mut our_rates, mut floor_rates) = (vec![], vec![]);
    rate(senders, WARM_UP, ours).await;
    rate(senders, WARM_UP, floor).await;
    for _ in 0..TURNS {
        our_rates.push(rate(senders, WINDOW, ours).await);
        floor_rates.push(rate(senders, WINDOW, floor).await);
    }
    let cpu = |rates: &[Rate]| median(rates.iter().map(|rate| rate.cpu_us).collect());
    detail(|| format!("CPU us each: ours {:.1}, floor {:.1}", cpu(&our_rates), cpu(&floor_rates)));
    let per_second = |rates: Vec<Rate>| rates.into_iter().map(|rate| rate.per_second).collect();
    (per_second(our_rates), per_second(floor_rates))
}

/// The rate in one window.
pub(crate) async fn rate(senders: usize, window: Duration, work: &impl Work) -> Rate {
    let cpu = cpu_seconds();
    let over = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let tasks: Vec<_> = (0..senders)
        .map(|sender| {
            let (work, over) = (work.clone(), over.clone());
            tokio::spawn(async move {
                let mut done = 0;
                // A stride that visits every account, in an order of each sender's own.
                let mut place = sender.wrapping_mul(7_919);
                while !over.load(Ordering::Relaxed) {
                    work.once(place).await;
                    place = place.wrapping_add(613);
                    done += 1;
                }
                done
            })
        })
        .collect();
    tokio::time::sleep(window).await;
    over.store(true, Ordering::Relaxed);
    let mut done = 0_u32;
    for task in tasks {
        done += task.await.expect("a sender only panics where the measurement is void");
    }
    let done = f64::from(done);
    Rate { per_second: done / started.elapsed().as_secs_f64(), cpu_us: (cpu_seconds() - cpu) * 1e6 / done }
}

/// What this process has computed so far, by the system's clock of 100 ticks a second.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program ends with a parenthesis; user and system time are the 12th and 13th after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Medians of the time in milliseconds that one takes alone: of ours and the floor in turn.
pub(crate) async fn one(ours: &impl Work, floor: &impl Work) -> (Vec<f64>, Vec<f64>) {
    let (mut our_times, mut floor_times) = (vec![], vec![]);
    p50(SINGLES / 4, ours).await;
    p50(SINGLES / 4, floor).await;
    for _ in 0..TURNS {
        our_times.push(p50(SINGLES, ours).await);
        floor_times.push(p50(SINGLES, floor).await);
    }
    (our_times, floor_times)
}

async fn p50(count: usize, work: &impl Work) -> f64 {
    let work = work.clone();
    let measured = tokio::spawn(async move {
        let mut times = Vec::with_capacity(count);
        for place in 0..count {
            let started = Instant::now();
            work.once(place.wrapping_mul(613)).await;
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
        median(times)
    });
    measured.await.expect("a sender only panics where the measurement is void")
}
