//! What the derives accept and refuse, and what they say then: a file a mistake, with the message beside it.

#[test]
fn the_derives_accept_and_refuse() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
