#![deny(warnings, unreachable_pub)]
mod bank {
    pub(crate) mod account {
        use serde::{Deserialize, Serialize};

        #[derive(Debug, Clone, Serialize, Deserialize, es_core::Event)]
        #[event(aggregate = "account")]
        pub(in crate::bank) enum AccountEvent {
            #[event(name = "opened")]
            Opened { by: super::Owner },
        }

        #[derive(Debug, Clone, Serialize, Deserialize, es_core::Command)]
        pub(super) enum AccountCommand {
            Open { by: super::Owner },
        }

        #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
        #[error("the account is closed")]
        pub(super) struct AccountClosed;
    }

    #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, es_core::Shape)]
    struct Owner {
        name: String,
    }

    #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, es_core::Aggregate)]
    #[aggregate(
        context = "bank",
        name = "account",
        id = u64,
        command = self::account::AccountCommand,
        event = account::AccountEvent,
        error = account::AccountClosed
    )]
    struct Account {
        owner: Option<Owner>,
    }

    pub(crate) fn check() {
        use es_core::{Command, Event};
        let by = Owner { name: "Ada".into() };
        assert_eq!(account::AccountEvent::Opened { by: by.clone() }.type_index(), 0);
        assert_eq!(account::AccountCommand::Open { by: by.clone() }.type_index(), 0);
        assert_eq!(account::AccountEvent::TYPES[0].fields[0].rust_type, "super::Owner");
        assert_eq!(es_core::shape::text::<Account>(), "#0{owner: option<#1{name: text}>}");
        assert!(Account { owner: Some(by) }.owner.is_some_and(|owner| owner.name == "Ada"));
    }
}

fn main() {
    bank::check();
}
