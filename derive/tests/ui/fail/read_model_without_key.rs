include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
struct AccountRow {
    balance: i64,
    account_id: String,
}

impl Fold<Account> for AccountRow {
    fn fold(_: &AccountEvent, _: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        rows.delete::<AccountRow>(&"1".to_owned())
    }
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "amounts")]
struct AmountRow {
    amount: f64,
}

fn main() {}
