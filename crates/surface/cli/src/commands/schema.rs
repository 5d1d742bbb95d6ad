//! `lifeboat schema`: the JSON Schema of the spec.

use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::output::Report;

/// Print the JSON Schema of lifeboat.yaml, for editors and for checks before a commit
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat schema > lifeboat.schema.json")]
pub struct Args {}

/// The JSON Schema of the spec.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SpecSchema {
    /// The schema.
    schema: Value,
}

impl Report for SpecSchema {
    const COMMAND: &'static str = "schema";

    fn text(&self) -> String {
        format!("{:#}\n", self.schema)
    }
}

/// Generates the schema.
pub fn run() -> Outcome<SpecSchema> {
    let schema = serde_json::from_str(&lifeboat_model::schema_json())
        .map_err(|error| Failure::new(Code::Internal, "the schema is not JSON").because(error))?;
    Ok(SpecSchema { schema })
}
