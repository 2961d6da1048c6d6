//! Groups in memory, for tests of several processes in one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::{Change, Group, GroupSpec, Member, Place, Tenures};
use crate::log::memory::MemoryLog;
use crate::log::{AppendError, Log, LogError, LogErrorKind, Record};

/// Shares partitions out evenly, and moves as few as it can.
#[derive(Debug, Clone)]
pub struct MemoryGroup {
    log: MemoryLog,
    state: Arc<Mutex<State>>,
    silent: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    next_member: u64,
    groups: BTreeMap<String, Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    members: BTreeMap<u64, Seat>,
    /// Members whose session ended, with what they had, who do not know it yet.
    absent: BTreeMap<u64, (Vec<u32>, Seat)>,
    /// Who has each partition, and whether it was asked to give it back.
    partitions: Vec<Option<(u64, Asked)>>,
    committed: BTreeMap<u32, Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Not,
    ToReleaseIt,
}

#[derive(Debug)]
struct Seat {
    node: String,
    changes: mpsc::UnboundedSender<Result<Change, LogError>>,
    tenures: Arc<Tenures>,
}

impl Seat {
    fn tell(&self, change: Change) {
        self.tenures.changed(&change);
        let _ = self.changes.send(Ok(change)); // nobody listens: the member is going
    }
}

impl MemoryGroup {
    /// Groups whose commands and replies are topics of this log.
    pub fn new(log: MemoryLog) -> Self {
        Self { log, state: Arc::default(), silent: watch::Sender::new(false) }
    }

    /// Ends a member's session, as when it is not heard of for too long: the others get its partitions at once, and it
    /// does not know before [`MemoryGroup::notice`].
    pub fn expel(&self, group: &str, node: &str) {
        let mut state = self.lock();
        let Some(shares) = state.groups.get_mut(group) else { return };
        let found = shares.members.iter().find(|(_, seat)| seat.node == node).map(|(id, _)| *id);
        if let Some((id, lost, seat)) = found.and_then(|id| shares.remove(id)) {
            shares.absent.insert(id, (lost, seat));
        }
        shares.balance();
    }

    /// Lets the expelled notice it, and join again.
    pub fn notice(&self, group: &str) {
        let mut state = self.lock();
        let Some(shares) = state.groups.get_mut(group) else { return };
        for (id, (lost, seat)) in std::mem::take(&mut shares.absent) {
            seat.tell(Change::Lost(lost));
            shares.members.insert(id, seat);
        }
        shares.balance();
    }

    /// Forgets every committed offset, as a group does that nobody was in for long.
    pub fn forget_offsets(&self, group: &str) {
        if let Some(shares) = self.lock().groups.get_mut(group) {
            shares.committed.clear();
        }
    }

    /// The offset that was last committed for a partition.
    pub fn offset(&self, group: &str, partition: u32) -> Option<u64> {
        Some(self.lock().groups.get(group)?.committed.get(&partition)?.offset)
    }

    /// Lets whoever asks the group something wait for as long as this is `true`.
    pub fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// The node that each partition is assigned to.
    pub fn assigned(&self, group: &str) -> Vec<Option<String>> {
        let state = self.lock();
        let Some(shares) = state.groups.get(group) else { return Vec::new() };
        let node = |held: &Option<(u64, Asked)>| held.and_then(|(id, _)| Some(shares.members.get(&id)?.node.clone()));
        shares.partitions.iter().map(node).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shares {
    /// Whether a partition is a member's, if only until it gives it back.
    fn has(&self, id: u64, partition: u32) -> bool {
        let held = self.partitions.get(partition as usize).copied().flatten();
        self.members.contains_key(&id) && held.is_some_and(|(holder, _)| holder == id)
    }

    /// Takes a member's seat and partitions.
    fn remove(&mut self, id: u64) -> Option<(u64, Vec<u32>, Seat)> {
        self.absent.remove(&id);
        let seat = self.members.remove(&id)?;
        let mut lost = Vec::new();
        for (partition, held) in (0..).zip(&mut self.partitions) {
            if held.is_some_and(|(holder, _)| holder == id) {
                *held = None;
                lost.push(partition);
            }
        }
        Some((id, lost, seat))
    }

    /// Gives free partitions to who has the fewest, and asks who has too many to give some back.
    fn balance(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let mut counts: BTreeMap<u64, usize> = self.members.keys().map(|id| (*id, 0)).collect();
        for (holder, asked) in self.partitions.iter().flatten() {
            if let Some(count) = counts.get_mut(holder).filter(|_| *asked == Asked::Not) {
                *count += 1;
            }
        }
        let mut assigned: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (partition, held) in (0..).zip(&mut self.partitions) {
            if held.is_none() {
                let (id, count) = counts.iter_mut().min_by_key(|(_, count)| **count).expect("there are members");
                *held = Some((*id, Asked::Not));
                *count += 1;
                assigned.entry(*id).or_default().push(partition);
            }
        }
        for (id, partitions) in assigned {
            self.members[&id].tell(Change::Assigned(partitions));
        }
        let most = self.partitions.len().div_ceil(self.members.len());
        for (partition, held) in (0..).zip(&mut self.partitions) {
            let Some((id, asked)) = held else { continue };
            let Some(count) = counts.get_mut(id).filter(|count| **count > most && *asked == Asked::Not) else {
                continue;
            };
            *count -= 1;
            *asked = Asked::ToReleaseIt;
            self.members[id].tell(Change::Revoked(vec![partition]));
        }
    }
}

#[async_trait]
impl Group for MemoryGroup {
    async fn join(&self, spec: &GroupSpec) -> Result<Arc<dyn Member>, LogError> {
        let (changes, told) = mpsc::unbounded_channel();
        let mut state = self.lock();
        state.next_member += 1;
        let id = state.next_member;
        let shares = state.groups.entry(spec.name.clone()).or_default();
        shares.partitions.resize(spec.partitions as usize, None);
        let namesake = shares.members.iter().find(|(_, seat)| seat.node == spec.node).map(|(id, _)| *id);
        if let Some((_, _, seat)) = namesake.and_then(|id| shares.remove(id)) {
            let message =
                format!("another process joined as node {:?}: give each process a name of its own", seat.node);
            let _ = seat.changes.send(Err(LogError::new(LogErrorKind::Settings, message)));
        }
        let tenures = Arc::new(Tenures::default());
        let seat = Seat { node: spec.node.clone(), changes, tenures: tenures.clone() };
        seat.tell(Change::Assigned(Vec::new()));
        shares.members.insert(id, seat);
        shares.balance();
        let group = spec.name.clone();
        let (state, silent) = (self.state.clone(), self.silent.subscribe());
        Ok(Arc::new(MemoryMember { id, group, state, told: tokio::sync::Mutex::new(told), tenures, silent }))
    }

    async fn send(&self, topic: &str, partition: u32, record: Record) -> Result<(), AppendError> {
        let mut writer = self.log.writer(topic, partition).await.map_err(AppendError::Refused)?;
        writer.append(vec![record]).await.map(drop)
    }
}

#[derive(Debug)]
struct MemoryMember {
    id: u64,
    group: String,
    state: Arc<Mutex<State>>,
    told: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Change, LogError>>>,
    tenures: Arc<Tenures>,
    silent: watch::Receiver<bool>,
}

impl MemoryMember {
    /// Waits while the group is silent.
    async fn spoken(&self) {
        let _ = self.silent.clone().wait_for(|silent| !silent).await; // the group is gone: it has nothing to hide
    }

    fn counts(&self, shares: &Shares, partition: u32) -> bool {
        shares.has(self.id, partition) && self.tenures.is_known(partition)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shares) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        act(state.groups.get_mut(&self.group).expect("a member's group is there"))
    }
}

#[async_trait]
impl Member for MemoryMember {
    async fn next(&self) -> Result<Change, LogError> {
        match self.told.lock().await.recv().await {
            Some(change) => change.inspect(|change| self.tenures.told(change)),
            None => std::future::pending().await, // expelled without a word
        }
    }

    async fn release(&self, partitions: &[u32]) -> Result<(), LogError> {
        self.with(|shares| {
            for partition in partitions {
                let held = &mut shares.partitions[*partition as usize];
                if held.is_some_and(|(holder, _)| holder == self.id) {
                    *held = None;
                }
            }
            shares.balance();
        });
        Ok(())
    }

    async fn committed(&self, partition: u32) -> Result<Option<Place>, LogError> {
        self.spoken().await;
        Ok(self.with(|shares| shares.committed.get(&partition).copied()))
    }

    async fn commit(&self, partition: u32, place: Place) -> Result<bool, LogError> {
        Ok(self.with(|shares| {
            let counts = self.counts(shares, partition);
            if counts {
                shares.committed.insert(partition, place);
            }
            counts
        }))
    }

    async fn confirm(&self, partition: u32) -> Result<bool, LogError> {
        self.spoken().await;
        Ok(self.with(|shares| self.counts(shares, partition)))
    }

    async fn leave(&self) {
        self.with(|shares| {
            shares.remove(self.id);
            shares.balance();
        });
    }
}

impl Drop for MemoryMember {
    /// As a process that ends: the session is over at once, so that tests need not wait for it.
    fn drop(&mut self) {
        self.with(|shares| {
            shares.remove(self.id);
            shares.balance();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member that lost a partition and has it anew may not set back the place that another one committed in between.
    #[tokio::test]
    async fn a_member_that_does_not_know_that_it_was_away_commits_nothing() {
        let group = MemoryGroup::new(MemoryLog::new(1));
        let spec = GroupSpec { name: "g".into(), node: "a".into(), topic: "commands".into(), partitions: 1 };
        let place = |offset| Place { offset, after: None };
        let member = group.join(&spec).await.unwrap();
        assert!(!member.commit(0, place(3)).await.unwrap(), "it was not told yet that it has the partition");
        assert_eq!(member.next().await.unwrap(), Change::Assigned(vec![]));
        assert_eq!(member.next().await.unwrap(), Change::Assigned(vec![0]));
        assert!(member.commit(0, place(5)).await.unwrap());
        group.expel("g", "a");
        assert!(!member.confirm(0).await.unwrap());
        group.notice("g"); // it has the partition anew
        assert!(!member.commit(0, place(4)).await.unwrap());
        assert!(!member.confirm(0).await.unwrap());
        assert_eq!(member.next().await.unwrap(), Change::Lost(vec![0]));
        assert!(!member.commit(0, place(4)).await.unwrap());
        assert_eq!(member.next().await.unwrap(), Change::Assigned(vec![0]));
        assert!(member.confirm(0).await.unwrap());
        assert_eq!(group.offset("g", 0), Some(5));
        assert!(member.commit(0, place(6)).await.unwrap());
    }
}
