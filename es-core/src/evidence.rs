//! Evidence that nobody changed what was recorded: signing it, and checking it.

pub mod seal;
pub mod verify;
