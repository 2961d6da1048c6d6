include!("../read_models.rs");

#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "accounts")]
enum AccountRow {
    Open,
}

impl Fold<Account> for AccountRow {
    fn fold(_: &AccountEvent, _: &Recorded, _: &mut Rows) -> Result<(), ProjectionError> {
        Ok(())
    }
}

fn main() {}
