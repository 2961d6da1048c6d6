include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
    #[column(json, text)]
    owner: String,
    #[column(text)]
    #[column(json)]
    note: String,
}

fn main() {}
