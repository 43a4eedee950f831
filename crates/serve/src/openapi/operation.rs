//! A path with a method as it is described: what goes in and comes out. Each endpoint describes its own, in its file under
//! `routes`.

use schemars::{Schema, SchemaGenerator};

/// A path with a method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// In small letters.
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) request: Option<Body>,
    /// Media types of the answer.
    pub(crate) answer: &'static [(&'static str, Body)],
    /// Whether no key is asked for.
    pub(crate) public: bool,
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// Text.
    Text,
    /// JSON that is described elsewhere.
    Any,
    /// JSON of this schema.
    Schema(fn(&mut SchemaGenerator) -> Schema),
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const EVENTS: &str = "text/event-stream";

impl Operation {
    /// A request with a body.
    pub(crate) const fn post(
        path: &'static str,
        tag: &'static str,
        summary: &'static str,
        request: Body,
        answer: &'static [(&'static str, Body)],
    ) -> Self {
        Self { method: "post", path, tag, summary, request: Some(request), answer, public: false }
    }

    /// A request without.
    pub(crate) const fn get(
        path: &'static str,
        tag: &'static str,
        summary: &'static str,
        answer: &'static [(&'static str, Body)],
    ) -> Self {
        Self { method: "get", path, tag, summary, request: None, answer, public: false }
    }

    /// One that no key is asked for.
    pub(crate) const fn public(self) -> Self {
        Self { public: true, ..self }
    }
}

/// A body of a type's schema.
macro_rules! schema {
    ($type:ty) => {
        $crate::openapi::Body::Schema(|generator| generator.subschema_for::<$type>())
    };
}
pub(crate) use schema;
