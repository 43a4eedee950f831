//! The second engine: the same model composed of candle modules, differentiated by candle's tape.
//!
//! It shares the parameters with the model that is evaluated, saved and exported: the optimizer changes both.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use tritforge_model::{Batch, Decoder, Gradients};

use crate::TrainError;

/// A model on candle's tape.
pub(super) struct TapeEngine {
    decoder: tritforge_nn::Decoder,
}

impl TapeEngine {
    /// The modules over the parameters of `model`.
    pub(super) fn new(model: &Decoder) -> Result<Self, TrainError> {
        let variables = VarMap::new();
        variables
            .data()
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend(model.parameters().iter().map(|p| (p.name.clone(), p.var.clone())));
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let decoder = tritforge_nn::Decoder::new(model.config(), vb).map_err(candle_core::Error::from)?;
        // A module asks for a variable by name and would make one that is not there.
        let made = variables.all_vars().len();
        if made != model.parameters().len() {
            let message = format!("candle's modules have {made} variables for {}", model.parameters().len());
            return Err(TrainError::State(message));
        }
        Ok(Self { decoder })
    }

    /// Adds the gradients of `Σ cross-entropy / normalizer` over the batch's targets to `gradients`, and
    /// returns that loss: as [`Decoder::forward_backward`] does.
    pub(super) fn forward_backward(
        &self,
        model: &Decoder,
        batch: &Batch<'_>,
        normalizer: f32,
        gradients: &mut Gradients,
    ) -> Result<f64, TrainError> {
        let Batch { ids, targets, sequences, segments } = *batch;
        let batch = tritforge_nn::Batch { ids, targets, sequences, segments };
        let loss = self.decoder.loss_of_batch(&batch, normalizer)?;
        let of = loss.backward()?;
        for (i, parameter) in model.parameters().iter().enumerate() {
            let gradient = of.get(parameter.var.as_tensor()).ok_or_else(|| {
                TrainError::State(format!("candle's tape has no gradient of {}", parameter.name))
            })?;
            gradients.add_to(i, &gradient.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}
