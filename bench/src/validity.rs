//! What the validity rule costs who reads events.

use std::sync::Arc;
use std::time::Instant;

use es_core::log::record::{self, Decoded, Stamp};
use es_core::log::validity::{Current, Rule, Verdict};
use es_core::log::{Log, StoredRecord};
use es_core::{Checkpoint, Engine, EngineConfig, EventSource, Fed, PartitionReader, Recorded};
use es_kafka::{KafkaConfig, KafkaLog};

use crate::Failure;
use crate::account::{Account, Deposits};
use crate::figure::{Figure, detail, median};
use crate::load::cpu_seconds;

const EVENTS: usize = 300_000;
const ACCOUNTS: usize = 10_000;
/// The difference is small, so there are many.
const TURNS: usize = 11;

/// Microseconds an event takes a reader, as a projection has it; floor: the same without the rule.
pub(crate) async fn reading(name: &'static str, broker: String) -> Result<Figure, Failure> {
    let events = Events::write(&broker).await?;
    let (mut ours, mut floor) = (vec![], vec![]);
    let (mut our_cpu, mut floor_cpu) = (vec![], vec![]);
    for turn in 0..=TURNS {
        let with = events.read(&mut events.with_rule()).await?;
        let without =
            events.read(&mut |partition, stored| Ok(decoded(partition, stored).map(|(_, event)| event))).await?;
        if turn == 0 {
            continue; // the broker's files and ours were cold
        }
        ours.push(with.elapsed_us);
        floor.push(without.elapsed_us);
        our_cpu.push(with.cpu_us);
        floor_cpu.push(without.cpu_us);
    }
    detail(|| format!("CPU us each: ours {:.3}, floor {:.3}", median(our_cpu), median(floor_cpu)));
    Ok(Figure::of_medians(name, "us an event", ours, floor))
}

/// Microseconds that the rule computes for an event that is decoded already; floor: what a reader computes for one in all,
/// the client's threads among it. A busy machine changes this less than the difference of two readings.
pub(crate) async fn alone(name: &'static str, broker: String) -> Result<Figure, Failure> {
    let events = Events::write(&broker).await?;
    let (mut ours, mut floor) = (vec![], vec![]);
    for _ in 0..TURNS {
        ours.push(events.rule_alone().await?);
        floor.push(events.read(&mut events.with_rule()).await?.cpu_us);
    }
    Ok(Figure::of_medians(name, "us CPU each", ours, floor))
}

/// A topic with events.
struct Events {
    log: Arc<KafkaLog>,
    source: EventSource,
}

/// What each event took.
struct Took {
    elapsed_us: f64,
    /// In all threads of this process, the client's among them.
    cpu_us: f64,
}

impl Events {
    async fn write(broker: &str) -> Result<Self, Failure> {
        let log = Arc::new(KafkaLog::connect(KafkaConfig::new(broker).partitions(4)).await?);
        let namespace = Some(es_tests::unique_name("bench"));
        let engine = Engine::new(log.clone(), EngineConfig { namespace, ..EngineConfig::default() });
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        let source = bus.source().clone();
        Deposits::new(bus, ACCOUNTS).fill(EVENTS).await?;
        engine.shutdown().await;
        Ok(Self { log, source })
    }

    /// What a projection's reader does with a record, until it is a row's turn.
    fn with_rule(&self) -> impl FnMut(u32, StoredRecord) -> Result<Vec<Recorded>, Failure> {
        let reader = |partition| PartitionReader::resume(self.source.clone(), partition, &Checkpoint::default());
        let mut readers: Vec<_> = (0..self.source.partitions).map(reader).collect();
        move |partition, stored| match readers[partition as usize].feed(stored)? {
            Fed::Events(events) => Ok(events),
            _ => Ok(vec![]),
        }
    }

    /// Reads every partition to its end.
    async fn read<T: IntoIterator<Item = Recorded>>(
        &self,
        take: &mut impl FnMut(u32, StoredRecord) -> Result<T, Failure>,
    ) -> Result<Took, Failure> {
        let mut batches = Batches::open(self).await?;
        let (cpu, started) = (cpu_seconds(), Instant::now());
        let mut read = 0;
        while let Some((partition, records)) = batches.next().await? {
            let mut chunk = Vec::new();
            for stored in records {
                chunk.extend(take(partition, stored)?);
            }
            read += chunk.len();
        }
        let (elapsed, cpu) = (started.elapsed(), cpu_seconds() - cpu);
        if read != EVENTS {
            return Err(format!("{read} events were read, {EVENTS} were written").into());
        }
        let each = |seconds: f64| seconds * 1e6 / EVENTS as f64;
        Ok(Took { elapsed_us: each(elapsed.as_secs_f64()), cpu_us: each(cpu) })
    }

    /// The median over batches: what came between on a busy machine is in few of them.
    async fn rule_alone(&self) -> Result<f64, Failure> {
        let mut batches = Batches::open(self).await?;
        let mut rules: Vec<Rule<Recorded>> =
            (0..self.source.partitions).map(|_| Rule::resume(Current::default())).collect();
        let mut times = Vec::new();
        while let Some((partition, records)) = batches.next().await? {
            let rule = &mut rules[partition as usize];
            let mut events: Vec<(Stamp, Recorded)> = Vec::with_capacity(records.len());
            for stored in records {
                if let Decoded::Claim(claim) = record::decode(&stored.record) {
                    rule.claim(stored.offset, claim.epoch, claim.copy)
                        .map_err(|reason| format!("a void claim: {reason:?}"))?;
                }
                events.extend(decoded(partition, stored));
            }
            let count = events.len();
            let moved = events.clone();
            let mut chunk = Vec::with_capacity(count);
            let started = Instant::now();
            chunk.extend(moved.into_iter().map(|(_, event)| event));
            let moving = started.elapsed();
            let mut ruled = Vec::with_capacity(count);
            let started = Instant::now();
            for (stamp, event) in events {
                if let Verdict::Released(events) = rule.event(event.offset, stamp, event) {
                    ruled.extend(events);
                }
            }
            let ruling = started.elapsed();
            if ruled != chunk {
                return Err("the rule let other events through than were written".into());
            }
            if count > 0 {
                times.push((ruling.as_secs_f64() - moving.as_secs_f64()) * 1e6 / count as f64);
            }
        }
        Ok(median(times))
    }
}

/// The event that a record is, if it is one, and its stamp.
fn decoded(partition: u32, stored: StoredRecord) -> Option<(Stamp, Recorded)> {
    let StoredRecord { offset, record } = stored;
    match record::decode(&record) {
        Decoded::Event(stamp, envelope) => Some((stamp, Recorded { partition, offset, envelope: *envelope })),
        _ => None,
    }
}

/// What a topic holds, as it comes.
struct Batches {
    reader: Box<dyn es_core::log::LogReader>,
    /// The end of each partition.
    ends: Vec<u64>,
    /// Partitions that were not read to their end yet.
    left: usize,
}

impl Batches {
    async fn open(events: &Events) -> Result<Self, Failure> {
        let topic = &events.source.topic;
        let (mut from, mut ends) = (vec![], vec![]);
        for partition in 0..events.source.partitions {
            from.push((partition, 0));
            ends.push(events.log.bounds(topic, partition).await?.end);
        }
        Ok(Self { reader: events.log.reader(topic, &from).await?, left: ends.len(), ends })
    }

    async fn next(&mut self) -> Result<Option<(u32, Vec<StoredRecord>)>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        let batch = self.reader.next().await?;
        if batch.next == self.ends[batch.partition as usize] {
            self.left -= 1;
        }
        Ok(Some((batch.partition, batch.records)))
    }
}
