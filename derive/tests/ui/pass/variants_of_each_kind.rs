#![deny(warnings)]
use es_core::Event;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened")]
    Opened { owner: String, limit: Option<u64> },
    #[event(name = "deposited", version = 2)]
    Deposited(u64),
    #[event(name = "audited", version = 0x10u32)]
    Audited {},
    #[event(version = 4_294_967_295, name = r"account.closed-2_x",)]
    Closed,
}

fn main() {
    let all = [
        AccountEvent::Opened { owner: "Ada".into(), limit: None },
        AccountEvent::Deposited(5),
        AccountEvent::Audited {},
        AccountEvent::Closed,
    ];
    for (index, event) in all.iter().enumerate() {
        assert_eq!(event.type_index(), index);
    }
    let versions: Vec<_> = AccountEvent::TYPES.iter().map(|stored| stored.schema_version).collect();
    assert_eq!(versions, [1, 2, 16, u32::MAX]);
    assert_eq!(AccountEvent::TYPES[3].name, "account.closed-2_x");
}
