include!("../read_models.rs");

#[derive(Debug, Clone, PartialEq, ColumnValue)]
struct AccountId(String);

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: AccountId,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "parts")]
struct PartRow {
    #[key]
    id: AccountId,
    #[key]
    part: u8,
}

fn main() {}
