//! Sharing: each worker of a projection, in whatever process, holds some of its places.
//!
//! There is no leader. Each worker raises its beat, looks at the others' and at who holds what, and brings what it holds
//! in line with its share: it gives back what is too much, and takes what is free. The fence at each checkpoint, not what
//! the workers believe of each other, keeps the rows right.
//!
//! The beat is raised beside the batches, so that a long one does not make a worker look dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::leftovers::Leftovers;
use super::pause::Pause;
use super::state::{Board, Origin, StandsBy};
use crate::builds::{self, Build};
use crate::checkpoint::{self, Standing};
use crate::error::Error;
use crate::parked;
use crate::sql::Database;
use crate::workers::{self, Member};

/// How often a worker raises its beat, and looks at the others.
const BEAT: Duration = Duration::from_secs(1);
/// How often it looks at the checkpoints while somebody waits for those of others.
const LOOK_SOON: Duration = Duration::from_millis(50);
/// The longest that one look may take: a statement on a dead connection would wait for minutes.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// What one look may take where the silence is shorter.
const LOOK_MIN: Duration = Duration::from_secs(2);
/// The longest that a worker keeps away which gets nothing done.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// What a worker last saw of the others.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) standing: Option<Standing>,
    /// Those that are there, this one included.
    present: Vec<Member>,
    gone: Vec<Member>,
    /// What it worked on is not the read model any more.
    pub(super) replaced: bool,
    /// Nothing of its own gets done: it keeps away from what others hold.
    pub(super) ailing: bool,
}

/// What a worker does to have its share.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) give: Vec<usize>,
    /// What is free, and what a worker that is gone holds.
    pub(super) take: Vec<(Option<Member>, Vec<usize>)>,
}

impl View {
    fn has_free(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.holders.iter().any(Option::is_none))
    }

    /// Those that share the places: whoever stands in does so only among others that do.
    fn sharers(&self) -> Vec<&Member> {
        let shares = |member: &&Member| member.shares;
        let regular = self.present.iter().filter(shares).any(|member| !member.stands_in);
        self.present.iter().filter(shares).filter(|member| !(regular && member.stands_in)).collect()
    }

    /// How many places this worker is to hold.
    fn quota(&self, me: &str, places: usize) -> usize {
        let sharing = self.sharers();
        let Some(rank) = sharing.iter().position(|member| *member.name == *me) else { return 0 };
        places / sharing.len() + usize::from(rank < places % sharing.len())
    }

    /// The worker that holds a place though it is gone, or left no trace but this.
    fn gone(&self, holder: &Arc<str>) -> Option<Member> {
        let of_name = |members: &[Member]| members.iter().find(|member| member.name == *holder).cloned();
        match (of_name(&self.gone), of_name(&self.present)) {
            (Some(gone), _) => Some(gone),
            (None, Some(_)) => None,
            (None, None) => Some(Member { name: holder.clone(), beat: -1, shares: false, stands_in: false }),
        }
    }

    /// What this worker, which holds some of the places, is to do.
    pub(super) fn plan(&self, standing: &Standing, held: &[bool], me: &str) -> Plan {
        let mut plan = Plan::default();
        let mine: Vec<_> = (0..held.len()).filter(|&place| held[place]).collect();
        let quota = self.quota(me, held.len());
        if mine.len() > quota {
            plan.give = mine[quota..].to_vec();
            return plan;
        }
        // A row is struck though nothing is taken with it.
        plan.take = self.gone.iter().map(|gone| (Some(gone.clone()), Vec::new())).collect();
        let mut missing = quota - mine.len();
        for (place, holder) in standing.holders.iter().enumerate() {
            let from = match holder {
                None => None,
                Some(holder) => match self.gone(holder) {
                    None => continue,
                    gone => gone,
                },
            };
            if missing == 0 {
                break;
            }
            missing -= 1;
            match plan.take.iter_mut().find(|(other, _)| *other == from) {
                Some((_, places)) => places.push(place),
                None => plan.take.push((from, vec![place])),
            }
        }
        plan
    }
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.give.is_empty() && self.take.is_empty()
    }
}

/// A task that raises the worker's beat, shows what others commit, and tells when there may be something to do.
#[derive(Debug)]
pub(super) struct Heartbeat {
    pub(super) view: watch::Receiver<View>,
    task: JoinSet<()>,
}

impl Heartbeat {
    /// Begins with a look, so that a worker that starts knows of the others.
    pub(super) async fn start(
        database: &Database,
        build: &Build,
        board: &Arc<Board>,
        member: &Member,
        silence_max: Option<Duration>,
    ) -> Result<Self, Error> {
        let mut watch = Watch {
            database: database.clone(),
            build: build.clone(),
            board: board.clone(),
            member: member.clone(),
            silence_max,
            pace: silence_max.map_or(BEAT, |silence| BEAT.min(silence / 4)),
            heard: HashMap::new(),
            heard_at: None,
            away: Away::default(),
            leftovers: Leftovers::default(),
            view: View::default(),
        };
        if silence_max.is_some() {
            watch.look_at_others().await?;
        }
        let (sender, view) = watch::channel(watch.view.clone());
        let mut task = JoinSet::new();
        task.spawn(watch.run(sender));
        Ok(Self { view, task })
    }

    /// Waits until there is something new to see. False when that will never be.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn changed(&mut self) -> bool {
        self.view.changed().await.is_ok()
    }

    /// Raises the beat no more.
    pub(super) async fn stop(&mut self) {
        self.task.shutdown().await;
    }
}

struct Watch {
    database: Database,
    build: Build,
    board: Arc<Board>,
    member: Member,
    /// None for a worker that does not share: it looks at nobody.
    silence_max: Option<Duration>,
    /// How often it raises its beat.
    pace: Duration,
    /// What was heard last of each other worker, and how long ago.
    heard: HashMap<Arc<str>, Heard>,
    heard_at: Option<Duration>,
    away: Away,
    leftovers: Leftovers,
    view: View,
}

/// How a worker that gets nothing done keeps away from its share: others may get it done, and each time that it comes back
/// in vain they have to wait.
#[derive(Debug, Default)]
struct Away {
    /// How many batches it had committed when that was last looked at.
    settled: u64,
    /// How long it last kept away.
    pause: Duration,
    until: Option<Duration>,
}

impl Away {
    /// Whether it keeps away now.
    fn keeps(&mut self, board: &Board, silence: Duration) -> bool {
        let own = |origin| matches!(origin, Origin::Commit | Origin::Source(_));
        let (settled, trouble, now) = (board.settled(), board.in_trouble_for(own), board.time().now());
        if settled != self.settled && trouble.is_zero() {
            *self = Self { settled, ..Self::default() };
        }
        // It is well again before anybody has taken what it holds.
        if trouble.is_zero() && board.holds_any() {
            self.until = None;
        }
        if trouble > silence && self.until.is_none_or(|until| until <= now) {
            self.pause = (self.pause * 2).clamp(silence.min(AWAY_MAX), AWAY_MAX);
            self.until = Some(now + self.pause);
        }
        self.until.is_some_and(|until| until > now)
    }
}

/// The last signs of life of a worker.
#[derive(Debug)]
struct Heard {
    beat: i64,
    /// Where its places stand.
    at: Vec<(usize, u64)>,
    silent: Duration,
}

impl Watch {
    async fn run(mut self, sender: watch::Sender<View>) {
        let projection = self.board.projection().clone();
        let board = self.board.clone();
        let mut pause = Pause::new("looking at the other workers");
        let mut next_beat = Instant::now() + self.pace;
        loop {
            let asked = async {
                tokio::time::sleep(LOOK_SOON).await;
                board.asked_for_others().await;
            };
            let beats = tokio::select! {
                () = tokio::time::sleep_until(next_beat) => true,
                () = asked => false,
            };
            let look_max = self.silence_max.map_or(LOOK_MAX, |silence| silence.clamp(LOOK_MIN, LOOK_MAX));
            let looked = match tokio::time::timeout(look_max, self.look(beats)).await {
                Ok(looked) => looked,
                Err(_) => {
                    Err(self.database.unavailable("looking at the other workers", format!("no answer in {look_max:?}")))
                }
            };
            match looked {
                Ok(()) => {
                    pause.reset();
                    board.well(Origin::Heartbeat);
                    if beats {
                        let now = board.time().now();
                        self.leftovers.look(&self.database, &self.build, self.silence_max, self.pace, now).await;
                    }
                }
                Err(error) => {
                    // Whom it did not look at, it did not hear.
                    self.heard_at = None;
                    self.leftovers.forget();
                    let error = Arc::new(error);
                    board.trouble(Origin::Heartbeat, error.clone());
                    pause.grow(&projection, &error);
                }
            }
            if beats {
                next_beat = Instant::now() + self.pace;
            }
            // Whoever waits need not wait for the next beat until what is free is taken.
            if self.silence_max.is_some() && (beats || self.view.has_free()) {
                sender.send_replace(self.view.clone());
            }
        }
    }

    async fn look(&mut self, beats: bool) -> Result<(), Error> {
        if beats {
            self.beat().await?;
        }
        match self.silence_max {
            None => Ok(()),
            Some(_) if beats => self.look_at_others().await,
            Some(_) => self.look_at_checkpoints().await,
        }
    }

    /// Says that this worker is there: unless nothing of its own gets done for so long that others do better.
    async fn beat(&mut self) -> Result<(), Error> {
        if let Some(silence) = self.silence_max {
            // Its look at the others fails where the database is away: that need not be so for all of them.
            let blind = self.board.in_trouble_for(|origin| origin == Origin::Heartbeat) > silence;
            // Where nobody else is there, nobody would do better.
            let others = self.view.sharers().iter().any(|other| other.name != self.member.name);
            self.view.ailing = (self.away.keeps(&self.board, silence) || blind) && others;
        }
        if self.view.ailing {
            return Ok(());
        }
        self.member.beat += 1;
        let mut tx = self.database.begin().await?;
        workers::beat(&mut tx, &self.build, &self.member).await?;
        tx.commit().await
    }

    async fn look_at_others(&mut self) -> Result<(), Error> {
        let live = builds::look_for_live(&self.database, &self.build.projection).await?;
        self.view.replaced = live.as_ref() != Some(&self.build);
        if self.view.replaced {
            return Ok(());
        }
        let members = workers::of(&self.database, &self.build).await?;
        self.look_at_checkpoints().await?;
        self.listen(members);
        let streams = match self.board.holds_all() {
            true => Vec::new(),
            false => parked::streams(&self.database, &self.build).await?,
        };
        self.board.all_parked(&streams);
        self.tell();
        Ok(())
    }

    async fn look_at_checkpoints(&mut self) -> Result<(), Error> {
        if self.view.replaced {
            return Ok(());
        }
        let standing = checkpoint::look(&self.database, &self.build, self.board.places()).await?;
        self.board.others(&standing.saved);
        self.view.standing = Some(standing);
        Ok(())
    }

    /// Notes of whom nothing was heard for long. Time in which this worker did not look, or could not raise its own beat,
    /// does not count: then the others may not have been able to, either.
    fn listen(&mut self, members: Vec<Member>) {
        let Some(standing) = &self.view.standing else { return };
        let first = self.heard_at.is_none() && self.heard.is_empty();
        let now = self.board.time().now();
        let passed = |before| now.saturating_sub(before).min(2 * self.pace);
        let passed = self.heard_at.replace(now).map_or(Duration::ZERO, passed);
        let silence_max = self.silence_max.unwrap_or(Duration::MAX);
        let mut heard = HashMap::new();
        (self.view.present, self.view.gone) = (Vec::new(), Vec::new());
        for member in members {
            let at = standing.of(&member.name);
            let silent = match self.heard.remove(&member.name) {
                Some(before) if before.beat == member.beat && before.at == at => before.silent.saturating_add(passed),
                // One process has a name at a time: this one's predecessor is gone.
                None if first && is_predecessor(&member.name, &self.member.name) => silence_max,
                _ => Duration::ZERO,
            };
            heard.insert(member.name.clone(), Heard { beat: member.beat, at, silent });
            let gone = silent >= silence_max && member.name != self.member.name;
            if gone { &mut self.view.gone } else { &mut self.view.present }.push(member);
        }
        self.heard = heard;
    }

    /// Shows why there is nothing to do, where that is so.
    fn tell(&self) {
        let Some(standing) = &self.view.standing else { return };
        let (sharers, partitions) = (self.view.sharers(), standing.saved.len());
        let (workers, shares) = (sharers.len(), sharers.iter().any(|sharer| sharer.name == self.member.name));
        let others = || standing.holders.iter().flatten().find(|holder| **holder != self.member.name);
        let why = match self.view.quota(&self.member.name, partitions) {
            // It only looks at a build of another version.
            _ if !self.member.shares => Some(StandsBy::OtherVersion { version: self.build.version }),
            0 if shares && workers > partitions => Some(StandsBy::Spare { workers, partitions }),
            _ => others().map(|holder| StandsBy::Others { holder: holder.clone() }),
        };
        let is_spare = matches!(why, Some(StandsBy::Spare { .. }));
        if self.board.stands_by(why) && is_spare {
            let projection = self.board.projection();
            tracing::warn!(%projection, workers, partitions, "more workers than partitions: this one has nothing to do");
        }
    }
}

/// Whether a worker's name is another's, save for what is made up for each start.
fn is_predecessor(one: &str, of: &str) -> bool {
    let given = |name: &str| name.rsplit_once(" (").map(|(given, _)| given.to_owned());
    one != of && given(one).is_some() && given(one) == given(of)
}

#[cfg(test)]
mod tests {
    use super::super::time::Time;
    use super::*;

    /// Shows: who fails keeps away for longer each time that it comes back in vain, and comes at once after a success.
    #[tokio::test(start_paused = true)]
    async fn who_fails_again_keeps_away_for_longer() {
        let (board, mut away) = (Board::new("balances".into(), Arc::from([]), Time::of(None)), Away::default());
        let silence = Duration::from_secs(5);
        let fails = || board.trouble(Origin::Commit, Arc::new(Error::invalid("made to fail")));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            fails();
            tokio::time::sleep(silence).await;
            assert!(!away.keeps(&board, silence), "it may still succeed");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let began = Instant::now();
            assert!(away.keeps(&board, silence));
            board.reset(&[], &[], 0); // it lost what it held
            while away.keeps(&board, silence) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            pauses.push(began.elapsed().as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        fails();
        tokio::time::sleep(silence * 2).await;
        assert!(away.keeps(&board, silence));
        board.reset(&[], &[], 0);
        board.moved(true, |_| {});
        assert!(!away.keeps(&board, silence), "a batch was settled");
        board.trouble(Origin::Events, Arc::new(Error::invalid("made to fail")));
        tokio::time::sleep(silence * 2).await;
        assert!(!away.keeps(&board, silence), "what fails on events is parked in the end");
    }

    fn member(name: &str) -> Member {
        Member { name: name.into(), beat: 1, shares: true, stands_in: false }
    }

    fn view(present: &[&str], gone: &[&str]) -> View {
        let members = |names: &[&str]| names.iter().map(|name| member(name)).collect();
        View { present: members(present), gone: members(gone), ..View::default() }
    }

    /// Shows: whoever knows the same workers agrees on shares that make up the whole, and differ by one at most.
    #[test]
    fn quotas_make_up_the_whole() {
        let names = ["a", "b", "c", "d", "e"];
        for workers in 1..=names.len() {
            for places in 0..20 {
                let view = view(&names[..workers], &["z"]);
                let quotas: Vec<_> = names[..workers].iter().map(|name| view.quota(name, places)).collect();
                assert_eq!(quotas.iter().sum::<usize>(), places);
                assert!(quotas[0] - quotas[workers - 1] <= 1 && quotas.is_sorted_by(|one, next| one >= next));
            }
        }
        assert_eq!(view(&["a"], &[]).quota("b", 8), 0, "one that has not raised its beat yet");
    }

    /// Shows: who stands in holds something only as long as nobody else shares.
    #[test]
    fn who_stands_in_makes_way() {
        let mut both = view(&["a", "b", "c"], &[]);
        both.present[0].stands_in = true;
        assert_eq!(["a", "b", "c"].map(|name| both.quota(name, 8)), [0, 4, 4]);
        both.present.iter_mut().for_each(|member| member.stands_in = true);
        assert_eq!(["a", "b", "c"].map(|name| both.quota(name, 8)), [3, 3, 2]);
    }

    #[test]
    fn a_plan_gives_what_is_too_much_and_takes_what_nobody_holds() {
        let plan = |view: &View, holders: &[Option<&str>], me: &str| {
            let held: Vec<_> = holders.iter().map(|holder| *holder == Some(me)).collect();
            view.plan(&Standing::of_holders(holders), &held, me)
        };
        let (a, b, none) = (Some("a"), Some("b"), None);
        let both = view(&["a", "b"], &[]);
        assert_eq!(plan(&both, &[a, a, a, a], "a"), Plan { give: vec![2, 3], take: vec![] });
        assert_eq!(plan(&both, &[a, a, none, b], "b"), Plan { give: vec![], take: vec![(None, vec![2])] });
        assert!(plan(&both, &[a, a, b, b], "b").is_empty());
        let taken = plan(&view(&["a"], &["b"]), &[a, none, b, b], "a").take;
        assert_eq!(taken, [(Some(member("b")), vec![2, 3]), (None, vec![1])]);
        // Who holds a place and is nowhere else has been struck, or is of an older release.
        let taken = plan(&view(&["a"], &[]), &[a, b], "a").take;
        assert_eq!(taken, [(Some(Member { name: "b".into(), beat: -1, shares: false, stands_in: false }), vec![1])]);
        // Who takes all, and is there, keeps all.
        let mut takes_all = both.clone();
        takes_all.present[1].shares = false;
        assert!(plan(&takes_all, &[b, b], "a").is_empty());
    }

    #[test]
    fn a_predecessor_is_who_had_the_same_name() {
        assert!(is_predecessor("bank 1 (aaaa)", "bank 1 (bbbb)"));
        assert!(!is_predecessor("bank 1 (bbbb)", "bank 1 (bbbb)"));
        assert!(!is_predecessor("bank 2 (aaaa)", "bank 1 (bbbb)"));
        assert!(!is_predecessor("bank", "bank 1 (bbbb)"));
    }
}
