//! Whatever is changed of what was sealed is found, at its place, by what it is.

use std::collections::HashMap;

use bytes::Bytes;
use fastrand::Rng;
use uuid::Uuid;

use super::{World, counted};
use crate::domain::envelope::Envelope;
use crate::domain::hash::EventHash;
use crate::domain::ids::{Actor, AggregateKey, CommandId, EventId, Version};
use crate::evidence::seal::{TreeHash, leaf_hash};
use crate::evidence::verify::{Finding, Wrong};
use crate::log::StoredRecord;
use crate::log::record::{self, Decoded, Encoder, Stamp};

/// What is done to a copy of the log. Those who restamp put the writers' sequences and the offsets right again, and
/// those who recompute do so with versions and hashes, as an intruder would who knows all that we know but the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Of one bit, anywhere in an event's record.
    Flip,
    /// Of one bit of a claim.
    FlipClaim,
    /// The record is gone, and its offset with it.
    Drop,
    DropAndRestamp,
    DropAndRecompute,
    DropClaim,
    Swap,
    SwapAndRestamp,
    InsertAndRestamp,
    InsertAndRecompute,
    Truncate,
    RewriteAndRecompute,
}

const CHANGES: [Change; 12] = [
    Change::Flip,
    Change::FlipClaim,
    Change::Drop,
    Change::DropAndRestamp,
    Change::DropAndRecompute,
    Change::DropClaim,
    Change::Swap,
    Change::SwapAndRestamp,
    Change::InsertAndRestamp,
    Change::InsertAndRecompute,
    Change::Truncate,
    Change::RewriteAndRecompute,
];

/// A thousand changes, each to a copy of the same log. `SEED` repeats a run.
#[tokio::test]
async fn each_of_a_thousand_changes_before_the_last_seal_is_found_at_its_place() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut chance = Rng::with_seed(seed);
    let world = World::worked().await;
    let whole = world.events().records();
    let before = leaves(&whole);
    let sealed = world.verify().await.sealed() as usize;
    let (mut made, mut found, mut without_effect) = (0, 0, 0);
    while found < 1_000 {
        let change = CHANGES[made % CHANGES.len()];
        let Some(changed) = make(change, &whole, sealed, &mut chance) else { continue };
        made += 1;
        // What counts now, read by the rule alone: where it differs from what counted, the change must be found.
        let after = leaves(&changed);
        let place = (0..sealed).find(|place| before.get(*place) != after.get(*place));
        world.events().replace(changed);
        let report = world.verify().await;
        match (place, report.first()) {
            (Some(place), Some(first)) => {
                assert_eq!(first.index, place as u64, "change {made}, {change:?}: {first}");
                assert!(is_told_rightly(change, first), "change {made}, {change:?}: {first}");
                let is_cut_off = |finding: &Finding| matches!(finding.wrong, Wrong::CutOff(_));
                assert!(change != Change::Truncate || report.partitions[0].findings.iter().any(is_cut_off));
                found += 1;
            }
            // A bit of a trace context, say, or of the name of a claim's node: nothing that was recorded is different.
            (None, None) if matches!(change, Change::Flip | Change::FlipClaim) => without_effect += 1,
            (place, first) => panic!("change {made}, {change:?}: expected at {place:?}, found {first:?}"),
        }
    }
    println!("{found} found, {without_effect} flips of what is not covered");
    assert!(without_effect < 100, "{without_effect} of {made} changed nothing that was sealed");
}

fn is_told_rightly(change: Change, finding: &Finding) -> bool {
    let wrong = &finding.wrong;
    match change {
        Change::Flip | Change::FlipClaim | Change::DropClaim => true,
        // What is left of the claim's records has offsets that are too low, as after a lost tail; and of a command of
        // which an event is gone no other counts.
        Change::Drop | Change::DropAndRestamp | Change::DropAndRecompute => {
            matches!(wrong, Wrong::Dropped | Wrong::CutOff(_) | Wrong::NoLongerCounts(_) | Wrong::Rewritten)
        }
        // Before its claim an event is one of a claim that was lost, and nothing is read behind that.
        Change::Swap | Change::SwapAndRestamp => {
            matches!(wrong, Wrong::Moved | Wrong::NoLongerCounts(_) | Wrong::Unreadable(_))
        }
        Change::InsertAndRestamp => matches!(wrong, Wrong::Inserted),
        // Where the next event is of the same aggregate, it has another hash too, and is at no place any more.
        Change::InsertAndRecompute => matches!(wrong, Wrong::Inserted | Wrong::Rewritten),
        Change::Truncate => matches!(wrong, Wrong::CutOff(_) | Wrong::NoLongerCounts(_)),
        Change::RewriteAndRecompute => matches!(wrong, Wrong::Rewritten),
    }
}

/// What counts, by all that is covered; an event that is not what its hash says is none of those sealed.
fn leaves(records: &[StoredRecord]) -> Vec<Option<TreeHash>> {
    let leaf = |event: &Envelope| (event.compute_hash() == event.hash).then(|| leaf_hash(&event.hash));
    counted(records).iter().map(|event| leaf(&event.envelope)).collect()
}

fn make(change: Change, whole: &[StoredRecord], sealed: usize, chance: &mut Rng) -> Option<Vec<StoredRecord>> {
    let mut records = whole.to_vec();
    let all = counted(whole);
    let index = chance.usize(..sealed);
    let at = |index: usize| whole.iter().position(|stored| stored.offset == all[index].offset).expect("it is there");
    let place = at(index);
    match change {
        Change::Flip => flip(&mut records[place], chance),
        Change::FlipClaim => flip(&mut records[claim(whole, chance)], chance),
        Change::Drop => drop(records.remove(place)),
        Change::DropAndRestamp => {
            records.remove(place);
            records = restamp(records);
        }
        Change::DropAndRecompute => {
            records.remove(place);
            records = recompute(restamp(records));
        }
        Change::DropClaim => drop(records.remove(claim(whole, chance))),
        Change::Swap | Change::SwapAndRestamp => {
            let other = at(chance.usize(..sealed));
            if place == other {
                return None;
            }
            let moved = records[place].record.clone();
            records[place].record = std::mem::replace(&mut records[other].record, moved);
            if change == Change::SwapAndRestamp {
                records = restamp(records);
            }
        }
        Change::InsertAndRestamp | Change::InsertAndRecompute => {
            let Decoded::Event(stamp, mut event) = record::decode(&records[place].record) else { unreachable!() };
            event.event_id = EventId::from(Uuid::from_u128(chance.u128(..)));
            event.version = event.version.next();
            event.previous_hash = event.hash;
            event.command_id = CommandId::new("forged").expect("an id");
            event.hash = event.compute_hash();
            // Not in the midst of a command, of which nothing would count then.
            let mut next = place + 1;
            while records.get(next).is_some_and(is_in_midst) {
                next += 1;
            }
            if counted(&records[..next]).len() >= sealed {
                return None; // behind the last that was sealed
            }
            let record = encoder().event(&event, Stamp { index: 0, count: 1, ..stamp });
            records.insert(next, StoredRecord { offset: 0, record });
            records = restamp(records);
            if change == Change::InsertAndRecompute {
                records = recompute(records);
            }
        }
        Change::Truncate => records.truncate(place),
        Change::RewriteAndRecompute => rewrite(&mut records, place, chance),
    }
    Some(records)
}

/// Changes an event, and gives its aggregate the hashes that come of it.
pub(super) fn rewrite(records: &mut Vec<StoredRecord>, place: usize, chance: &mut Rng) {
    let Decoded::Event(stamp, mut event) = record::decode(&records[place].record) else { unreachable!() };
    match chance.u32(..3) {
        0 => event.payload = Bytes::from(r#"{"n":1000000}"#),
        1 => event.actor = Some(Actor::new("bob").expect("an actor")),
        _ => event.occurred_at += chrono::TimeDelta::microseconds(1),
    }
    records[place].record = encoder().event(&event, stamp);
    *records = recompute(std::mem::take(records));
}

fn encoder() -> Encoder {
    Encoder::new("test", "counter")
}

/// A claim of somebody who sealed.
fn claim(records: &[StoredRecord], chance: &mut Rng) -> usize {
    let claims = (0..).zip(records).filter(|(_, stored)| stored.record.key.starts_with(b"!claim"));
    let claims: Vec<usize> = claims.map(|(place, _)| place).collect();
    claims[chance.usize(..claims.len() - 1)]
}

fn is_in_midst(stored: &StoredRecord) -> bool {
    matches!(record::decode(&stored.record), Decoded::Event(stamp, _) if stamp.index > 0)
}

fn flip(stored: &mut StoredRecord, chance: &mut Rng) {
    let record = &mut stored.record;
    let (headers, part) = (record.headers.len(), chance.usize(..10));
    // Half of them in the last header, where most of ours is.
    let bytes = match part {
        0 => {
            record.timestamp_ms ^= 1 << chance.u32(..63);
            return;
        }
        1 => &mut record.key,
        2 => record.value.as_mut().expect("no tombstone"),
        3 | 4 => &mut record.headers[chance.usize(..headers)].1,
        _ => &mut record.headers[headers - 1].1,
    };
    let mut flipped = bytes.to_vec();
    let place = chance.usize(..flipped.len());
    flipped[place] ^= 1 << chance.u32(..8);
    *bytes = flipped.into();
}

/// Gives the records of each claim their sequences anew, and all of them offsets without a hole.
fn restamp(records: Vec<StoredRecord>) -> Vec<StoredRecord> {
    let (mut sequence, mut restamped) = (0, Vec::new());
    for StoredRecord { record, .. } in records {
        sequence += 1;
        let timestamp_ms = record.timestamp_ms;
        let record = match record::decode(&record) {
            Decoded::Claim(_) => {
                sequence = 0;
                record
            }
            Decoded::Event(stamp, event) => encoder().event(&event, Stamp { sequence, ..stamp }),
            Decoded::Answers(stamp, answers) => encoder().answers(&answers, Stamp { sequence, ..stamp }, timestamp_ms),
            _ => record,
        };
        restamped.push(StoredRecord { offset: restamped.len() as u64, record });
    }
    restamped
}

/// Gives the events of each aggregate versions and hashes as if they had been recorded so.
fn recompute(mut records: Vec<StoredRecord>) -> Vec<StoredRecord> {
    let mut heads: HashMap<AggregateKey, (Version, EventHash)> = HashMap::new();
    for stored in &mut records {
        let Decoded::Event(stamp, mut event) = record::decode(&stored.record) else { continue };
        let (version, hash) = heads.entry(event.stream.id.clone()).or_insert((Version::EMPTY, EventHash::default()));
        event.version = version.next();
        event.previous_hash = *hash;
        event.hash = event.compute_hash();
        (*version, *hash) = (event.version, event.hash);
        stored.record = encoder().event(&event, stamp);
    }
    records
}
