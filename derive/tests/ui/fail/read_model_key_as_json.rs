include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    #[column(name = "account", json)]
    id: (u8, u8),
}

fn main() {}
