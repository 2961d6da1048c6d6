use es_core::Event;

#[derive(Event)]
#[event(aggregate = "account")]
union AccountEvent {
    opened: u8,
}

fn main() {}
