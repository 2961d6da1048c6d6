include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[serde(bound = "")]
#[aggregate(context = "bank", name = "savings", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
struct Savings<T: Value> {
    balance: T,
}

const NAME: &str = Savings::<u64>::NAME;

fn main() {}
