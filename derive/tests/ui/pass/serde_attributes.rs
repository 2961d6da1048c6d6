#![deny(warnings)]
use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    #[serde(rename(serialize = "o", deserialize = "O"), alias = "begun")]
    Opened {
        #[serde(rename = "holder", default)]
        owner: String,
        #[serde(skip, default = "limit")]
        over_draft: u64,
    },
    #[event(name = "interned")]
    Interned {
        #[serde(skip)]
        kind: &'static str,
    },
}

fn limit() -> u64 {
    5
}

fn main() {
    let opened = AccountEvent::Opened { owner: "Ada".into(), over_draft: 1 };
    let (_, payload) = es_core::codec::encode_event::<es_core::Json, _>(&opened).unwrap();
    assert_eq!(payload, br#"{"holder":"Ada"}"#);
    let read: AccountEvent = es_core::codec::decode_event::<es_core::Json, _>("opened", 1, b"{}").unwrap();
    assert!(matches!(read, AccountEvent::Opened { owner, over_draft: 5 } if owner.is_empty()));
    assert_eq!(AccountEvent::Interned { kind: "" }.type_index(), 1);
}
