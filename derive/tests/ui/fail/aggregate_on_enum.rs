include!("../bank.rs");

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
enum Account {
    #[default]
    Open,
}

impl Apply for Account {
    fn apply(&mut self, _: &AccountEvent) {}
}

fn main() {}
