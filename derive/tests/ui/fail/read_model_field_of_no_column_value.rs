include!("../read_models.rs");

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Address {
    city: String,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    #[key]
    id: Address,
    address: Address,
    former: Option<Address>,
    all: Vec<Address>,
    amount: f64,
}

impl Fold<Account> for AccountRow {
    fn fold(_: &AccountEvent, _: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        rows.delete::<AccountRow>(&Address { city: "Brno".into() })
    }
}

fn main() {}
