//! The hash chain of each aggregate: versions without hole or fork, each event on the one before it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::domain::envelope::Envelope;
use crate::domain::hash::EventHash;
use crate::domain::ids::AggregateKey;

/// The heads of a part of the aggregates: as many as memory is given for. The others are left for later.
#[derive(Debug)]
pub(super) struct Chain {
    part: Part,
    heads: HashMap<AggregateKey, Head>,
    heads_max: usize,
    /// The parts that need a pass of their own.
    pub(super) left: Vec<Part>,
}

/// The aggregates whose ids' hashes leave `rest` when divided by `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    of: u64,
    rest: u64,
}

impl Part {
    pub(super) const ALL: Self = Self { of: 1, rest: 0 };

    fn has(self, id: &AggregateKey) -> bool {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        hasher.finish() % self.of == self.rest
    }
}

#[derive(Debug, Default)]
struct Head {
    version: u64,
    hash: EventHash,
    /// Up to this version it was erased.
    erased: u64,
    /// Events after that which are there.
    present: u64,
    /// Events that sealed erasures explain the lack of.
    gone: u64,
}

impl Chain {
    pub(super) fn new(part: Part, heads_max: usize) -> Self {
        Self { part, heads: HashMap::new(), heads_max, left: Vec::new() }
    }

    /// The events that sealed erasures explain the lack of.
    pub(super) fn gone(&self) -> u64 {
        self.heads.values().fold(0, |gone, head| gone.saturating_add(head.gone))
    }

    /// The number of aggregates.
    pub(super) fn len(&self) -> u64 {
        self.heads.len() as u64
    }

    /// Takes the next event, and tells how it does not follow on the one before.
    pub(super) fn event(&mut self, event: &Envelope) -> Option<String> {
        let head = self.head(&event.stream.id)?;
        let (version, next) = (event.version.get(), head.version + 1);
        let broken = if version > next {
            let missing = if version == next + 1 {
                format!("version {next} is")
            } else {
                format!("versions {next} to {} are", version - 1)
            };
            Some(format!("{missing} missing before it"))
        } else if version < next {
            Some(format!("the aggregate is at version {} already: this is a fork or a copy", head.version))
        } else if event.previous_hash != head.hash {
            Some("the previous event's hash that it names is not that of the version before it".into())
        } else {
            None
        };
        head.present += u64::from(version > head.erased);
        (head.version, head.hash) = (version, event.hash);
        broken
    }

    /// Takes the word that an aggregate was erased up to a version. Only one that is sealed explains that events are gone: anybody
    /// can write the others.
    pub(super) fn erased(&mut self, erased: &Envelope, is_sealed: bool) -> Option<String> {
        let head = self.head(&erased.stream.id)?;
        let version = erased.version.get();
        let wrong = head.version > version
            || head.version == version && head.hash != erased.previous_hash
            || version <= head.erased;
        let missing = version.saturating_sub(head.erased).saturating_sub(head.present);
        let gone = head.gone.saturating_add(if is_sealed { missing } else { 0 });
        *head = Head { version, hash: erased.previous_hash, erased: version, present: 0, gone };
        wrong.then(|| "the aggregate's last event is not the one up to which it is said to be erased".into())
    }

    fn head(&mut self, id: &AggregateKey) -> Option<&mut Head> {
        if !self.part.has(id) {
            return None;
        }
        while self.heads.len() >= self.heads_max && !self.heads.contains_key(id) {
            let Part { of, rest } = self.part;
            self.part = Part { of: 2 * of, rest };
            self.left.push(Part { of: 2 * of, rest: rest + of });
            self.heads.retain(|id, _| self.part.has(id));
            if !self.part.has(id) {
                return None;
            }
        }
        Some(self.heads.entry(id.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{StreamId, Version};

    fn event(id: &str, version: u64, previous: u8, hash: u8) -> Envelope {
        let id = AggregateKey::new(id).unwrap();
        Envelope {
            context: "test".into(),
            stream: StreamId { category: "counter".into(), id },
            version: Version::new(version),
            event_id: uuid::Uuid::nil().into(),
            event_type: "added".into(),
            schema_version: 1,
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            occurred_at: chrono::DateTime::UNIX_EPOCH,
            command_id: crate::CommandId::new("c").unwrap(),
            command_hash: crate::CommandHash::default(),
            correlation_id: crate::CorrelationId::new("c").unwrap(),
            causation_id: None,
            actor: None,
            traceparent: None,
            content_type: "application/json".into(),
            payload: "{}".into(),
            previous_hash: EventHash([previous; 32]),
            hash: EventHash([hash; 32]),
        }
    }

    /// What a chain that has taken the first two events of `a` says of the next one.
    fn next(next: Envelope) -> Option<String> {
        let mut chain = Chain::new(Part::ALL, 10);
        assert_eq!(chain.event(&event("a", 1, 0, 1)), None);
        assert_eq!(chain.event(&event("b", 1, 0, 7)), None);
        assert_eq!(chain.event(&event("a", 2, 1, 2)), None);
        chain.event(&next)
    }

    #[test]
    fn each_break_is_told_by_itself() {
        assert_eq!(next(event("a", 3, 2, 3)), None);
        assert_eq!(next(event("b", 2, 7, 8)), None);
        let told = |event| next(event).expect("it does not follow");
        insta::assert_snapshot!(told(event("a", 4, 2, 3)), @"version 3 is missing before it");
        insta::assert_snapshot!(told(event("a", 6, 2, 3)), @"versions 3 to 5 are missing before it");
        insta::assert_snapshot!(told(event("a", 2, 1, 3)), @"the aggregate is at version 2 already: this is a fork or a copy");
        insta::assert_snapshot!(told(event("a", 3, 1, 3)), @"the previous event's hash that it names is not that of the version before it");
        insta::assert_snapshot!(told(event("c", 1, 1, 3)), @"the previous event's hash that it names is not that of the version before it");
    }

    /// What was counted of a part that is left for later is counted then.
    #[test]
    fn erasures_are_counted_once_whatever_memory_there_is() {
        for heads_max in [1, 2, 3, 100] {
            let (mut left, mut gone) = (vec![Part::ALL], 0);
            while let Some(part) = left.pop() {
                let mut chain = Chain::new(part, heads_max);
                for id in 0..20_u64 {
                    assert_eq!(chain.erased(&event(&id.to_string(), id + 1, 7, 9), true), None);
                }
                gone += chain.gone();
                left.append(&mut chain.left);
            }
            assert_eq!(gone, (1..=20).sum::<u64>(), "with {heads_max} heads");
        }
    }

    #[test]
    fn an_erasure_names_the_last_event() {
        let erased = |version, last| {
            let mut chain = Chain::new(Part::ALL, 10);
            assert_eq!(chain.event(&event("a", 1, 0, 1)), None);
            assert_eq!(chain.event(&event("a", 2, 1, 2)), None);
            let wrong = chain.erased(&event("a", version, last, 9), true);
            (wrong.is_some(), chain.gone())
        };
        assert_eq!(erased(2, 2), (false, 0), "both are there still");
        assert_eq!(erased(5, 5), (false, 3), "three are gone");
        assert_eq!(erased(2, 1), (true, 0), "another hash");
        assert_eq!(erased(1, 1), (true, 0), "it has a later one");
        // Once more: only what came after the first time is gone.
        let mut chain = Chain::new(Part::ALL, 10);
        assert_eq!(chain.erased(&event("a", 5, 5, 6), true), None);
        assert_eq!(chain.event(&event("a", 6, 5, 7)), None);
        assert_eq!(chain.erased(&event("a", 8, 8, 9), true), None);
        assert_eq!(chain.gone(), 7);
        assert!(chain.erased(&event("a", 8, 8, 9), true).is_some(), "twice the same");
        // Four of the largest there are: the sum ends somewhere.
        for id in ["b", "c", "d", "e"] {
            assert_eq!(chain.erased(&event(id, 1 << 62, 1, 1), true), None);
        }
        assert_eq!(chain.gone(), u64::MAX);
        // One that nobody sealed explains nothing.
        let mut chain = Chain::new(Part::ALL, 10);
        assert_eq!(chain.erased(&event("a", 5, 5, 6), false), None);
        assert_eq!(chain.gone(), 0);
    }
}
