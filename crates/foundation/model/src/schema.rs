//! The JSON Schema of the spec, from the same declarations that read it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::Spec;
use crate::reader::Read;

/// The JSON Schema of `lifeboat.yaml` as it stands in `docs/schema/lifeboat.schema.json`.
pub fn schema_json() -> String {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<Spec>();
    // Reading goes on without them, so that other findings are not lost; then it is an error.
    schema.insert("required".to_owned(), json!(["lifeboat", "regions"]));
    format!("{:#}\n", schema.as_value())
}

/// The schema of one map in the making.
pub(crate) struct Section {
    description: String,
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl Section {
    pub(crate) fn new(about: &str) -> Self {
        Self { description: tidy(about), properties: Map::new(), required: Vec::new() }
    }

    pub(crate) fn key<T: Read + JsonSchema>(
        &mut self,
        key: &str,
        about: &str,
        default: Option<T>,
        generator: &mut SchemaGenerator,
    ) {
        if default.or_else(T::absent).is_none() {
            self.required.push(key.into());
        }
        let mut schema = generator.subschema_for::<T>();
        schema.insert("description".to_owned(), tidy(about).into());
        self.properties.insert(key.to_owned(), schema.to_value());
    }

    pub(crate) fn finish(self) -> Schema {
        json_schema!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": false,
        })
    }
}

/// The schema of a map with one key.
pub(crate) fn variant<T: Read + JsonSchema>(
    key: &str,
    about: &str,
    generator: &mut SchemaGenerator,
) -> Value {
    let mut section = Section::new(about);
    section.key::<T>(key, about, None, generator);
    section.finish().to_value()
}

/// Doc comments come with a leading blank a line.
fn tidy(about: &str) -> String {
    about.split_whitespace().collect::<Vec<_>>().join(" ")
}
