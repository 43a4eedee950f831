//! A device of this test's own: the textbook's formulas in f64, one loop each. The block's forward runs on it as
//! it stands, and gives the logits of the CPU.

use tritforge_config::{ActivationQuant, AttentionBias, HiddenAct, ModelConfig, Projection, WeightQuant};
use tritforge_kernels::Gate;
use tritforge_model::{
    Activations, Attend, BlockForward, BlockShape, Decoder, Device, InputForm, Norms, Passing, Projections,
};

struct Textbook {
    theta: f64,
    head_dim: usize,
}

fn normed(x: &[f64], weight: &[f64], eps: f32) -> Vec<f64> {
    let rows = x.chunks_exact(weight.len());
    rows.flat_map(|row| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter().zip(weight).map(move |(x, w)| x / (mean + f64::from(eps)).sqrt() * w)
    })
    .collect()
}

impl Device for Textbook {
    type Rows = Vec<f64>;
    type Input = Vec<f64>;
    type Vector = Vec<f64>;
    type Rope = ();
    type Positions = [u32];

    fn rms_norm(&self, x: &Vec<f64>, (weight, eps): (&Vec<f64>, f32), out: &mut Vec<f64>) {
        *out = normed(x, weight, eps);
    }

    fn input(
        &self,
        x: &Vec<f64>,
        width: usize,
        norm: Option<(&Vec<f64>, f32)>,
        form: InputForm,
        out: &mut Vec<f64>,
        _plain: &mut Vec<f64>,
    ) {
        assert_eq!((form.quantized, x.len() % width), (None, 0));
        *out = norm.map_or(x.clone(), |(weight, eps)| normed(x, weight, eps));
    }

    fn gated_input(
        &self,
        act: Gate,
        (gate, up): (&Vec<f64>, &Vec<f64>),
        width: usize,
        norm: Option<(&Vec<f64>, f32)>,
        form: InputForm,
        out: &mut Vec<f64>,
        plain: &mut Vec<f64>,
    ) {
        let act = |x: f64| match act {
            Gate::Silu => x / (1.0 + (-x).exp()),
            Gate::Relu2 => x.max(0.0).powi(2),
            Gate::Relu => x.max(0.0),
            Gate::Gelu | Gate::GeluTanh => {
                let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + z.tanh())
            }
        };
        let product = gate.iter().zip(up).map(|(g, u)| act(*g) * u).collect();
        self.input(&product, width, norm, form, out, plain);
    }

    fn rope(&self, (): &(), x: &mut Vec<f64>, heads: usize, positions: &[u32]) {
        let half = self.head_dim / 2;
        for (row, position) in x.chunks_exact_mut(heads * self.head_dim).zip(positions) {
            for head in row.chunks_exact_mut(self.head_dim) {
                for i in 0..half {
                    let angle = f64::from(*position) / self.theta.powf(2.0 * i as f64 / self.head_dim as f64);
                    let (a, b) = (head[i], head[i + half]);
                    head[i] = a * angle.cos() - b * angle.sin();
                    head[i + half] = b * angle.cos() + a * angle.sin();
                }
            }
        }
    }

    fn add(&self, a: &Vec<f64>, b: &Vec<f64>, out: &mut Vec<f64>) {
        *out = a.iter().zip(b).map(|(a, b)| a + b).collect();
    }
}

/// The weights of a block, by projection.
struct Weights<'a> {
    model: &'a Decoder,
    layer: usize,
}

fn wide(model: &Decoder, name: &str) -> Option<Vec<f64>> {
    Some(model.values(name)?.into_iter().map(f64::from).collect())
}

fn product(x: &[f64], weight: &[f64], cols: usize) -> Vec<f64> {
    let dot = |row: &[f64], w: &[f64]| row.iter().zip(w).map(|(a, b)| a * b).sum();
    x.chunks_exact(cols).flat_map(|row| weight.chunks_exact(cols).map(move |w| dot(row, w))).collect()
}

impl Projections<Textbook> for Weights<'_> {
    type Error = String;

    fn form(&self, _projections: &[Projection]) -> InputForm {
        InputForm::PLAIN
    }

    fn project<const N: usize>(
        &mut self,
        projections: [Projection; N],
        input: &Vec<f64>,
        _plain: &Vec<f64>,
        outputs: [&mut Vec<f64>; N],
    ) -> Result<(), String> {
        for (projection, y) in projections.into_iter().zip(outputs) {
            let name = projection.hf_weight(self.layer);
            let weight = wide(self.model, &name).ok_or(name)?;
            *y = product(input, &weight, self.model.config().projection_shape(projection)[1]);
            if let Some(bias) = wide(self.model, &projection.hf_bias(self.layer)) {
                y.iter_mut().zip(bias.iter().cycle()).for_each(|(y, b)| *y += b);
            }
        }
        Ok(())
    }
}

struct Causal(BlockShape);

impl Attend<Textbook> for Causal {
    fn attend(
        &mut self,
        _layer: usize,
        [q, k, v]: [&Vec<f64>; 3],
        out: &mut Vec<f64>,
        _log_sum_exp: &mut Vec<f64>,
    ) {
        let shape = self.0.attention;
        let (d, group) = (shape.head_dim, shape.heads / shape.kv_heads);
        let row = |x: &[f64], width: usize, at: usize, head: usize| x[at * width + head * d..][..d].to_vec();
        *out = vec![0.0; q.len()];
        for (at, out) in out.chunks_exact_mut(shape.q_size()).enumerate() {
            for (head, out) in out.chunks_exact_mut(d).enumerate() {
                let query = row(q, shape.q_size(), at, head);
                let of = |x: &[f64], at: usize| row(x, shape.kv_size(), at, head / group);
                let weights: Vec<f64> = (0..=at)
                    .map(|at| query.iter().zip(of(k, at)).map(|(a, b)| a * b).sum::<f64>())
                    .map(|score| (score / (d as f64).sqrt()).exp())
                    .collect();
                let sum: f64 = weights.iter().sum();
                for (at, weight) in weights.iter().enumerate() {
                    out.iter_mut().zip(of(v, at)).for_each(|(out, v)| *out += weight / sum * v);
                }
            }
        }
    }
}

/// The logits of one sequence.
fn logits(model: &Decoder, ids: &[u32]) -> Vec<f64> {
    let config = model.config();
    let d = config.hidden_size;
    let device = Textbook { theta: f64::from(config.rope_theta), head_dim: config.head_dim };
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let table = wide(model, "model.embed_tokens.weight").unwrap();
    let mut x: Vec<f64> = ids.iter().flat_map(|id| &table[*id as usize * d..][..d]).copied().collect();
    for layer in 0..config.num_hidden_layers {
        let norm = |name: &str| wide(model, &format!("model.layers.{layer}.{name}.weight"));
        let own = Projection::SHARING.map(|p| norm(&format!("{}.norm", p.hf_name())));
        let norms = Norms {
            input_layernorm: norm("input_layernorm").unwrap(),
            qk_norm: norm("self_attn.q_norm").zip(norm("self_attn.k_norm")).map(|(q, k)| [q, k]),
            attn_sub_norm: norm("self_attn.attn_sub_norm"),
            post_attention_layernorm: norm("post_attention_layernorm").unwrap(),
            ffn_sub_norm: norm("mlp.ffn_sub_norm"),
            projections: config.projection_norms.then(|| own.map(Option::unwrap)),
        };
        let shape = BlockShape::new(config, layer);
        let norms = norms.each(|norm| norm);
        let block = BlockForward { device: &device, shape, norms, rope: &(), positions: &positions[..] };
        let (mut kept, mut passing) = (Activations::default(), Passing::default());
        let mut out = Vec::new();
        let weights = &mut Weights { model, layer };
        block.run(&x, weights, &mut Causal(shape), &mut kept, &mut passing, &mut out).unwrap();
        x = out;
    }
    let x = normed(&x, &wide(model, "model.norm.weight").unwrap(), config.rms_norm_eps);
    product(&x, &wide(model, "lm_head.weight").unwrap_or(table), d)
}

#[test]
fn a_device_of_ones_own_runs_the_block_as_it_stands() {
    let config = ModelConfig {
        vocab_size: 37,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    };
    let plain = ModelConfig { use_sub_norm: false, ..config.clone() };
    for config in [
        ModelConfig { hidden_act: HiddenAct::Relu, ..config.clone() },
        ModelConfig { projection_norms: true, ..config.clone() },
        ModelConfig { hidden_act: HiddenAct::GeluTanh, ..config.clone() },
        ModelConfig { hidden_act: HiddenAct::Relu2, ..config },
        ModelConfig { tie_word_embeddings: false, use_qk_norm: true, ..plain.clone() },
        ModelConfig { attention_bias: AttentionBias::All, ..plain },
    ] {
        let model = Decoder::init(&config, 5).unwrap();
        // Biases begin at 0 and norms at 1, where mistakes hide.
        for parameter in model.parameters() {
            if let [_] = parameter.tensor.dims() {
                let mut values = parameter.tensor.write();
                values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.3 * (i as f32 * 1.7).sin());
            }
        }
        let ids: Vec<u32> = (0..19).map(|i| i * 7 % 37).collect();
        let ours = model.logits(&ids, 1, None).unwrap();
        let size = ours.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (ours, theirs) in ours.iter().zip(logits(&model, &ids)) {
            assert!((f64::from(*ours) - theirs).abs() < 1e-5 * f64::from(size), "{ours} {theirs}");
        }
    }
}
