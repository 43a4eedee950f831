//! The decoder on candle's tape against the fused pass of tritforge-model, on packed documents.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use tritforge_config::ModelConfig;
use tritforge_model::{Gradients, Workspace};
use tritforge_nn::IGNORE_INDEX;

#[test]
fn loss_and_gradients_agree() {
    let config = ModelConfig {
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        use_qk_norm: true,
        ..ModelConfig::default()
    };
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let tape = tritforge_nn::Decoder::new(&config, vb).unwrap();
    let data = variables.data().lock().unwrap();
    let flat =
        |tensor: &Tensor| tensor.contiguous().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let fused = tritforge_model::Decoder::load(&config, |name, _| Ok(flat(data[name].as_tensor()))).unwrap();
    assert_eq!(data.len(), fused.parameters().len());

    let ids: Vec<u32> = (0..24).map(|i| i * 7 % 40).collect();
    let mut targets: Vec<u32> = (0..24).map(|i| (i + 1) * 7 % 40).collect();
    targets[5] = IGNORE_INDEX;
    let (sequences, segments) = (2, [4usize, 15]);
    let batch = tritforge_nn::Batch { ids: &ids, targets: &targets, sequences, segments: &segments };
    let loss = tape.loss_of_batch(&batch, 23.0).unwrap();

    let batch = tritforge_model::Batch { ids: &ids, targets: &targets, sequences, segments: &segments };
    let mut gradients = Gradients::new(fused.parameters(), |_| true);
    let of_fused = fused.forward_backward(&mut Workspace::new(false), &batch, 23.0, &mut gradients).unwrap();
    assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - of_fused).abs() <= 1e-5 * of_fused);

    let of_tape = loss.backward().unwrap();
    for (parameter, fused) in fused.parameters().iter().zip(gradients.iter()) {
        let fused = fused.unwrap();
        let name = &parameter.name;
        let tape =
            flat(of_tape.get(data[name.as_str()].as_tensor()).expect("every parameter has a gradient"));
        let size = fused.iter().fold(0f32, |m, g| m.max(g.abs()));
        assert!(size > 0.0, "{name}: the gradient is zero");
        let difference = fused.iter().zip(&tape).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(difference <= 1e-5 * size, "{name}: gradients differ by {difference} of {size}");
    }
}
