include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key(text)]
    id: String,
    #[key]
    #[key]
    part: u8,
}

fn main() {}
