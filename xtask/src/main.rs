//! Set-up, examples, tests and benchmarks by one name each: `cargo xtask help`.

fn main() {}
