include!("../bank.rs");

#[derive(Aggregate)]
#[aggregate(context = "bank", name = "account", id = u64, command = AccountCommand, event = AccountEvent, error = AccountError)]
union Account {
    balance: u64,
}

fn main() {}
