//! What the simulated processes do: tanks, in two releases. What a command gives is said once more in `checker.rs`.

use serde::{Deserialize, Serialize};

use crate::{Aggregate, Apply, Command, Context, Event, Handle};

/// Filling a tank over this panics in `apply`.
pub(super) const BRIM: u64 = 9;

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Dry {
    #[error("there are {level}")]
    TooLittle { level: u64 },
}

/// Unwinds as a panic does, but prints nothing.
fn panics(why: &'static str) {
    std::panic::resume_unwind(Box::new(why));
}

pub(crate) mod newer {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
    #[aggregate(context = "test", name = "tank", id = String, command = Ask, event = Became, error = Dry)]
    pub(crate) struct Tank {
        level: u64,
        steps: u64,
        /// Since this release.
        #[serde(default)]
        marks: u64,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    pub(crate) enum Ask {
        Pour {
            n: u64,
            times: u64,
        },
        Drain {
            n: u64,
        },
        Look,
        /// Panics in `handle` where the level is odd.
        Shake,
        /// Panics in `apply` of its second event where the tank would be over the brim.
        Fill {
            n: u64,
        },
        Describe {
            bytes: usize,
        },
        Label {
            n: u64,
            /// Since this release.
            #[serde(default)]
            mark: u64,
        },
        /// Since this release.
        Mark {
            n: u64,
        },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "tank")]
    pub(crate) enum Became {
        #[event(name = "poured")]
        Poured { n: u64 },
        #[event(name = "drained")]
        Drained { n: u64 },
        #[event(name = "filled")]
        Filled { n: u64 },
        #[event(name = "described")]
        Described { text: String },
        #[event(name = "labelled")]
        Labelled {
            n: u64,
            #[serde(default)]
            mark: u64,
        },
        #[event(name = "marked")]
        Marked { n: u64 },
    }

    impl Handle for Tank {
        fn handle(&self, ask: Ask, _: &Context) -> Result<Vec<Became>, Dry> {
            Ok(match ask {
                Ask::Pour { n, times } => (0..times).map(|_| Became::Poured { n }).collect(),
                Ask::Drain { n } if n <= self.level => vec![Became::Drained { n }],
                Ask::Drain { .. } => return Err(Dry::TooLittle { level: self.level }),
                Ask::Look => vec![],
                Ask::Shake => {
                    if self.level % 2 == 1 {
                        panics("it spills");
                    }
                    vec![Became::Poured { n: 1 }]
                }
                Ask::Fill { n } => vec![Became::Poured { n: 1 }, Became::Filled { n }],
                Ask::Describe { bytes } => vec![Became::Described { text: "x".repeat(bytes) }],
                Ask::Label { n, mark } => vec![Became::Labelled { n, mark }],
                Ask::Mark { n } => vec![Became::Marked { n }],
            })
        }
    }

    impl Apply for Tank {
        fn apply(&mut self, event: &Became) {
            self.steps += 1;
            match event {
                Became::Poured { n } => self.level += n,
                Became::Drained { n } => self.level -= n,
                Became::Filled { n } => {
                    if self.level + n > BRIM {
                        panics("it is over the brim");
                    }
                    self.level += n;
                }
                Became::Described { .. } => {}
                Became::Labelled { n, mark } => {
                    self.level += n;
                    self.marks += mark;
                }
                Became::Marked { n } => {
                    self.level += n;
                    self.marks += 1;
                }
            }
        }
    }
}

/// The release before: without marks.
pub(crate) mod older {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
    #[aggregate(context = "test", name = "tank", id = String, command = Ask, event = Became, error = Dry)]
    pub(crate) struct Tank {
        level: u64,
        steps: u64,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    pub(crate) enum Ask {
        Pour { n: u64, times: u64 },
        Drain { n: u64 },
        Look,
        Shake,
        Fill { n: u64 },
        Describe { bytes: usize },
        Label { n: u64 },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "tank")]
    pub(crate) enum Became {
        #[event(name = "poured")]
        Poured { n: u64 },
        #[event(name = "drained")]
        Drained { n: u64 },
        #[event(name = "filled")]
        Filled { n: u64 },
        #[event(name = "described")]
        Described { text: String },
        #[event(name = "labelled")]
        Labelled { n: u64 },
    }

    impl Ask {
        /// The command as this release knows it, if it does.
        pub(crate) fn of(ask: &super::newer::Ask) -> Option<Self> {
            use super::newer::Ask as Newer;
            Some(match *ask {
                Newer::Pour { n, times } => Self::Pour { n, times },
                Newer::Drain { n } => Self::Drain { n },
                Newer::Look => Self::Look,
                Newer::Shake => Self::Shake,
                Newer::Fill { n } => Self::Fill { n },
                Newer::Describe { bytes } => Self::Describe { bytes },
                Newer::Label { n, mark: 0 } => Self::Label { n },
                Newer::Label { .. } | Newer::Mark { .. } => return None,
            })
        }
    }

    impl Handle for Tank {
        fn handle(&self, ask: Ask, _: &Context) -> Result<Vec<Became>, Dry> {
            Ok(match ask {
                Ask::Pour { n, times } => (0..times).map(|_| Became::Poured { n }).collect(),
                Ask::Drain { n } if n <= self.level => vec![Became::Drained { n }],
                Ask::Drain { .. } => return Err(Dry::TooLittle { level: self.level }),
                Ask::Look => vec![],
                Ask::Shake => {
                    if self.level % 2 == 1 {
                        panics("it spills");
                    }
                    vec![Became::Poured { n: 1 }]
                }
                Ask::Fill { n } => vec![Became::Poured { n: 1 }, Became::Filled { n }],
                Ask::Describe { bytes } => vec![Became::Described { text: "x".repeat(bytes) }],
                Ask::Label { n } => vec![Became::Labelled { n }],
            })
        }
    }

    impl Apply for Tank {
        fn apply(&mut self, event: &Became) {
            self.steps += 1;
            match event {
                Became::Poured { n } | Became::Labelled { n } => self.level += n,
                Became::Drained { n } => self.level -= n,
                Became::Filled { n } => {
                    if self.level + n > BRIM {
                        panics("it is over the brim");
                    }
                    self.level += n;
                }
                Became::Described { .. } => {}
            }
        }
    }
}
