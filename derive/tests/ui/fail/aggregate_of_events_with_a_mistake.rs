include!("../bank.rs");

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
enum SavingsEvent {
    #[event(name = "opened")]
    Opened,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "savings", id = u64, command = AccountCommand, event = SavingsEvent, error = AccountError)]
struct Savings {
    balance: u64,
}

impl Apply for Savings {
    fn apply(&mut self, _: &SavingsEvent) {}
}

fn main() {}
