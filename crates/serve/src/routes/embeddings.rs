//! `POST /v1/embeddings`: vectors of texts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tritforge_infer::{Model, embed};
use tritforge_text::{EncodeOptions, base64};

use super::{Service, parse};
use crate::engine::JobError;
use crate::error::ApiError;
use crate::openapi::{JSON, Operation, schema};
use crate::prompt_limit::PromptLimit;
use crate::record::Record;
use crate::request::{EmbeddingRequest, Object, RequestError, TextOrIds};

pub(super) const OPERATIONS: &[Operation] = &[Operation::post(
    "/v1/embeddings",
    "embeddings",
    "Make vectors of texts.",
    schema!(described::Request),
    &[(JSON, schema!(described::Embeddings))],
)];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/v1/embeddings", post(embeddings))
}

/// Tells the passes that nobody waits for them any more, when it is dropped.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn embeddings(
    State(service): State<Service>,
    Extension(record): Extension<Arc<Record>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body: Object = parse(body)?;
    let (model, limit) = service.jobs.text()?;
    let mut request = EmbeddingRequest::read(&body, model.config().hidden_size)?;
    if let Some(filters) = service.jobs.filters() {
        let decode = |ids: &[u32]| service.jobs.decode(ids, "input");
        filters.texts(&mut request.input, "input", service.jobs.metrics(), decode)?;
    }
    let (name, adapters) = service.jobs.adapters().of_request(request.model.as_deref(), None)?;
    let place = service.jobs.place(&record).await?;
    let wanted = Arc::new(AtomicBool::new(true));
    let waiting = Waiting(Arc::clone(&wanted));
    let pooling = service.pooling;
    let ran = tokio::task::spawn_blocking(move || {
        let texts = tokens(&model, limit, &request.input)?;
        let go_on = || wanted.load(Ordering::Relaxed) && !place.is_late();
        let vectors = embed(&model, &texts, pooling, &adapters, go_on).map_err(JobError::from);
        let vectors = vectors.map_err(|error| ApiError::of_job(error, "input"))?.ok_or(ApiError::Timeout)?;
        let count = texts.iter().map(Vec::len).sum::<usize>();
        Ok::<_, ApiError>((vectors, count, request))
    });
    let ran =
        ran.await.map_err(|_| ApiError::Internal("the engine stopped without an answer".to_string()))?;
    drop(waiting);
    let (vectors, tokens, request) = ran?;
    record.tokens(tokens, 0);
    service.jobs.metrics().prompt_tokens.inc_by(tokens as u64);
    let data = vectors.into_iter().enumerate().map(|(index, mut vector)| {
        if request.normalize {
            normalize(&mut vector);
        }
        let vector = if request.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!(base64(&bytes))
        } else {
            json!(vector)
        };
        json!({ "object": "embedding", "index": index, "embedding": vector })
    });
    Ok(Json(json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": name,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// The texts' tokens. Names of special tokens in them are text.
fn tokens(model: &Model, limit: PromptLimit, input: &[TextOrIds]) -> Result<Vec<Vec<u32>>, ApiError> {
    let tokenizer = model.tokenizer();
    let how = EncodeOptions { add_bos: tokenizer.adds_bos(), parse_special: false };
    let tokens = |text: &TextOrIds| match text {
        TextOrIds::Ids(ids) => Ok(ids.clone()),
        TextOrIds::Text(text) => {
            limit.check_bytes(text.len())?;
            Ok(tokenizer.encode_with(text, how)?)
        }
    };
    let tokens = input.iter().map(tokens).collect::<Result<Vec<_>, JobError>>();
    let tokens = tokens.map_err(|error| ApiError::of_job(error, "input"))?;
    match tokens.iter().position(Vec::is_empty) {
        None => Ok(tokens),
        Some(i) => {
            let message = format!("input: text {i} has no tokens: expected at least one");
            Err(RequestError::new("input", message).into())
        }
    }
}

/// Makes a vector's length 1; one of length 0 stays.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Request and answer as OpenAPI describes them.
#[allow(dead_code, reason = "only their schemas are used")]
mod described {
    use schemars::JsonSchema;

    use crate::openapi::requests::Input;

    /// Texts to make vectors of.
    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(rename = "EmbeddingRequest")]
    pub(super) struct Request {
        input: Input,
        model: Option<String>,
        /// `float` or `base64`.
        encoding_format: Option<String>,
        /// The model's hidden size.
        dimensions: Option<usize>,
        user: Option<String>,
        /// 2 for vectors of length 1, -1 for vectors as they are.
        embd_normalize: Option<i32>,
    }

    /// Vectors of texts.
    #[derive(JsonSchema)]
    pub(super) struct Embeddings {
        /// `list`.
        object: String,
        data: Vec<Embedding>,
        model: String,
        usage: EmbeddingUsage,
    }

    /// The vector of a text.
    #[derive(JsonSchema)]
    struct Embedding {
        /// `embedding`.
        object: String,
        index: usize,
        embedding: Vector,
    }

    /// Numbers, or their bytes in Base64.
    #[derive(JsonSchema)]
    #[serde(untagged)]
    enum Vector {
        Float(Vec<f64>),
        Base64(String),
    }

    /// Tokens of the texts.
    #[derive(JsonSchema)]
    struct EmbeddingUsage {
        prompt_tokens: usize,
        total_tokens: usize,
    }
}
