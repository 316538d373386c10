//! The `aperio` program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    aperio::cli::main()
}
