//! bank
fn main() {}
