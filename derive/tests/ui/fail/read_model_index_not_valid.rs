include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(
    name = "accounts",
    index(byOwner = [owner]),
    index(fifteen_letters = [owner]),
    index(by_owner = [owner]),
    index(by_owner = [id]),
    index(by_both = [owner, id, owner]),
)]
struct AccountRow {
    #[key]
    id: String,
    owner: String,
}

fn main() {}
