//! What every crate needs for what it says: counts with their nouns ([`counted`]), what may be chosen ([`either`]), lengths of
//! time ([`duration`]), sizes ([`readable_size`]), what the operating system refused ([`IoError`]), and third-party code that
//! panics where it should return an error ([`caught`]).

mod caught;
mod count;
mod duration;
mod either;
mod io;
mod size;

pub use caught::caught;
pub use count::{Count, counted};
pub use duration::duration;
pub use either::either;
pub use io::IoError;
pub use size::readable_size;
