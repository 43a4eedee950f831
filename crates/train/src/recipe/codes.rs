//! What contradicts `quant.codes`, the codes that only training sees, within `[quant]`.

use tritforge_config::WeightQuant;
use tritforge_recipe::Reader;
use tritforge_support::either;
use tritforge_ternary::{Quantizer, Ste, quantizer_names};

use super::{CodeChoice, Quant};

impl Quant {
    /// Notes what contradicts codes that only training sees.
    pub(super) fn check_codes(&self, r: &mut Reader) {
        if let Some(temperature) = self.temperature.filter(|_| self.codes != CodeChoice::Soft) {
            let message = format!("quant.temperature = {temperature}: only for quant.codes = \"soft\"");
            r.fault("quant", "temperature", message);
        }
        if self.hessian_alpha != 0.0 && self.codes != CodeChoice::Soft {
            let message =
                format!("quant.hessian_alpha = {}: only for quant.codes = \"soft\"", self.hessian_alpha);
            r.fault("quant", "hessian_alpha", message);
        }
        if let Some(residual) = self.residual.filter(|_| self.codes != CodeChoice::Residual) {
            let message = format!("quant.residual = {residual}: only for quant.codes = \"residual\"");
            r.fault("quant", "residual", message);
        }
        let name = match self.codes {
            CodeChoice::Round => return,
            CodeChoice::Stochastic => "stochastic",
            CodeChoice::Soft => "soft",
            CodeChoice::Residual => "residual",
        };
        let mut fault = |message: &str| {
            r.fault("quant", "codes", format!("quant.codes = \"{name}\": {message}"));
        };
        let others =
            |is: fn(&dyn Quantizer) -> bool| either(quantizer_names(is).map(|name| format!("\"{name}\"")));
        if self.weights != WeightQuant::Absmean {
            fault("expected quant.weights = \"absmean\": only latent weights are rounded");
        }
        if self.codes == CodeChoice::Residual {
            if self.scale.learned().is_some() {
                let learned = others(|quantizer| quantizer.learned().is_some());
                fault(&format!("expected a scale computed from the weights, not {learned}"));
            }
        } else if self.quantizer().makes_codes() || self.scale.learned().is_some() {
            let others = others(|quantizer| {
                quantizer.signs() || quantizer.sparsity().is_some() || quantizer.learned().is_some()
            });
            fault(&format!(
                "expected a quantizer that rounds every weight by a scale computed from the weights: without sparsity, not {others}"
            ));
        }
        if self.codes != CodeChoice::Stochastic && self.ste != Ste::Identity {
            fault(
                "contradicts quant.ste: these values have a gradient of their own, which needs no estimator",
            );
        }
        if self.backward.needs_integers() {
            fault(
                "contradicts quant.backward: the forward of training multiplies no integers; expected \"auto\"",
            );
        }
    }
}
