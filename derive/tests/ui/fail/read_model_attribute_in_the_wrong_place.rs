include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
#[key]
#[column(json)]
struct AccountRow {
    #[key]
    id: String,
    #[read_model(index)]
    owner: String,
}

fn main() {}
