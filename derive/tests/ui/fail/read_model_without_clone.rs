include!("../read_models.rs");

#[derive(Debug, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: String,
}

fn main() {}
