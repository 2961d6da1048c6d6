include!("../read_models.rs");

#[derive(Debug, Clone, ColumnValue)]
enum Status {
    Open,
}

#[derive(ColumnValue)]
union Both {
    a: u8,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    status: Status,
}

fn main() {}
