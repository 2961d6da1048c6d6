include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    es_version: u64,
    _note: String,
    größe: u8,
    #[column(name = "es_event_id")]
    event: u64,
    #[column(name = "")]
    nothing: u64,
    #[column(name = text)]
    text: String,
    a_name_of_61_characters_which_is_more_than_a_column_may_have_: u8,
}

fn main() {}
