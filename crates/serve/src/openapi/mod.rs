//! The service described as OpenAPI 3.1, made of what its endpoints say of themselves and of the types of this crate.

pub(crate) mod answers;
mod operation;
pub(crate) mod requests;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub(crate) use self::operation::{Body, EVENTS, JSON, Operation, schema};

/// The document of a service that has these.
pub(crate) fn document(operations: impl Iterator<Item = &'static Operation>) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let item = paths.entry(operation.path.to_string()).or_insert_with(|| json!({}));
        item[operation.method] = described(operation, &mut generator);
    }
    let error = reference(&generator.subschema_for::<answers::ErrorAnswer>());
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tritforge",
            "summary": "A ternary language model behind OpenAI's API.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Error": {
                    "description": "The request is refused or failed; docs/service.md lists the codes.",
                    "content": { "application/json": { "schema": error } },
                },
            },
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer", "description": "An API key, where the service has any." },
            },
        },
    })
}

fn described(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let Operation { method, path, tag, summary, request, answer, public } = operation;
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let id: Vec<&str> = [*method].into_iter().chain(words).collect();
    let mut content = Map::new();
    for (media, body) in *answer {
        content.insert((*media).to_string(), media_type(body, generator));
    }
    let mut described = json!({
        "operationId": id.join("_"),
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": { "description": "The answer.", "content": content },
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    if let Some(body) = request {
        let content = json!({ "application/json": media_type(body, generator) });
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    if *public {
        described["security"] = json!([]);
    }
    let parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    described
}

fn media_type(body: &Body, generator: &mut SchemaGenerator) -> Value {
    match body {
        Body::Text => json!({ "schema": { "type": "string" } }),
        Body::Any => json!({}),
        Body::Schema(schema) => json!({ "schema": reference(&schema(generator)) }),
    }
}

fn reference(schema: &schemars::Schema) -> Value {
    schema.clone().to_value()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::requests::typed;
    use crate::request::{Effect, Endpoint, fields};

    #[test]
    fn every_field_of_generations_that_is_supported_has_a_type_and_no_other() {
        let generations = [Endpoint::Chat, Endpoint::Completions];
        let supported = fields()
            .filter(|field| field.effect == Effect::Supported)
            .filter(|field| field.endpoints.iter().any(|endpoint| generations.contains(endpoint)))
            .map(|field| field.name.to_string());
        assert_eq!(typed().into_iter().collect::<BTreeSet<_>>(), supported.collect());
    }
}
