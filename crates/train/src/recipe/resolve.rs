//! From entries to a whole recipe: every key read, every default filled in.

use std::path::Path;

use tritforge_config::LoraMode;
use tritforge_recipe::{Ema, Log, Lora, Model, Reader, Run, Sample, Tokenizer, Train, VERSION};

use super::{Data, Export, Optim, Quant, Recipe};
use crate::convert::Convert;
use crate::objective::Objective;

/// Reads every key. Faults are noted in the reader; the recipe is of use only if there are none.
pub(super) fn resolve(r: &mut Reader, path: &Path) -> Recipe {
    let run = Run::read(r, path);
    let (mut data, packing) = Data::read(r);
    let vocab_inline = r.has_inline("model", "vocab_size");
    let (mut model, quant) = (Model::read(r, data.seq_len), Quant::read(r));
    let lora = Lora::read(r);
    let tokenizer = Tokenizer::read(r, model.vocab_size, model.base.is_some());
    if !vocab_inline {
        // The shape's file only says what size it was made for.
        model.vocab_size = None;
    }
    let train = Train::read(r);
    let convert = Convert::read(r, train.steps);
    let objective = Objective::read(r);
    data.packing = packing.unwrap_or_else(|| data.default_packing(objective.chosen().data()));
    let ternary_adapter = lora.as_ref().is_some_and(|lora| lora.mode == LoraMode::Lota);
    let optim = Optim::read(r, train.steps, ternary_adapter);
    let ema = Ema::read(r);
    let sample = Sample::read(r);
    let log = Log::read(r);
    let export = Export::read(r, &model, quant);
    Recipe {
        version: VERSION,
        run,
        model,
        quant,
        lora,
        convert,
        objective,
        tokenizer,
        data,
        optim,
        train,
        ema,
        sample,
        log,
        export,
    }
}
