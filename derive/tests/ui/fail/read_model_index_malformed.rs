include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(
    name = "accounts",
    index,
    index = [owner],
    index(),
    index(by_a),
    index(by_b = owner),
    index(by_c = []),
    index(by_d = ["owner"]),
    index(owner, balance),
    index("by_e" = [owner]),
    index(by_f = [owner balance]),
    index(by_g = [owner] by_h = [owner]),
    index(by_i = "owner"),
    index(by_j = [owner],) version = 2,
)]
struct AccountRow {
    #[key]
    id: String,
    owner: String,
    balance: i64,
}

fn main() {}
