//! What every crate needs for its errors: counts with their nouns ([`counted`]), and third-party code that
//! panics where it should return an error ([`caught`]).

mod caught;
mod count;

pub use caught::caught;
pub use count::{Count, counted};
