//! The second engine: the same model composed of candle modules, differentiated by candle's tape.
//!
//! Its variables are copies of the parameters of the model that is evaluated, saved and exported, taken anew for
//! every batch: the optimizer changes that model.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use tritforge_model::{Batch, Decoder, Gradients};
use tritforge_nn::Segments;

use crate::TrainError;

/// A model on candle's tape.
#[derive(Debug)]
pub(super) struct TapeEngine {
    decoder: tritforge_nn::Decoder,
    /// In the order of the model's parameters.
    variables: Vec<Var>,
}

impl TapeEngine {
    /// The modules over variables for the parameters of `model`.
    pub(super) fn new(model: &Decoder) -> Result<Self, TrainError> {
        let variables = (model.parameters().iter())
            .map(|p| Var::from_slice(&p.tensor.read(), p.tensor.dims(), &Device::Cpu))
            .collect::<Result<Vec<_>, _>>()?;
        let by_name = VarMap::new();
        by_name
            .data()
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend(model.parameters().iter().zip(&variables).map(|(p, var)| (p.name.clone(), var.clone())));
        let vb = VarBuilder::from_varmap(&by_name, DType::F32, &Device::Cpu);
        let decoder = tritforge_nn::Decoder::new(model.config(), vb).map_err(candle_core::Error::from)?;
        // A module asks for a variable by name and would make one that is not there.
        let made = by_name.all_vars().len();
        if made != variables.len() {
            let message = format!("candle's modules have {made} variables for {}", variables.len());
            return Err(TrainError::State(message));
        }
        Ok(Self { decoder, variables })
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
        for (variable, parameter) in self.variables.iter().zip(model.parameters()) {
            let tensor = &parameter.tensor;
            variable.set(&Tensor::from_slice(&tensor.read(), tensor.dims(), &Device::Cpu)?)?;
        }
        let Batch { ids, targets, sequences, segments } = *batch;
        let segments = Segments::new(ids.len(), sequences, segments).map_err(candle_core::Error::from)?;
        let loss = self.decoder.loss_of_batch(ids, targets, &segments, normalizer)?;
        let of = loss.backward()?;
        for (i, (parameter, variable)) in model.parameters().iter().zip(&self.variables).enumerate() {
            if parameter.frozen {
                continue;
            }
            let gradient = of.get(variable.as_tensor()).ok_or_else(|| {
                TrainError::State(format!("candle's tape has no gradient of {}", parameter.name))
            })?;
            gradients.add_to(i, &gradient.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}
