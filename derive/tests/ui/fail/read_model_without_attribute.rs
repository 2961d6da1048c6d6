include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
struct AccountRow {
    #[key]
    id: String,
}

fn main() {}
