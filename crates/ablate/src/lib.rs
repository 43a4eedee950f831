//! Questions about training, asked in TOML and answered with error bars.
//!
//! * [`Experiment`] is a file: a question, a base recipe, arms that change it, seeds, what is tuned for each arm before.
//! * [`Plan`] resolves and freezes all recipes, and tells whether runs of two arms with the same seed are pairs
//!   ([`Pairing`]).
//! * [`prepare`] measures what all that takes; [`execute`] runs what has no result yet, several runs at a time, each in a
//!   process of its own, and writes a [`Report`]. A run is named by all that its result depends on, so that experiments
//!   share runs; a [`Journal`] says what happened. Killed at any time, the same command goes on to the same tables.
//! * [`stats`] has the statistics, [`Verdict`] says what they allow to be said.
//! * [`compare`] makes the same tables of any runs.
//! * [`selfcheck`] computes statements that need no seeds.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod child;
mod compare;
mod cost;
mod engine;
mod error;
mod experiment;
mod finish;
mod fork;
mod frozen;
mod health;
mod journal;
mod machine;
mod pairing;
mod plan;
mod program;
mod random;
mod report;
mod results;
mod rounds;
mod rungs;
mod runner;
mod search;
mod selfcheck;
mod speed;
pub mod stats;
mod store;
mod sweep;
mod tune;
mod verdict;

pub use compare::compare;
pub use cost::{ArmCost, Count};
pub use engine::{Options, Ready, Search, execute, failures, prepare};
pub use error::AblateError;
pub use experiment::{Arm, Axis, Experiment, Metric, Outputs, Setting, Tune, combinations, parse_duration};
pub use health::Look;
pub use journal::{Journal, Record};
pub use pairing::Pairing;
pub use plan::{ArmRecipes, FrozenRun, Plan, PlannedArm, Point, recipes};
pub use program::Program;
pub use report::{Context, Kind, Report, table};
pub use results::{ArmResult, ArmRuns, Costs, CurvePoint, SeedRun, TunedText, Versus};
pub use rungs::{RungResult, Rungs};
pub use runner::{Outcome, Task};
pub use search::Trials;
pub use selfcheck::{Statement, selfcheck};
pub use store::RunResult;
pub use sweep::of_recipe;
pub use tune::Tuned;
pub use verdict::Verdict;
