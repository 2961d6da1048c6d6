include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts", version = 0)]
struct AccountRow {
    #[key]
    id: String,
}

fn main() {}
