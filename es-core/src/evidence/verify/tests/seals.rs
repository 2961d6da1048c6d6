//! Seals: who writes them, what is believed of them, and what they prove.

use std::time::Duration;

use super::{World, counted, eventually};
use crate::engine::owner::tests::Do;
use crate::evidence::seal::tests::other_key;
use crate::evidence::seal::topic::Kept;
use crate::evidence::seal::{NotProven, Proof, Sealing};
use crate::evidence::verify::Wrong;
use crate::log::StoredRecord;
use crate::log::memory::Fault;

/// Notes are written while a process works, not only at its end.
#[tokio::test]
async fn events_are_sealed_from_time_to_time() {
    let world = World::new();
    let sealing = Sealing { every: Duration::from_millis(5), ..world.sealing() };
    let (engine, bus) = world.process(Some(sealing)).await;
    for round in 1..=3 {
        bus.send(&"a".to_owned(), Do::Add { n: 1, times: 2 }).await.unwrap();
        eventually("a seal", || bus.status()[0].sealed == 2 * round).await;
        assert_eq!(world.verify().await.sealed(), 2 * round);
    }
    let status = &bus.status()[0];
    assert_eq!((status.unsealed, status.failed_seals), (0, 0));
    assert!(status.seals >= 3);
    engine.shutdown().await;
}

/// Whatever becomes of an append to the seals topic, the next one goes on from what is there.
#[tokio::test]
async fn a_seal_that_fails_or_may_have_failed_is_made_up_for() {
    let faults = [Fault::ReportLost, Fault::Lost, Fault::Refused, Fault::Torn { landed: 1 }, Fault::Delayed];
    for fault in faults {
        let world = World::new();
        world.work(1, 5, Some(world.sealing())).await;
        world.seals().fault(fault.clone());
        let sealing = Sealing { every: Duration::from_millis(5), ..world.sealing() };
        let (engine, bus) = world.process(Some(sealing)).await;
        bus.send(&"a".to_owned(), Do::Add { n: 1, times: 3 }).await.unwrap();
        let all = counted(&world.events().records()).len() as u64;
        eventually("a seal", || bus.status()[0].sealed == all).await;
        assert_eq!(bus.status()[0].failed_seals, 1, "{fault:?}");
        engine.shutdown().await;
        world.work(2, 5, Some(world.sealing())).await;
        // What comes late says nothing new, and compaction does not take for it what stands in order.
        world.seals().release();
        world.seals().compact();
        let report = world.verify().await;
        assert!(report.is_sound(), "{fault:?}: {:?}", report.first());
        assert_eq!(report.sealed(), report.events(), "{fault:?}");
    }
}

/// Who resumes believes the last note only by a key that it trusts.
#[tokio::test]
async fn a_note_by_another_key_is_gone_on_from_only_if_that_is_trusted() {
    let world = World::new();
    world.work(1, 5, Some(Sealing { key: other_key(), ..world.sealing() })).await;
    let before = world.seals().records();
    let (engine, bus) = world.process(Some(world.sealing())).await;
    eventually("a refusal to seal", || bus.status()[0].failed_seals > 0).await;
    engine.shutdown().await;
    assert_eq!(world.seals().records(), before, "nothing was signed that was not read");

    world.work(2, 5, Some(Sealing { trusted: vec![other_key().public()], ..world.sealing() })).await;
    let verifier = world.verifier().seals("test.counter.seals", vec![other_key().public(), world.key.public()]);
    let report = verifier.run(|_| {}).await.unwrap();
    assert!(report.is_sound() && report.sealed() == report.events(), "{:?}", report.first());
    // With the new key alone the old one's notes are told, and the new ones hold.
    let report = world.verify().await;
    assert_eq!(report.sealed(), report.events());
    assert!(matches!(&report.first().unwrap().wrong, Wrong::Seals(why) if why.contains("example.com/witness")));
}

/// A process that finds the seals or the log changed signs nothing.
#[tokio::test]
async fn what_was_changed_is_not_signed_anew() {
    for damage in ["subtrees", "note", "log lost its tail", "log lost its tail and went on"] {
        let world = World::new();
        world.work(1, 20, Some(world.sealing())).await;
        let mut records = world.seals().records();
        let last = records.last_mut().unwrap();
        match damage {
            "subtrees" => {
                let mut subtrees = last.record.headers[0].1.to_vec();
                subtrees[5] ^= 1;
                last.record.headers[0].1 = subtrees.into();
            }
            "note" => {
                let mut note = last.record.value.take().unwrap().to_vec();
                note[70] ^= 1;
                last.record.value = Some(note.into());
            }
            _ => world.events().truncate(10),
        }
        if damage.ends_with("went on") {
            world.work(2, 40, None).await;
        }
        world.seals().replace(records.clone());
        let (engine, bus) = world.process(Some(world.sealing())).await;
        eventually("a refusal to seal", || bus.status()[0].failed_seals > 0).await;
        bus.send(&"a".to_owned(), Do::Add { n: 1, times: 1 }).await.expect("the owner goes on");
        engine.shutdown().await;
        assert_eq!(world.seals().records(), records, "{damage}");
    }
}

/// Nor what a process signed itself, when the seals of it were taken away while it works.
#[tokio::test]
async fn a_process_signs_nothing_that_contradicts_what_it_signed() {
    let world = World::new();
    let sealing = Sealing { every: Duration::from_millis(5), ..world.sealing() };
    let (engine, bus) = world.process(Some(sealing)).await;
    let send = async || bus.send(&"a".to_owned(), Do::Add { n: 1, times: 2 }).await.unwrap();
    send().await;
    eventually("a seal", || bus.status()[0].sealed == 2).await;
    send().await;
    eventually("a seal", || bus.status()[0].sealed == 4).await;
    let first = world.seals().records().iter().position(is_note).unwrap();
    world.seals().truncate(first as u64 + 1);
    world.seals().fault(Fault::Refused); // so that it looks at the topic again
    send().await;
    eventually("a refusal to seal", || bus.status()[0].failed_seals > 1).await;
    engine.shutdown().await;
    assert_eq!(world.seals().records().len(), first + 1);
}

/// What anybody may write to the topic keeps nobody from sealing, and is told.
#[tokio::test]
async fn rubbish_among_the_seals_is_passed_over() {
    let world = World::new();
    world.work(1, 20, Some(world.sealing())).await;
    let last = world.seals().records().last().unwrap().record.clone();
    let rubbish = |value: &str| crate::log::Record { value: Some(value.to_owned().into()), ..last.clone() };
    let other_partition = note_of(world.seals().records().last().unwrap()).replace("counter/0", "counter/1");
    for value in ["rubbish", "", &other_partition] {
        world.seals().append_foreign(rubbish(value));
    }
    world.work(2, 20, Some(world.sealing())).await;
    let report = world.verify().await;
    assert_eq!(report.sealed(), report.events());
    let findings = &report.partitions[0].findings;
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings.iter().all(|finding| matches!(finding.wrong, Wrong::Seals(_))), "{findings:?}");
}

/// Old notes written again and again push out neither those of the topic nor one that was given.
#[tokio::test]
async fn old_notes_hide_no_newer_ones() {
    let world = World::worked().await;
    let whole = world.seals().records();
    let notes: Vec<_> = whole.iter().filter(|stored| is_note(stored)).cloned().collect();
    let kept = note_of(&notes[2]);
    // Cut off behind the second note, and the first one again and again.
    let second = notes[1].offset;
    world.seals().truncate(second + 1);
    for _ in 0..11_000 {
        world.seals().append_foreign(notes[0].record.clone());
    }
    let size = world.verify().await.sealed();
    let cut = counted(&world.events().records())[size as usize].offset;
    world.events().truncate(cut);
    let report = world.verifier().note(&kept).run(|_| {}).await.unwrap();
    assert!(matches!(report.first().expect("it is shorter").wrong, Wrong::CutOff(_)), "{:?}", report.first());
    let newest = world.verifier().newest_notes().await.unwrap();
    assert_eq!(newest, [note_of(&notes[1])]);
}

/// A log and its seals, in place of those of another: signed by the same key, and still not the same log.
#[tokio::test]
async fn notes_of_another_log_are_not_taken_for_its_own() {
    let (world, other) = (World::worked().await, World::worked().await);
    world.seals().replace(other.seals().records());
    let report = world.verify().await;
    let is_told = |wrong: &Wrong| matches!(wrong, Wrong::Seals(why) if why.contains("this is log"));
    assert!(report.partitions[0].findings.iter().any(|finding| is_told(&finding.wrong)), "{:?}", report.first());
    // One of them among its own is told, and blames no event.
    let world = World::worked().await;
    let foreign = other.seals().records().into_iter().find(is_note).unwrap();
    world.seals().append_foreign(foreign.record);
    let report = world.verify().await;
    let findings = &report.partitions[0].findings;
    assert!(matches!(&findings[..], [one] if matches!(one.wrong, Wrong::Seals(_))), "{findings:?}");
}

/// However much else is wrong, the first that is wrong is told first.
#[tokio::test]
async fn many_findings_do_not_hide_the_first() {
    let world = World::worked().await;
    let mut records = world.events().records();
    let all = counted(&records);
    // The last sealed event of an aggregate, as it would be by somebody else; and all later payloads.
    let sealed = world.verify().await.sealed() as usize;
    let place = records.iter().position(|stored| stored.offset == all[5].offset).unwrap();
    super::changes::rewrite(&mut records, place, &mut fastrand::Rng::with_seed(1));
    for stored in records.iter_mut().skip(place + 1).filter(|stored| !stored.record.key.starts_with(b"!")) {
        stored.record.value = Some("{}".into());
    }
    assert!(all.len() > sealed && sealed > 150);
    world.events().replace(records);
    let report = world.verify().await;
    let findings = &report.partitions[0].findings;
    assert_eq!((findings.len(), findings[0].index), (100, 5), "{}", findings[0]);
    assert_eq!(findings[0].wrong, Wrong::Rewritten);
}

/// Damage to the seals is told, and blames no event: the signed roots still prove them.
#[tokio::test]
async fn each_changed_bit_of_the_seals_is_told_or_says_nothing() {
    let world = World::worked().await;
    let whole = world.seals().records();
    let sealed = world.verify().await.sealed();
    let (mut chance, mut told) = (fastrand::Rng::with_seed(7), 0);
    for place in (0..whole.len()).cycle().take(200) {
        let mut records = whole.clone();
        let record = &mut records[place].record;
        let bytes = if chance.bool() { &mut record.key } else { record.value.as_mut().unwrap() };
        let mut flipped = bytes.to_vec();
        let at = chance.usize(..flipped.len());
        flipped[at] ^= 1 << chance.u32(..8);
        *bytes = flipped.into();
        world.seals().replace(records);
        let report = world.verify().await;
        let findings = &report.partitions[0].findings;
        assert!(findings.iter().all(|finding| matches!(finding.wrong, Wrong::Seals(_))), "{findings:?}");
        assert!(report.sealed() == sealed || !findings.is_empty(), "record {place}, byte {at}");
        told += usize::from(!findings.is_empty());
    }
    assert!(told > 100, "{told} of 200");
}

/// Without the hashes the signed roots alone tell between which seals an event was changed.
#[tokio::test]
async fn a_change_is_found_without_the_hashes_too() {
    let world = World::worked().await;
    let notes: Vec<StoredRecord> = world.seals().records().into_iter().filter(is_note).collect();
    world.seals().replace(notes);
    let events = world.events().records();
    assert!(world.verify().await.partitions[0].findings.iter().all(|finding| matches!(finding.wrong, Wrong::Seals(_))));
    let all = counted(&events);
    // The actor of an aggregate's last sealed event; no other event's hash covers it.
    let last = all.iter().rposition(|event| event.envelope.command_id.as_str().starts_with("1-")).unwrap();
    let mut changed = events.clone();
    let stored = changed.iter_mut().find(|stored| stored.offset == all[last].offset).unwrap();
    let crate::log::record::Decoded::Event(stamp, mut event) = crate::log::record::decode(&stored.record) else {
        panic!()
    };
    event.actor = None;
    event.hash = event.compute_hash();
    stored.record = crate::log::record::Encoder::new("test", "counter").event(&event, stamp);
    world.events().replace(changed);
    let report = world.verify().await;
    let is_signed = |wrong: &Wrong| matches!(wrong, Wrong::NotAsSigned(sealed) if sealed.size > last as u64);
    assert!(
        report.partitions[0].findings.iter().any(|finding| is_signed(&finding.wrong)),
        "{:?}",
        report.partitions[0].findings
    );
}

fn is_note(stored: &StoredRecord) -> bool {
    matches!(Kept::decode(&stored.record), Kept::Note { .. })
}

fn note_of(stored: &StoredRecord) -> String {
    match Kept::decode(&stored.record) {
        Kept::Note { note, .. } => note,
        other => panic!("a note was expected: {other:?}"),
    }
}

/// What no signature in the log can tell, since all that is left is right: the end of log and seals cut off. A note that
/// was kept elsewhere tells it.
#[tokio::test]
async fn a_log_cut_off_together_with_its_seals_is_told_by_a_note_that_was_kept() {
    let world = World::worked().await;
    let seals = world.seals().records();
    let kept = note_of(seals.iter().rfind(|stored| is_note(stored)).unwrap());
    assert!(world.verifier().note(&kept).run(|_| {}).await.unwrap().is_sound());

    let notes: Vec<_> = seals.iter().filter(|stored| is_note(stored)).collect();
    let first = notes[0].offset;
    let end = counted(&world.events().records())
        .iter()
        .position(|event| event.envelope.command_id.as_str().starts_with("1-"))
        .unwrap();
    let cut = counted(&world.events().records())[end].offset;
    world.events().truncate(cut);
    world.seals().truncate(first + 1);
    assert!(world.verify().await.is_sound(), "nothing is wrong with what is left");
    let report = world.verifier().note(&kept).run(|_| {}).await.unwrap();
    let found = report.first().expect("the note is about more");
    assert_eq!(found.index, end as u64);
    assert!(matches!(found.wrong, Wrong::CutOff(missing) if missing > 0), "{found}");

    // And a note that is no good is told, not passed over.
    for (note, why) in
        [("rubbish", "has no signature"), (&*kept.replace("test.counter/0", "test.counter/1"), "was changed")]
    {
        let report = world.verifier().note(note).run(|_| {}).await.unwrap();
        assert!(!report.is_sound() && report.notes[0].contains(why), "{:?}", report.notes);
    }
}

/// An intruder who rewrites all, seals included, has no key that is trusted.
#[tokio::test]
async fn seals_by_another_key_prove_nothing() {
    let world = World::new();
    world.work(1, 20, Some(Sealing { key: other_key(), ..world.sealing() })).await;
    let report = world.verify().await;
    assert!(!report.is_sound());
    assert_eq!((report.sealed(), report.partitions[0].notes), (0, 0));
}

#[tokio::test]
async fn an_event_is_proven_to_whoever_has_the_public_key_alone() {
    let world = World::worked().await;
    let all = counted(&world.events().records());
    let keys = [world.key.public()];
    let sealed = world.verify().await.sealed();
    for (index, event) in (0..).zip(&all) {
        let proof = world.verifier().prove(&event.envelope).await;
        if index >= sealed {
            assert!(matches!(proof, Err(NotProven::NotSealed)), "event {index}");
            continue;
        }
        let text = serde_json::to_string(&proof.unwrap()).unwrap();
        let (proven, at, seal) = serde_json::from_str::<Proof>(&text).unwrap().verify(&keys).unwrap();
        assert_eq!((proven.hash, at, seal.size), (event.envelope.hash, index, sealed));
        assert_eq!(
            (&proven.stream, proven.version, &proven.payload),
            (&event.envelope.stream, event.envelope.version, &event.envelope.payload)
        );
    }
}

/// A bit of any field of a proof, and it proves nothing.
#[tokio::test]
async fn a_proof_that_was_changed_proves_nothing() {
    let world = World::worked().await;
    let event = counted(&world.events().records())[17].envelope.clone();
    let keys = [world.key.public()];
    let text = serde_json::to_string(&world.verifier().prove(&event).await.unwrap()).unwrap();
    let whole = serde_json::from_str::<Proof>(&text).unwrap().verify(&keys).unwrap();
    let mut read = 0;
    for place in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[place] ^= 1 << (place % 7);
        let Ok(proof) = serde_json::from_slice::<Proof>(&changed) else { continue };
        // Of the same event, with an id in capitals, it may still be a proof.
        let proven = proof.verify(&keys).ok();
        assert!(proven.is_none_or(|proven| proven == whole), "byte {place}: {}", String::from_utf8_lossy(&changed));
        read += 1;
    }
    assert!(read > 300, "{read} changes could be read");
    assert!(serde_json::from_str::<Proof>(&text).unwrap().verify(&[other_key().public()]).is_err());
    // An event that is not what was sealed.
    let mut other = event;
    other.hash.0[0] ^= 1;
    assert!(matches!(world.verifier().prove(&other).await, Err(NotProven::NotSealed)));
}
